"""Files that read sentences give the text that the files for ids give; in TFLite without Flex."""

import importlib.util
import io
import json
import pathlib
import types
from typing import Any

import numpy as np
import onnx
import pytest
import sentencepiece

from keras_attention import UserError
from keras_attention.export import errors, export, runtime, verify
from keras_attention.export.formats.to_onnx import text as onnx_text
from keras_attention.export.formats.to_tflite import convert as litert
from keras_attention.export.formats.to_tflite import text as litert_text
from keras_attention.export.parity import text as text_verification
from keras_attention.text.tokenizers import SubwordTokenizer, train_tokenizer
from tests.export.test_export_artefact import dense_model
from tests.support.export_models import LINES, UNUSUAL, cheap, tiny_model

__all__ = ["cheap"]

TEXTS = [*LINES, *(text for text in UNUSUAL if text.strip())]
TOKENIZERS = train_tokenizer("subword", LINES * 4, 60), train_tokenizer("subword", LINES * 4, 70)
SIZES = {
    "source_vocabulary": TOKENIZERS[0].vocabulary_size,
    "target_vocabulary": TOKENIZERS[1].vocabulary_size,
}
OPTIONS: dict[str, Any] = {"samples": TEXTS, "tokenizers": TOKENIZERS, "beam_size": 3, "max_length": 13, "text": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("text") / "artefact"
    with pytest.MonkeyPatch.context() as patch:
        cheap.__wrapped__(patch)
        export(tiny_model(seed=7, **SIZES), path, ["tflite", "onnx"], **OPTIONS)
    return path


def reader(folder: pathlib.Path, backend: str) -> Any:
    if backend == "litert":
        return litert_text.TextInterpreter(folder / litert_text.FILE)
    return onnx_text.TextSession(folder / onnx_text.FILE)


@pytest.mark.parametrize("backend", ["litert", "onnx"])
def test_sentences_in_and_text_out(folder: pathlib.Path, backend: str) -> None:
    """Punctuation, accents, emoji, characters never seen, runs of blanks, one by one and as a batch."""
    found = reader(folder, backend).run(TEXTS)
    ids = runtime.Artefact(folder, backend)
    expected = list(ids.translate(TEXTS, n_best=3, batch_size=len(TEXTS)))
    assert found == [[hypothesis.text for hypothesis in hypotheses] for hypotheses in expected]
    assert len({row[0] for row in found}) > 3
    assert [reader(folder, backend).run([text])[0] for text in TEXTS[:3]] == found[:3]


@pytest.mark.parametrize("backend", ["litert", "onnx"])
def test_an_empty_text_is_one_end_of_sentence(folder: pathlib.Path, backend: str) -> None:
    expected = runtime.Artefact(folder, backend).search([[2]])
    texts = [TOKENIZERS[1].decode(ids.tolist()) for ids in expected["ids"][0]]
    assert reader(folder, backend).run(["", " "]) == [texts, texts]


def test_what_the_file_needs(folder: pathlib.Path) -> None:
    counts = litert.operators((folder / litert_text.FILE).read_bytes())
    assert set(counts["custom"]) == litert_text.OPERATORS
    assert litert.operators((folder / "model.tflite").read_bytes())["custom"] == {}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["formats"]["tflite"]["text_file"] == litert_text.FILE
    assert litert_text.FILE in manifest["files"]
    graph = onnx.load(str(folder / onnx_text.FILE)).graph
    assert {node.op_type for node in graph.node if node.domain == onnx_text.DOMAIN} == {
        *("SentencepieceTokenizer", "StringJoin", "StringRegexReplace")
    }
    assert ([port.name for port in graph.input], len(graph.output)) == (["text"], 2)
    for parity in verify(folder):
        assert parity.texts == parity.texts_identical >= len(TEXTS)


def test_pieces_are_joined_as_sentencepiece_joins_them() -> None:
    """Spaces that a text begins with are none of it, however many; those inside and behind are."""
    tokenizer = TOKENIZERS[1]
    space = tokenizer.tokens(range(tokenizer.vocabulary_size)).index("\u2581")
    word = tokenizer.encode("cat")
    for ids in ([space, *word], [space, space, *word], [*word, space, space, *word, space]):
        pieces = np.array([tokenizer.tokens([one])[0].encode() for one in ids])
        assert litert_text.join(pieces) == tokenizer.decode(ids)


@pytest.mark.slow
def test_other_text_fails_the_export(tmp_path: pathlib.Path, cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_text, "join", lambda pieces: "other")
    with pytest.raises(errors.VerificationError) as caught:
        export(tiny_model(seed=7, **SIZES), tmp_path / "artefact", "tflite", **OPTIONS)
    assert any("Received: ['other', 'other', 'other']" in failure for failure in caught.value.failures)
    assert not (tmp_path / "artefact").exists()


def bpe_tokenizer(**options: Any) -> SubwordTokenizer:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 4),
        model_writer=written,
        vocab_size=options.pop("vocab_size", 60),
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
        **options,
    )
    return SubwordTokenizer(written.getvalue())


