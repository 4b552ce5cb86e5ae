"""Verification of results that are wrong by a known amount, and what keeps a wrong artefact from its place."""

import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from keras_attention import UserError
from keras_attention.export import errors, staging
from keras_attention.export.errors import ConversionError
from keras_attention.export.formats import converter as conversion
from keras_attention.export.formats.to_onnx.contents import QUANTISED_LSTM, operator_failures
from keras_attention.export.parity import cases as reference
from keras_attention.export.parity import quality, structure
from keras_attention.export.parity.compare import compare_tokens, compare_values
from keras_attention.export.parity.parity import Parity
from keras_attention.export.report import report
from keras_attention.export.report.benchmark import Latency
from keras_attention.export.verifier import check_case, check_host_loop, check_loss
from tests.support import host_tables
from tests.support.host_tables import EOS, PAD, Search, Tables, Translator
from tests.support.search_reference import Rules

# What the documentation promises for float32: absolute, and relative to the value.
PROMISED = {
    ("translate", "scores"): (5e-5, 1e-5),
    ("translate", "log_probs"): (5e-5, 1e-5),
    ("decode_step", "log_probs"): (5e-5, 1e-5),
    ("translate", "alignments"): (1e-5, 0.0),
    ("decode_step", "alignment"): (1e-5, 0.0),
    ("decode_step", "next_state_h_0"): (1e-5, 1e-4),
    ("encode", "memory_values"): (1e-5, 1e-4),
    ("call", "scores"): (1e-5, 1e-4),
}


def failures_of(graph: str, name: str, expected: Any, received: Any, exact: bool = True) -> list[str]:
    parity = Parity("onnx")
    compare_values("here", graph, name, np.asarray(expected), np.asarray(received), parity, exact)
    return parity.failures


@pytest.mark.parametrize(("graph", "name"), PROMISED)
@pytest.mark.parametrize("value", [0.0, -7.0])
def test_a_tolerance_is_as_wide_as_it_says(graph: str, name: str, value: float) -> None:
    absolute, relative = PROMISED[graph, name]
    allowed = absolute + relative * abs(value)
    assert failures_of(graph, name, [value], [value + 0.9 * allowed]) == []
    for share in (-1.1, 1.1):
        (failure,) = failures_of(graph, name, [value], [value + share * allowed])
        assert f"{name} differs by {1.1 * allowed:.3g}" in failure
    assert failures_of(graph, name, [value], [value + 1.1 * allowed], exact=False) == []


def test_each_value_has_its_own_tolerance() -> None:
    """A small number beside a large one: what the large one may differ by is too much."""
    assert failures_of("translate", "scores", [-900.0, -0.5], [-900.005, -0.5]) == []
    assert len(failures_of("translate", "scores", [-900.0, -0.5], [-900.0, -0.505])) == 1
    assert len(failures_of("translate", "scores", [[-1.0, -0.5]] * 50, [[-1.0, -0.5]] * 49 + [[-1.0, -0.6]])) == 1


@pytest.mark.parametrize("exact", [True, False])
def test_one_nan_fails_at_any_precision(exact: bool) -> None:
    assert len(failures_of("translate", "scores", [-1.0, -2.0], [-1.0, np.nan], exact)) == 1
    assert len(failures_of("translate", "ids", [4, 5], [4, 6], exact)) == int(exact)
    assert len(failures_of("translate", "scores", [-1.0, -np.inf], [-1.0, np.inf], exact)) == int(exact)


@pytest.mark.parametrize(("margin", "failing"), [(5e-5, 0), (2e-4, 1), (0.02, 1)])
def test_near_ties_end_at_one_ten_thousandth(margin: float, failing: int) -> None:
    ids, lengths = np.array([[[4, EOS], [5, EOS]]]), np.array([[2, 2]])
    case = reference.Case("translate", {}, {"ids": ids, "lengths": lengths}, np.array([margin], np.float32))
    parity = Parity("tflite")
    compare_tokens("here", case, {"ids": ids[:, ::-1], "lengths": lengths}, parity)
    assert (len(parity.failures), parity.near_ties, parity.identical) == (failing, 1 - failing, 0)


def test_hypotheses_of_another_length_fail() -> None:
    """The same ids: a word that is padding's is counted, or not."""
    ids, lengths = np.array([[[4, PAD, PAD]], [[5, EOS, PAD]]]), np.array([[1], [2]])
    case = reference.Case("translate", {}, {"ids": ids, "lengths": lengths}, np.array([0.5, 0.5], np.float32))
    parity = Parity("tflite")
    same = compare_tokens("here", case, {"ids": ids, "lengths": np.array([[2], [2]])}, parity)
    assert same.tolist() == [False, True]
    assert len(parity.failures) == 1


