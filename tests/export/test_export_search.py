"""Searches and constraints as artefacts: TFLite and ONNX find what Keras finds, and the runtime knows their knobs."""

import itertools
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.export import export, runtime
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import train_tokenizer
from keras_attention.types import EOS_ID
from tests.support.command import run_command
from tests.support.export_models import LINES, cheap, tiny_model
from tests.support.parts import Made, fast

__all__ = ["cheap"]

SEARCHES: dict[str, dict[str, Any]] = {
    "repetition": {"no_repeat_ngram": 2, "repetition_penalty": 1.2, "length_penalty_kind": "average"},
    "phrases": {"phrases": (2, 3)},
    "groups": {"beam_size": 4, "groups": 2, "repetition_penalty": 1.0, "stop": "best"},
    "sample": {"method": "sample", "top_k": 6, "top_p": 0.9, "no_repeat_ngram": 3},
    "contrastive": {"method": "contrastive", "no_repeat_ngram": 2},
    "agreement": {"method": "agreement", "repetition_penalty": 1.1, "no_repeat_ngram": 3},
}
BACKENDS = ["litert", "onnx"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """An artefact for each search, of words to characters, verified when it was exported."""
    home = tmp_path_factory.mktemp("searches")

    def make(name: str) -> pathlib.Path:
        with pytest.MonkeyPatch.context() as patch:
            cheap.__wrapped__(patch)
            export_search(name, home / name)
        return home / name

    return Made(make)


def export_search(name: str, folder: pathlib.Path) -> None:
    """Export with one of `SEARCHES`; Keras, the graphs and where it can the host loop find the same."""
    tokenizers = train_tokenizer("word", LINES), train_tokenizer("char", LINES)
    source, target = (tokenizer.vocabulary_size for tokenizer in tokenizers)
    model = tiny_model(seed=5, source_vocabulary=source, target_vocabulary=target)
    if name == "agreement":  # outputs that end before the buffers do
        bias = model.get_layer("output").bias
        bias.assign(np.where(np.arange(target) == EOS_ID, bias.numpy() + 3.0, bias.numpy()))
    limits: dict[str, Any] = {"beam_size": 3, "max_length": 11, "min_length": 3}
    text: dict[str, Any] = {"samples": LINES, "tokenizers": tokenizers}
    report = export(model, folder, ["tflite", "onnx"], **text, **(limits | SEARCHES[name]))
    for parity in report.parities:
        # A few draws may come near a border; most may not, or nothing was verified.
        assert parity.identical + parity.near_ties == parity.sentences == len(LINES)
        assert parity.near_ties <= 1
        assert parity.host_loop_identical == parity.host_loop_sentences
        assert (parity.host_loop_sentences > 0) == (name == "repetition")


@pytest.mark.slow
def test_the_manifest_says_what_is_fixed_and_what_is_an_input(folders: dict[str, pathlib.Path]) -> None:
    manifests = {
        name: json.loads((folder / "manifest.json").read_text()) for name in SEARCHES for folder in [folders[name]]
    }
    common = {"max_length", "min_length", "length_penalty", "allowed", "prefix"}
    beam = {*common, "coverage_penalty"}
    expected = {
        "repetition": {*beam, "repetition_penalty"},
        "phrases": {*beam, "phrases"},
        "groups": {*beam, "diversity", "repetition_penalty"},
        "sample": {*common, "temperature", "top_p", "uniforms"},
        "contrastive": {*common, "alpha"},
        "agreement": {*common, "backward_weight", "repetition_penalty"} - {"prefix"},
    }
    for name, manifest in manifests.items():
        assert set(manifest["knobs"]) == expected[name], name
        assert set(manifest["signatures"]["translate"]["inputs"]) == {"source_ids", *expected[name]}
    assert manifests["repetition"]["search"]["no_repeat_ngram"] == 2
    assert manifests["repetition"]["search"]["length_penalty_kind"] == "average"
    assert manifests["groups"]["search"]["groups"] == 2
    assert manifests["groups"]["search"]["stop"] == "best"
    assert manifests["sample"]["search"]["top_k"] == 6
    assert manifests["sample"]["knobs"]["uniforms"] == {"random": True, "minimum": 0.0, "maximum": 1.0}
    assert manifests["contrastive"]["search"]["candidates"] == 3
    assert manifests["contrastive"]["beam_size"] == 1
    assert manifests["agreement"]["search"]["method"] == "agreement"


@pytest.mark.parametrize("backend", fast(BACKENDS))
def test_what_ended_comes_first_on_both_routes(tmp_path: pathlib.Path, cheap: None, backend: str) -> None:
    """The host loop orders hypotheses as the graph does, where a better one that was cut comes later."""
    tokenizers = train_tokenizer("word", LINES), train_tokenizer("char", LINES)
    source, target = (tokenizer.vocabulary_size for tokenizer in tokenizers)
    model = tiny_model(seed=7, source_vocabulary=source, target_vocabulary=target)
    bias = model.get_layer("output").bias
    bias.assign(np.where(np.arange(target) == EOS_ID, bias.numpy() + 1.5, bias.numpy()))
    text: dict[str, Any] = {"samples": LINES, "tokenizers": tokenizers, "finished_first": True, "length_penalty": 2.0}
    formats = {"litert": "tflite", "onnx": "onnx"}[backend]
    export(model, tmp_path / "artefact", [formats], beam_size=12, max_length=3, **text)
    artefact = runtime.Artefact(tmp_path / "artefact", backend)
    source_ids = artefact.pad(artefact.encode(LINES))
    graph, host = (artefact.search(source_ids, host_loop=loop) for loop in (False, True))
    for name in ("ids", "lengths", "finished"):
        np.testing.assert_array_equal(graph[name], host[name], err_msg=name)
    np.testing.assert_allclose(graph["scores"], host["scores"], atol=1e-5)  # float32 in another order
    assert (np.diff(graph["finished"].astype(int), axis=1) <= 0).all()
    assert (np.diff(graph["scores"], axis=1) > 0).any(axis=1).sum() > 1  # it matters in some rows


def texts(found: Any) -> list[list[str]]:
    return [[one.text for one in hypotheses] for hypotheses in found]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_bigram_comes_twice_on_both_routes(folders: dict[str, pathlib.Path], backend: str) -> None:
    artefact = runtime.Artefact(folders["repetition"], backend)
    for host_loop in (False, True):
        for (hypothesis,) in artefact.translate(LINES, host_loop=host_loop):
            ids = [*hypothesis.ids, 2] if hypothesis.finished else hypothesis.ids
            pairs = list(itertools.pairwise(ids))
            assert len(pairs) == len(set(pairs))
    plain, strict = (list(artefact.translate(LINES, repetition_penalty=value)) for value in (1.0, 5.0))
    repeats = [sum(len(one.ids) - len(set(one.ids)) for (one,) in found) for found in (plain, strict)]
    assert repeats[1] < repeats[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", fast(SEARCHES))
def test_a_graph_itself_marks_the_slots_that_stay_empty(
    folders: dict[str, pathlib.Path], name: str, backend: str
) -> None:
    """Where no word is allowed there is no hypothesis."""
    artefact = runtime.Artefact(folders[name], backend)
    source = artefact.pad(artefact.encode(LINES[:2]))
    allowed = np.zeros(artefact.manifest["signatures"]["translate"]["inputs"]["allowed"]["axes"], bool)
    knobs = runtime.knob_values(artefact.manifest, 2, {"allowed": allowed})
    found = artefact.backend.run("translate", {"source_ids": source, **knobs})
    assert np.isneginf(found["scores"]).all()
    assert np.isneginf(found["log_probs"]).all()
    assert (found["lengths"] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_phrases_are_there(folders: dict[str, pathlib.Path], backend: str) -> None:
    artefact = runtime.Artefact(folders["phrases"], backend)
    for hypotheses in artefact.translate(LINES, required=["cat", "7"], n_best=3, batch_size=2):
        assert hypotheses
        assert all("cat" in one.text and "7" in one.text for one in hypotheses)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_follow_their_seed(folders: dict[str, pathlib.Path], backend: str) -> None:
    artefact = runtime.Artefact(folders["sample"], backend)
    drawn = [texts(artefact.translate(LINES, n_best=2, seed=seed)) for seed in (1, 1, 2, None, None)]
    assert drawn[0] == drawn[1]
    assert all(drawn[one] != drawn[other] for one, other in ((0, 2), (0, 3), (3, 4)))
    one_by_one = texts(artefact.translate(LINES, n_best=2, seed=1, batch_size=1))
    assert one_by_one == drawn[0]
    cold = [texts(artefact.translate(LINES, seed=seed, temperature=0.01, top_p=0.01)) for seed in (1, 2)]
    assert cold[0] == cold[1]  # no freedom is left


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_knobs_of_groups_and_contrast_change_what_is_found(folders: dict[str, pathlib.Path], backend: str) -> None:
    groups, contrast = (runtime.Artefact(folders[name], backend) for name in ("groups", "contrastive"))
    close, apart = (texts(groups.translate(LINES, n_best=4, diversity=value)) for value in (0.0, 20.0))
    assert sum(len(set(one)) for one in apart) > sum(len(set(one)) for one in close)
    likely, unlike = (texts(contrast.translate(LINES, alpha=value)) for value in (0.0, 0.9))
    assert likely != unlike


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_weight_of_the_backward_direction_is_an_input(folders: dict[str, pathlib.Path], backend: str) -> None:
    artefact = runtime.Artefact(folders["agreement"], backend)
    ahead, behind = (list(artefact.translate(LINES, n_best=3, backward_weight=value)) for value in (0.0, 1.0))
    assert texts(ahead) != texts(behind)
    for hypotheses in ahead:  # one direction's log-probabilities, and what begins with BOS is not turned
        assert [one.score for one in hypotheses] == sorted((one.score for one in hypotheses), reverse=True)
    assert artefact.translate(LINES, prefix="") is not None
    with pytest.raises(runtime.ArtefactError, match="no knob 'prefix'"):
        list(artefact.translate(LINES, prefix="c"))


@pytest.mark.parametrize("name", fast([name for name in SEARCHES if name != "repetition"]))
def test_the_host_loop_refuses_what_it_cannot_do(folders: dict[str, pathlib.Path], name: str) -> None:
    artefact = runtime.Artefact(folders[name])
    for options in ({"host_loop": True}, {"beam_size": 7}):
        with pytest.raises(runtime.ArtefactError, match="The host loop knows no"):
            list(artefact.translate(LINES, **options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("repetition", {"required": ["cat"]}, "no knob 'phrases'"),
        ("phrases", {"required": "cat"}, "a list of phrases"),
        ("phrases", {"required": ["cats"]}, r"does not fit. Expected: 1 to 3 tokens. Received: 4"),
        ("phrases", {"required": [""]}, r"does not fit. Expected: 1 to 3 tokens. Received: 0"),
        ("phrases", {"required": ["a", "c", "e"]}, r"Too many phrases. Expected: at most 2. Received: 3"),
        ("phrases", {"required": ["漢"]}, "what the model cannot write"),
        ("phrases", {"required": ["cat", "sun"], "max_length": 5}, "What phrases hold together is longer"),
        ("sample", {"temperature": 0.0}, "temperature is out of range"),
        ("sample", {"top_p": 1.5}, "top p is out of range"),
        ("sample", {"coverage_penalty": 0.1}, "no knob 'coverage_penalty'"),
        ("contrastive", {"alpha": 2.0}, "alpha is out of range"),
        ("contrastive", {"n_best": 2}, "n-best is out of range"),
        ("agreement", {"backward_weight": 1.1}, "backward weight is out of range"),
        ("repetition", {"repetition_penalty": 0.0}, "repetition penalty is out of range"),
        ("groups", {"diversity": -1.0}, "diversity is out of range"),
    ],
)
def test_mistakes_with_knobs(
    folders: dict[str, pathlib.Path], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(runtime.ArtefactError, match=message):
        list(runtime.Artefact(folders[name]).translate(LINES, **options))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is out of range"),
        ({"repetition_penalty": -2.0}, "repetition_penalty is out of range"),
        ({"phrases": (0, 3)}, "phrases is out of range"),
        ({"beam_size": 5, "groups": 2}, "Expected a divisor of the beam of 5"),
        ({"method": "dream"}, "one of beam, sample, contrastive, agreement"),
        ({"method": "sample", "top_k": 0}, "top_k is out of range"),
        ({"method": "sample", "groups": 5}, "groups is a setting of method 'beam'"),
        ({"method": "contrastive", "phrases": (1, 1)}, "phrases is a setting of method 'beam'"),
        ({"method": "sample", "coverage_penalty": 0.2}, "coverage_penalty is a setting of method 'beam'"),
        ({"method": "contrastive", "alpha": 1.5}, "alpha is out of range"),
        ({"method": "agreement", "backward_weight": -0.1}, "backward_weight is out of range"),
        ({"method": "agreement", "coverage_penalty": 0.2}, "coverage_penalty is a setting of method 'beam'"),
        ({"length_penalty_kind": "none"}, "Expected one of gnmt, average"),
        ({"stop": "never"}, "Expected one of all, best"),
        ({"method": "sample", "stop": "best"}, "stop is a setting of method 'beam'"),
    ],
)
def test_mistakes_with_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchPolicy(**fields)


def test_what_cannot_go_together(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="no input for numbers to draw by"):
        export(tiny_model(), tmp_path / "artefact", "tflite", text=True, method="sample")
    with pytest.raises(TypeError, match="'beam_size', the nearest name"):
        export(tiny_model(), tmp_path / "artefact", "tflite", beams=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_of_the_runtime(
    folders: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    class Stdin:
        buffer: Any

    def run(name: str, *options: str) -> list[str]:
        import io

        stdin = Stdin()
        stdin.buffer = io.BytesIO("\n".join(LINES).encode())
        monkeypatch.setattr(sys, "stdin", stdin)
        assert runtime.main(["--artefact", str(folders[name]), *options]) == 0
        return capfdbinary.readouterr().out.decode().splitlines()

    required = run("phrases", "--require", "cat", "--require", "7", "--n-best", "2")
    assert len(required) == 2 * len(LINES)
    assert all("cat" in line and "7" in line for line in required)
    assert run("sample", "--seed", "4", "--temperature", "1.5") == run("sample", "--seed", "4", "--temperature", "1.5")
    assert run("contrastive", "--alpha", "0.0") != run("contrastive", "--alpha", "0.9")
    assert run("agreement", "--backward-weight", "0.0") != run("agreement", "--backward-weight", "1.0")


@pytest.mark.slow
def test_an_export_has_the_same_settings_from_python_and_from_the_command_line(toy_run, tmp_path: pathlib.Path) -> None:
    export(toy_run.path, tmp_path / "python", "tflite", policy=SearchPolicy(beam_size=2, no_repeat_ngram=3))
    asked = ["--to", "tflite", "--beam", 2, "--no-repeat-ngram", 3, "--output", tmp_path / "command"]
    assert run_command("export", toy_run.path, *asked).status == 0
    one, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("python", "command"))
    for name in ("search", "knobs", "beam_size", "signatures"):
        assert one[name] == other[name], name