@pytest.mark.parametrize(
    ("source", "received"),
    [
        (bpe_tokenizer(model_type="bpe"), "Received: BPE"),
        (bpe_tokenizer(model_type="unigram", byte_fallback=True, vocab_size=400), "Received: byte fallback"),
        (train_tokenizer("char", LINES), "Received: char on the source side"),
    ],
)
def test_tokenizers_that_an_operator_cannot_reproduce(tmp_path: pathlib.Path, source: Any, received: str) -> None:
    """Before anything is converted: the operator would cut some lines otherwise, and say nothing."""
    with pytest.raises(UserError, match=received):
        export(tiny_model(), tmp_path / "artefact", "tflite", **OPTIONS | {"tokenizers": (source, TOKENIZERS[1])})


@pytest.mark.slow
def test_bpe_in_onnx(tmp_path: pathlib.Path, cheap: None) -> None:
    """sentencepiece itself reads there: any of its models will do."""
    tokenizers = bpe_tokenizer(model_type="bpe"), TOKENIZERS[1]
    model = tiny_model(source_vocabulary=60, target_vocabulary=TOKENIZERS[1].vocabulary_size)
    report = export(model, tmp_path / "artefact", "onnx", **OPTIONS | {"tokenizers": tokenizers})
    assert report.parities[0].texts_identical == len(TEXTS)
    bytes_ = bpe_tokenizer(model_type="unigram", byte_fallback=True, vocab_size=400)
    with pytest.raises(UserError, match="a target tokenizer without byte fallback"):
        export(model, tmp_path / "other", "onnx", **OPTIONS | {"tokenizers": (tokenizers[0], bytes_)})


def test_mistakes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"an option for TFLite and ONNX.* Received: saved_model"):
        export(tiny_model(**SIZES), tmp_path / "artefact", "saved_model", **OPTIONS)
    with pytest.raises(UserError, match="Received: none on the source side"):
        export(tiny_model(**SIZES), tmp_path / "artefact", "tflite", text=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "extensions" in name else True)
    with pytest.raises(UserError, match=r"pip install 'keras-luong\[text\]'"):
        export(tiny_model(**SIZES), tmp_path / "artefact", "onnx", **OPTIONS)
    with pytest.raises(UserError, match="Only a translator reads text"):
        export(dense_model(), tmp_path / "artefact", "tflite", text=True, tokenizers=TOKENIZERS)
    copying = tiny_model(source_vocabulary=60, target_vocabulary=60, copy_words=3)
    with pytest.raises(UserError, match="no text inside for it"):
        export(copying, tmp_path / "artefact", "tflite", **OPTIONS)


def test_a_sentence_with_two_likeliest_segmentations(tmp_path: pathlib.Path) -> None:
    """Three dots, of which two at most are one piece: ". .." and ".. ." are made of the same pieces."""
    train_tokenizer("subword", ["x.. y.. z. w.", "y.. x. z.. w..", "a. b.. c.. d"] * 20, 16).save(tmp_path, "dots")
    tokenizer = runtime.Tokenizer(tmp_path / "dots.tok.json", {"pad": 0, "bos": 1, "eos": 2, "unk": 3})
    assert text_verification.has_two_segmentations(tokenizer, "x...")
    assert len(tokenizer.processor.nbest_encode("x..", nbest_size=2)) == 2
    assert not text_verification.has_two_segmentations(tokenizer, "x..")


@pytest.mark.parametrize(("sentence", "failures"), [("x...", 0), ("x..", 1)])
def test_the_saved_model_may_take_either_of_two_likeliest_segmentations(
    tmp_path: pathlib.Path, sentence: str, failures: int
) -> None:
    """Its text differs from Keras' in both rows; a tie is a reason, and no tie is none."""
    train_tokenizer("subword", ["x.. y.. z. w.", "y.. x. z.. w..", "a. b.. c.. d"] * 20, 16).save(tmp_path, "dots")
    special = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}
    manifest = {
        "tokenizers": {side: {"file": "dots.tok.json"} for side in ("source", "target")},
        "special_ids": special,
    }
    ids = runtime.Tokenizer(tmp_path / "dots.tok.json", special).encode("x.. y")
    outputs = {"ids": np.array([[ids]]), "lengths": np.array([[len(ids)]])}
    case = types.SimpleNamespace(inputs={"source_ids": [ids]}, outputs=outputs, margins=np.array([1.0]))
    cases: Any = types.SimpleNamespace(of=lambda graph: [case], sentences=[sentence])
    backend = types.SimpleNamespace(run=lambda graph, inputs: {"text": np.array([[b"another"]], object)})
    parity: Any = types.SimpleNamespace(format="saved_model", texts=0, texts_identical=0, failures=[])
    text_verification.check_text(backend, tmp_path, manifest, cases, parity)
    assert len(parity.failures) == failures