def searched(manifest: dict[str, Any], beams: int) -> reference.Case:
    """A search as a case: its outputs from the tables' definition."""
    source = np.array([[4, 6, 5, 3, 2], [5, 2, 0, 0, 0], [6, 4, 2, 0, 0]], np.int32)
    how = Search(0.5, beta=0.3), Rules(min_length=2)
    lists = [host_tables.beam(Tables.random(5), row, beams, 4, *how) for row in source]
    knobs = {
        "max_length": np.array(4, np.int32),
        "min_length": np.array(2, np.int32),
        "length_penalty": np.array(0.5, np.float32),
        "coverage_penalty": np.array(0.3, np.float32),
        "allowed": np.ones(host_tables.VOCABULARY, bool),
        "prefix": np.zeros((3, 1), np.int32),
        "repetition_penalty": np.array(1.0, np.float32),
    }
    assert set(knobs) == set(manifest["knobs"])
    outputs = host_tables.as_arrays(lists, beams, 4, 5)
    return reference.Case("translate", {"source_ids": source, **knobs}, outputs, np.full(3, 0.5, np.float32))


@pytest.mark.parametrize("name", ["scores", "log_probs", "alignments"])
def test_the_host_loop_is_held_to_values_and_not_to_tokens_alone(name: str) -> None:
    manifest = host_tables.manifest(3, 4, ("translate",))
    case = searched(manifest, 3)
    case.outputs[name][1, 0] += 0.02
    parity = Parity("onnx")
    check_host_loop(Translator(Tables.random(5)), manifest, reference.Reference([case], []), parity)
    (failure,) = parity.failures
    assert failure.startswith(f"onnx host loop 3x5: {name} differs by 0.02")


def test_the_host_loop_is_held_against_every_search() -> None:
    manifest = host_tables.manifest(3, 4, ("translate",))
    case = searched(manifest, 3)
    parity = Parity("onnx")
    check_host_loop(Translator(Tables.random(5)), manifest, reference.Reference([case], []), parity)
    assert (parity.failures, parity.host_loop_sentences, parity.host_loop_identical) == ([], 3, 3)
    case.outputs["ids"][1, 2, 0] ^= 1
    parity = Parity("onnx")
    check_host_loop(Translator(Tables.random(5)), manifest, reference.Reference([case], []), parity)
    assert (parity.host_loop_sentences, parity.host_loop_identical) == (3, 2)
    (failure,) = parity.failures
    assert failure.startswith("onnx host loop 3x5: tokens of row 1, margin 0.5")


class Answers:
    """A backend whose graphs always give the same outputs."""

    format = "onnx"

    def __init__(self, outputs: dict[str, np.ndarray]):
        self.outputs = outputs

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.outputs


@pytest.mark.parametrize(
    ("output", "change", "message", "precisions"),
    [
        ("scores", lambda x: x.astype(np.float64), "Expected: float32 (3, 3). Received: float64 (3, 3)", 2),
        ("ids", lambda x: x.astype(np.int64), "Expected: int32 (3, 3, 4). Received: int64 (3, 3, 4)", 2),
        ("lengths", lambda x: x[:, :2], "Expected: int32 (3, 3). Received: int32 (3, 2)", 2),
        ("scores", lambda x: x + np.float32(1e-3), "scores differs by 0.001", 1),
        ("log_probs", lambda x: x - np.float32(1e-3), "log_probs differs by 0.001", 1),
        ("alignments", lambda x: x + np.float32(1e-4), "alignments differs by 0.0001", 1),
        ("finished", np.logical_not, "finished. Expected: the same values", 1),
        ("ids", lambda x: x + (x > EOS), "tokens of row 0", 1),
    ],
)
def test_one_wrong_output_of_a_search(output: str, change: Any, message: str, precisions: int) -> None:
    """Wrong values fail float32 alone, another type or shape every precision."""
    manifest = host_tables.manifest(3, 4, ("translate",))
    case = searched(manifest, 3)
    for place, precision in enumerate(("float32", "float16")):
        parity = Parity("onnx")
        check_case(Answers(case.outputs), manifest | {"precision": precision}, case, parity)
        assert parity.failures == []
        wrong = Answers({**case.outputs, output: change(case.outputs[output])})
        check_case(wrong, manifest | {"precision": precision}, case, parity)
        assert bool(parity.failures) == (place < precisions)
        assert all("onnx translate 3x5: " in failure for failure in parity.failures)
        assert not parity.failures or message in parity.failures[0]


