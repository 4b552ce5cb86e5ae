"""A training is known by its text and vocabularies; what a killed one left half written goes."""

import dataclasses
import pathlib
import types
from typing import Any

import pytest

from keras_attention import UserError
from keras_attention.files import remove_partial_files, write_bytes
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import SubwordTokenizer, train_tokenizer
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import Pairs
from keras_attention.training.loop.initial_weights import copy_weights
from keras_attention.training.loop.run_setup import fingerprint, prepare_run, vocabulary_fingerprint
from keras_attention.training.recipes import Splits
from tests.support.toy_run import edit_config

LINES = ["the cat sat on the mat", "a cat and a mat", "the mat and the cat", "on and on and on"] * 5


@pytest.mark.parametrize("kind", ["subword", "char", "word"])
def test_every_file_of_a_vocabulary_is_part_of_its_fingerprint(tmp_path, kind) -> None:
    files = train_tokenizer(kind, LINES, 40).save(tmp_path, "joint")
    before = vocabulary_fingerprint(tmp_path, ["joint"])
    assert vocabulary_fingerprint(tmp_path, ["joint"]) == before
    for name in files:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1])
        assert vocabulary_fingerprint(tmp_path, ["joint"]) != before
        (tmp_path / name).write_bytes(content)
    assert vocabulary_fingerprint(tmp_path, ["joint"]) == before


def test_subwords_of_as_many_pieces_from_other_text_are_told_apart(tmp_path) -> None:
    """Their JSON files are the same."""
    folders = [tmp_path / "one", tmp_path / "other"]
    models = [SubwordTokenizer.train(lines, 19) for lines in (LINES, [line[::-1] for line in LINES])]
    for folder, model in zip(folders, models, strict=True):
        folder.mkdir()
        model.save(folder, "joint")
    texts = [(folder / "joint.tok.json").read_bytes() for folder in folders]
    assert texts[0] == texts[1]
    assert len({vocabulary_fingerprint(folder, ["joint"]) for folder in folders}) == 2


def test_every_side_of_every_text_is_part_of_its_fingerprint() -> None:
    def pairs(source: str = "a", target: str = "b") -> Pairs:
        return Pairs(["x", source], [["y"], [target, "z"]], ["text:1", "text:2"])

    plain = Splits(pairs(), pairs(), synthetic=pairs())
    changed = [
        dataclasses.replace(plain, **{part: pairs(**side)})
        for part in ("train", "validation", "synthetic")
        for side in ({"source": "c"}, {"target": "c"})
    ]
    assert len({fingerprint(splits) for splits in (plain, *changed)}) == 7
    assert fingerprint(Splits(pairs(), pairs(), synthetic=pairs())) == fingerprint(plain)
    moved = dataclasses.replace(pairs(), origins=["other:1", "other:2"])
    assert fingerprint(dataclasses.replace(plain, train=moved)) == fingerprint(plain)


def test_half_written_files_go_from_all_folders_and_nothing_else(tmp_path: pathlib.Path) -> None:
    kept = ["model.keras", "checkpoints/last.npz", "partial.txt"]
    for name in [*kept, ".partial-7-model.keras", "checkpoints/.partial-7-last.npz", "plots/a/.partial-7-x.png"]:
        write_bytes(tmp_path / name, b"content")
    remove_partial_files(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(kept)


ALONE = {"cell": "self_attention", "attention": "scaled_dot", "encoder_units": 6, "decoder_units": 6}
WORDS = Splits(*[Pairs(["a b", "b"], [["b a"], ["b"]], ["text:1", "text:2"])] * 2)


def prepared(output: pathlib.Path, parent: RunDirectory | None = None, **fields: Any) -> RunDirectory:
    settings = TrainConfig(source_tokenizer="word", target_tokenizer="word")
    return prepare_run(output, None, settings, {**ALONE, **fields}, WORDS, False, parent)


def begun_before_the_factor(output: pathlib.Path) -> RunDirectory:
    run = prepared(output)
    write_bytes(output / "checkpoints" / "last.npz", b"")
    assert run.metadata["model"].pop("scale_embeddings") is True
    edit_config(output, run.metadata)
    return RunDirectory.open(output)


def test_a_training_from_before_the_factor_goes_on_without_it(tmp_path: pathlib.Path) -> None:
    former = begun_before_the_factor(tmp_path / "former")
    assert former.config.scale_embeddings is False
    assert prepared(former.path).config.scale_embeddings is False, "the same command resumes it"
    assert prepared(former.path, scale_embeddings=False).config.scale_embeddings is False
    with pytest.raises(UserError, match=r"other choices \(scale_embeddings: False there, True now\)"):
        prepared(former.path, scale_embeddings=True)
    with pytest.raises(UserError, match=r"other choices \(attention: "):
        prepared(former.path, cell="lstm", attention="general")
    begun = prepared(tmp_path / "begun", former)
    assert begun.config.scale_embeddings is False, "its weights mean words without it"
    write_bytes(begun.path / "checkpoints" / "last.npz", b"")
    assert prepared(begun.path, former).config.scale_embeddings is False
    assert prepared(tmp_path / "anew").config.scale_embeddings is True


@pytest.mark.parametrize("fields", [{"scale_embeddings": True}, {"attention": "dot"}, {"attention_heads": 3}], ids=str)
def test_no_training_starts_from_weights_that_mean_something_else(tmp_path: pathlib.Path, fields: Any) -> None:
    """All of these have the shapes of the former weights."""
    former = begun_before_the_factor(tmp_path / "former")
    begun = prepared(tmp_path / "begun", former, **fields)
    model: Any = types.SimpleNamespace(trainable_variables=[])
    former.load_model = lambda: model  # type: ignore[method-assign]
    (name,) = fields
    with pytest.raises(UserError, match=rf"another form.* Expected the fields \{{'{name}': .* Received: \{{'{name}': "):
        copy_weights(model, begun, former)
    copy_weights(model, prepared(tmp_path / "alike", former, dropout=0.5, attention_dropout=0.5), former)
