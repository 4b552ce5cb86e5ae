"""The operators of TFLite files, graph by graph: what the architecture asks for, and nothing beside it in a loop."""

import collections
import pathlib
from typing import Any

import pytest

from keras_attention.export import export
from tests.support.export_models import cheap, tiny_model
from tests.support.parts import fast

__all__ = ["cheap"]

CELLS = {"lstm": {"LOGISTIC": 3, "TANH": 2, "states": 2}, "gru": {"LOGISTIC": 2, "TANH": 1, "states": 1}}
"""Gates of one step, its hyperbolic tangents, and its states: of Hochreiter and Schmidhuber, and of Cho et al."""


def operators_by_graph(path: pathlib.Path) -> dict[str, collections.Counter[str]]:
    """How often each operator stands in each graph of a TFLite file: signatures, conditions and bodies of loops."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return {
        graph.name.decode(): collections.Counter(codes[operator.opcodeIndex] for operator in graph.operators)
        for graph in model.subgraphs
    }


def products(graph: collections.Counter[str]) -> dict[str, int]:
    return {kind: graph[kind] for kind in ("FULLY_CONNECTED", "BATCH_MATMUL", "WHILE") if graph[kind]}


@pytest.mark.parametrize("cell", fast(CELLS))
@pytest.mark.parametrize(("layers", "bidirectional"), fast([(1, True), (2, True), (1, False)], (2, True)))
def test_each_graph_computes_what_its_part_of_the_model_asks_for(
    cell: str, layers: int, bidirectional: bool, tmp_path: pathlib.Path, cheap: None
) -> None:
    """General score: keys are projected once, in `encode`; a step has two products of the cell, two for attention, the
    attentional layer and the output; an encoder's loop has its cell alone. No loop holds a transposition or a loop."""
    sizes: dict[str, Any] = {"cell": cell, "encoder_layers": layers, "bidirectional": bidirectional}
    model = tiny_model(**sizes, decoder_layers=layers, attention="general", bridge="dense", dropout=0.0)
    export(model, tmp_path / "artefact", ["tflite"], beam_size=3, max_length=13)
    graphs = operators_by_graph(tmp_path / "artefact" / "model.tflite")
    gates = {kind: CELLS[cell][kind] for kind in ("LOGISTIC", "TANH")}
    loops = layers * (2 if bidirectional else 1)
    bridge = layers * CELLS[cell]["states"]

    assert products(graphs["encode"]) == {"FULLY_CONNECTED": 1 + bridge, "WHILE": loops}
    assert products(graphs["translate"]) == {"FULLY_CONNECTED": 1 + bridge, "WHILE": loops + 1}
    assert products(graphs["decode_step"]) == {"FULLY_CONNECTED": 2 * layers + 2, "BATCH_MATMUL": 2}

    bodies = {name: graph for name, graph in graphs.items() if name.endswith("body")}
    (search,) = [graph for graph in bodies.values() if graph["TOPK_V2"]]
    recurrent = [graph for graph in bodies.values() if graph is not search]
    assert len(recurrent) == 2 * loops  # those of `encode`, and their like in `translate`
    for graph in recurrent:
        assert products(graph) == {"FULLY_CONNECTED": 2}
        assert {kind: graph[kind] for kind in gates} == gates
    for graph in (graphs["decode_step"], search):
        assert products(graph) == products(graphs["decode_step"])
        # The attentional vector is a hyperbolic tangent, too (Luong et al. 2015, equation 5).
        assert graph["LOGISTIC"] == layers * gates["LOGISTIC"]
        assert graph["TANH"] == layers * gates["TANH"] + 1
        assert graph["SOFTMAX"] == graph["LOG_SOFTMAX"] == 1
    for graph in bodies.values():
        assert not {"TRANSPOSE", "WHILE", "IF", "CUSTOM"} & set(graph)
    assert not any(kind.startswith(("CUSTOM", "UNIDIRECTIONAL")) for graph in graphs.values() for kind in graph)