def lossy(folder: pathlib.Path, limit: float, wrong: int) -> Parity:
    """The comparison of an artefact that translates some of eight sentences otherwise, each of one word."""
    (folder / "words.json").write_text('{"kind": "word", "vocabulary": ["", "", "", "", "a", "b"]}')
    entry = {"file": "words.json"}
    manifest = host_tables.manifest(1, 2, precision="float16", tokenizers={"source": entry, "target": entry})
    ids = np.tile(np.array([[[4, EOS]]], np.int32), (8, 1, 1))
    outputs = {"ids": ids, "lengths": np.full((8, 1), 2, np.int32)}
    case = reference.Case("translate", {}, outputs, np.ones(8, np.float32))
    other = ids.copy()
    other[:wrong, 0, 0] = 5
    task = quality.Task("exact", limit=limit)
    cases = reference.Reference([case], ["a"] * 8, [["a"]] * 8, task)
    parity = Parity("onnx")
    check_loss(folder, manifest, cases, [{**outputs, "ids": other}], parity)
    return parity


@pytest.mark.parametrize(
    ("limit", "wrong", "failing"),
    [(25.0, 2, 0), (24.9, 2, 1), (0.0, 0, 0), (0.0, 1, 1), (quality.LOSS_LIMIT, 1, 1), (100.0, 8, 0), (99.0, 8, 1)],
)
def test_a_loss_fails_from_its_limit_on(tmp_path: pathlib.Path, limit: float, wrong: int, failing: int) -> None:
    parity = lossy(tmp_path, limit, wrong)
    assert parity.loss is not None
    assert (parity.loss.points, parity.loss.same) == (12.5 * wrong, 8 - wrong)
    assert len(parity.failures) == failing
    assert all(f"at most {limit:g} points of exact_match" in failure for failure in parity.failures)


def test_the_default_limit_is_half_a_point() -> None:
    assert quality.Task().limit == 0.5


def test_the_agreement_is_a_share_of_the_tokens_of_keras() -> None:
    """Three tokens of Keras, one lost and two too many; of nothing, all of it."""
    loss = quality.measure([[4, 5], [6]], [[4, 7, 8, 9], [6]], None, [], quality.Task())
    assert loss.token_agreement == 0.0
    loss = quality.measure([[4, 5, 6, 7, 8]], [[4, 5]], None, [], quality.Task())
    assert loss.token_agreement == pytest.approx(100 * 2 / 5)
    assert quality.measure([[]], [[]], None, [], quality.Task()).token_agreement == 100.0


def signature(dtype: str, axes: Any, out_axes: Any = (1,)) -> dict[str, Any]:
    return {"inputs": {"x": {"dtype": dtype, "axes": axes}}, "outputs": {"y": {"dtype": "int32", "axes": out_axes}}}


@pytest.mark.parametrize(
    ("received", "named", "count"),
    [
        (signature("float32", ["batch", 3], [2, "batch"]), True, 0),
        (signature("float32", ["batch", "length"], [2, "batch"]), True, 1),
        (signature("float32", [None, 3], [2, None]), False, 0),
        (signature("float32", [None, 3], [None, None]), False, 0),
        (signature("float32", [None, 3], None), False, 0),
        (signature("float32", [None, None], [2, None]), False, 1),
        (signature("float32", [7, 3], [2, None]), False, 1),
        (signature("float32", [None, 3], [5, None]), False, 1),
        (signature("float16", [None, 3, 1], [2]), False, 3),
        ({"inputs": {}, "outputs": {}}, False, 2),
    ],
)
def test_differences_of_signatures(received: dict[str, Any], named: bool, count: int) -> None:
    """Sizes that a format could not infer stand for any, but at outputs alone."""
    expected = signature("float32", ["batch", 3], [2, "batch"])
    assert len(structure.differences("here", expected, received, named)) == count


