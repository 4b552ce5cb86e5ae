"""Tokenizers in the graph give the ids and the text of the Python ones; the runtime's give them too."""

import pathlib
from typing import Any

import hypothesis
import pytest
import tensorflow as tf
from hypothesis import strategies

from keras_attention.export import runtime
from keras_attention.export.formats import saved_model
from keras_attention.export.graphs import tokenizers as text_graph
from keras_attention.export.graphs.graph import Graph
from keras_attention.export.graphs.port import Port
from keras_attention.export.manifest import SPECIAL_IDS
from keras_attention.text.tokenizers import Tokenizer, train_tokenizer
from tests.support.export_models import LINES, UNUSUAL

KINDS = ("subword", "char", "word")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(request.param, LINES * 4, 60 if request.param == "subword" else None)


def python_rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [[*tokenizer.encode(text), SPECIAL_IDS["eos"]] for text in texts]


@pytest.fixture
def twin(tokenizer: Tokenizer) -> text_graph.GraphTokenizer:
    """Made anew for each test: seeding TensorFlow, as each test does, drops a tokenizer that is used eagerly."""
    return text_graph.graph_tokenizer(tokenizer)


def graph_rows(twin: text_graph.GraphTokenizer, texts: list[str]) -> list[list[int]]:
    ids = text_graph.source_ids(twin, tf.constant(texts)).numpy()
    return [[int(i) for i in row if i] for row in ids]


def test_ids_in_the_graph_are_the_python_ones(tokenizer: Tokenizer, twin: text_graph.GraphTokenizer) -> None:
    texts = LINES + UNUSUAL
    assert graph_rows(twin, texts) == python_rows(tokenizer, texts)


@hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(texts=strategies.lists(strategies.text(max_size=12), min_size=1, max_size=3))
def test_ids_of_any_text(tokenizer: Tokenizer, twin: text_graph.GraphTokenizer, texts: list[str]) -> None:
    assert graph_rows(twin, texts) == python_rows(tokenizer, texts)


def test_text_in_the_graph_is_the_python_one(tokenizer: Tokenizer, twin: text_graph.GraphTokenizer) -> None:
    rows = [*python_rows(tokenizer, LINES), [1, 3, 4, 0, 2], [2], [4, 5, 6, 7]]
    longest = max(map(len, rows))
    ids = tf.constant([[row + [0] * (longest - len(row))] for row in rows], tf.int32)
    text = text_graph.target_text(twin, ids).numpy()
    assert [cell.decode() for cell in text[:, 0]] == [tokenizer.decode(row) for row in rows]


def test_a_text_longer_than_a_location_score_can_address() -> None:
    tokenizer = train_tokenizer("char", LINES)
    twins = text_graph.graph_tokenizer(tokenizer), text_graph.graph_tokenizer(tokenizer)
    ids = Port("ids", "int32", ("batch", 1, 3))

    def translate(source: Any, *knobs: Any) -> dict[str, Any]:
        return {"ids": source[:, None, :3], "scores": tf.zeros((1, 1))}

    graph = text_graph.text_graph(Graph("translate", translate, (), (ids,)), *twins, (), longest=4)
    assert graph.function(tf.constant(["The"]))["text"].numpy().tolist() == [[b"The"]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the 4 tokens"):
        graph.function(tf.constant(["The c"]))


def test_tokenizers_of_the_runtime(tokenizer: Tokenizer, tmp_path: pathlib.Path) -> None:
    device = runtime.Tokenizer(tmp_path / tokenizer.save(tmp_path, "source")[0], SPECIAL_IDS)
    for text in LINES + UNUSUAL:
        ids = tokenizer.encode(text)
        assert device.encode(text) == ids
        assert device.decode([1, *ids, 2, 0]) == tokenizer.decode([1, *ids, 2, 0])
        assert device.tokens([*ids, 2]) == tokenizer.tokens([*ids, 2])


def both_ways(twins: Any) -> Graph:
    """Ids of both tokenizers: text that one of them read and wrote would be the same in any vocabulary."""

    def both(text: Any) -> dict[str, Any]:
        return {"source": twins[0].encode(text).to_tensor(), "target": twins[1].encode(text).to_tensor()}

    return Graph("both", both, (Port("text", "string", ("batch",)),), ())


def test_each_side_and_each_artefact_keeps_its_own_vocabulary(tmp_path: pathlib.Path) -> None:
    """Two SavedModels in one process, the vocabularies of the second the other way round."""
    small, large = (train_tokenizer("subword", LINES * 4, size) for size in (45, 70))
    loaded = []
    for number, (source, target) in enumerate([(small, large), (large, small)]):
        twins = text_graph.graph_tokenizer(source), text_graph.graph_tokenizer(target)
        resources = [resource for twin in twins for resource in twin.resources]
        saved_model.write_saved_model(tmp_path / str(number), [both_ways(twins)], resources)
        loaded.append(tf.saved_model.load(str(tmp_path / str(number))))
    for model, (source, target) in zip(loaded, [(small, large), (large, small)], strict=True):
        found = model.signatures["both"](text=tf.constant(LINES))
        assert [[int(i) for i in row if i] for row in found["source"].numpy()] == [source.encode(one) for one in LINES]
        assert [[int(i) for i in row if i] for row in found["target"].numpy()] == [target.encode(one) for one in LINES]
    assert small.encode(LINES[0]) != large.encode(LINES[0])