@pytest.mark.parametrize(
    ("changes", "name", "counts", "failing"),
    [
        ({}, "encode", {"LSTM": 4}, 0),
        ({}, "encode", {"LSTM": 2}, 1),
        ({"bidirectional": False}, "encode", {"LSTM": 2}, 0),
        ({}, "encode", {"LSTM": 4, "Loop": 1}, 1),
        ({}, "decode_step", {"Loop": 1}, 1),
        ({}, "decode_step", {"Scan": 1, "If": 2}, 1),
        ({}, "translate", {"Loop": 1}, 0),
        ({"cell": "layer_norm_lstm"}, "encode", {"Loop": 4}, 0),
        ({"cell": "layer_norm_lstm"}, "decode_step", {"Loop": 1}, 1),
        ({"bridge": "copy"}, "encode", {"LSTM": 4}, 0),
        ({"bridge": "copy"}, "encode", {"Loop": 4}, 2),
        ({"bridge": "copy", "source_features": 3}, "encode", {"Loop": 4}, 0),
        ({"cell": "gru"}, "encode", {"GRU": 4}, 0),
        ({"cell": "gru"}, "encode", {"LSTM": 4}, 1),
        ({}, "translate", {"com.microsoft.FusedMatMul": 1}, 1),
        ({}, "decode_step", {QUANTISED_LSTM: 1}, 1),
    ],
)
def test_operators_that_were_promised(changes: dict[str, Any], name: str, counts: dict[str, int], failing: int) -> None:
    config = {"cell": "lstm", "bridge": "dense", "encoder_layers": 2, "bidirectional": True, "source_features": None}
    assert len(operator_failures(name, counts, [config | changes])) == failing


def test_a_former_artefact_survives_a_new_one_that_gets_no_name(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "artefact"
    output.mkdir()
    (output / "manifest.json").write_text("former")
    with staging.staging(output) as (stage, _):
        shutil.rmtree(stage)
        with pytest.raises(OSError, match="No such file"):
            staging.publish(stage, output)
    assert (output / "manifest.json").read_text() == "former"
    with staging.staging(output) as (stage, _):
        (stage / "manifest.json").write_text("new")
        staging.publish(stage, output)
    assert (output / "manifest.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [output]


def test_a_conversion_that_fails_in_the_background() -> None:
    done: list[int] = []

    def convert(number: int) -> None:
        if number == 1:
            raise ConversionError("the second")
        done.append(number)

    def convert_all() -> None:
        with conversion.background() as start:
            for number in range(3):
                start(convert, number)

    with pytest.raises(ConversionError, match="the second"):
        convert_all()
    assert sorted(done) == [0, 2]


def test_the_report_counts_best_translations_where_a_loss_was_measured() -> None:
    """All hypotheses of 3 of 17 sentences are the same, the best ones of 11."""
    exact = Parity("onnx", sentences=17, identical=3, near_ties=2, largest_difference={"a": 1e-3, "b": 2e-2})
    lossy_ = Parity("onnx", sentences=17, identical=3, loss=quality.Loss(17, 11, 90.0))
    latency = Latency("onnx", "ONNX Runtime", "translate", 99_949, 1.234, 5.678, 13, 456.7)
    both = report.Report("translator", "float16", {}, [exact, lossy_], [latency, latency])
    first, second = (dict(zip(report.header(both), row, strict=True)) for row in report.table(both))
    assert (first["same tokens"], second["same tokens"]) == ("3 of 17", "11 of 17")
    assert (first["near-ties"], first["largest difference"], first["size"]) == ("2", "2.0e-02", "99.9 kB")
    assert (first["median ms"], first["p90 ms"], first["rows/s"]) == ("1.23", "5.68", "457 (batch 13)")


def test_the_message_names_each_graph_and_what_to_do() -> None:
    """Counts by the words that failures begin with, whichever way the place goes on."""
    texts = [f"saved_model translate_text {number!r}. Expected: 'a'. Received: 'b'" for number in range(197)]
    error = errors.VerificationError(["tflite host loop 3x5: tokens of row 1", *texts])
    assert error.places == {"saved_model translate_text": 197, "tflite host loop": 1}
    assert str(error).startswith(
        "Verification failed in 198 places (saved_model translate_text 197, tflite host loop 1): "
    )
    assert str(error).endswith("and 193 more. " + errors.NOT_EXPORTED)
    one = errors.VerificationError(["onnx encode 1x3: state"], errors.NOT_VERIFIED)
    assert str(one) == f"Verification failed in 1 place (onnx encode 1): onnx encode 1x3: state. {errors.NOT_VERIFIED}"


@pytest.mark.parametrize(
    ("received", "failing"), [(1.0, 0), (2.04, 0), (2.2, 1), (np.inf, 1), (-np.inf, 1), (np.nan, 1)]
)
def test_a_lower_precision_is_off_by_rounding_alone(received: float, failing: int) -> None:
    """Of a largest number of 2 an output may be off by a twentieth; never may it be infinite."""
    parity = Parity("tflite")
    compare_values("here", "call", "y", np.array([1.0, 2.0]), np.array([1.0, received]), parity, False, 0.6)
    assert len(parity.failures) == (received == np.inf or received == -np.inf or received != received)
    parity = Parity("tflite")
    compare_values("here", "call", "y", np.array([2.0, 2.0]), np.array([2.0, received]), parity, False, 0.05)
    assert len(parity.failures) == (failing or received == 1.0)


@pytest.mark.parametrize(("precision", "off", "failing"), [("float16", 0.03, 0), ("float16", 0.2, 1), ("int8", 0.2, 0)])
def test_single_graphs_are_held_to_a_share(precision: str, off: float, failing: int) -> None:
    manifest = host_tables.manifest(3, 4, ("translate",)) | {"precision": precision}
    case = reference.Case("encode", {"source_ids": np.ones((1, 3))}, {"state_h": np.array([1.0, -0.5], np.float32)})
    parity = Parity("onnx")
    check_case(Answers({"state_h": case.outputs["state_h"] - np.float32(off)}), manifest, case, parity)
    assert len(parity.failures) == failing


@pytest.mark.parametrize(("slot", "failing"), [(0, 1), (1, 0)])
def test_the_best_of_an_early_stop_is_what_the_host_loop_finds(slot: int, failing: int) -> None:
    """Those behind it may differ: the graph has left them unfinished."""
    manifest = host_tables.manifest(3, 4, ("translate",))
    manifest["search"] = manifest["search"] | {"stop": "best"}
    case = searched(manifest, 3)
    for change in (case.outputs["scores"], case.outputs["ids"]):
        change[1, slot] += 1
        parity = Parity("onnx")
        check_host_loop(Translator(Tables.random(5)), manifest, reference.Reference([case], []), parity)
        assert parity.host_loop_sentences == 3
        assert len(parity.failures) == failing


def test_two_exports_to_one_name(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "artefact"
    with staging.staging(output) as (stage, _):
        (stage / "manifest.json").write_text("first")
        with pytest.raises(UserError, match=r"artefact: another export is writing it. Wait"), staging.staging(output):
            pass
        with staging.staging(tmp_path / "other") as (_, work):
            assert work.is_dir()
        staging.publish(stage, output)
    assert (output / "manifest.json").read_text() == "first"
    with pytest.raises(UserError, match="exists already"), staging.staging(output, overwrite=False):
        pass
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("replaced", [False, True])
def test_what_a_killed_export_left(tmp_path: pathlib.Path, replaced: bool) -> None:
    """Its folder goes; a former artefact that was just losing its name gets it back, if the new one had not got it."""
    output, left = tmp_path / "artefact", tmp_path / ".artefact.export"
    for name in ("artefact", "work", "former"):
        (left / name).mkdir(parents=True)
        (left / name / "manifest.json").write_text(name)
    if replaced:
        (left / "artefact").rename(output)
    with staging.staging(output) as (stage, work):
        assert [*stage.iterdir(), *work.iterdir()] == []
    assert (output / "manifest.json").read_text() == ("artefact" if replaced else "former")
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("interrupt", [OSError("no"), KeyboardInterrupt()])
def test_a_former_artefact_that_cannot_go_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, interrupt: BaseException
) -> None:
    """It is kept, the message says where, and the next export of that name puts it back."""
    output = tmp_path / "artefact"
    output.mkdir()
    (output / "manifest.json").write_text("former")
    rename, calls = pathlib.Path.rename, []

    def broken(path: pathlib.Path, target: Any) -> Any:
        calls.append(path.name)
        if len(calls) == 2:
            raise interrupt
        if len(calls) > 2:
            raise OSError("no")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", broken)
        told = r"The former artefact lies in .*/former: move it back"
        with pytest.raises(UserError, match=told), staging.staging(output) as (stage, _):
            staging.publish(stage, output)
    assert calls == ["artefact", "artefact", "former", "former"]
    assert (tmp_path / ".artefact.export" / "former" / "manifest.json").read_text() == "former"
    with staging.staging(output):
        assert (output / "manifest.json").read_text() == "former"
    assert list(tmp_path.iterdir()) == [output]
