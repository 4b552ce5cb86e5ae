"""What no iteration changes leaves an ONNX loop, and nothing else changes."""

import collections
import copy
import json
import pathlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_attention.export import export, runtime
from keras_attention.export.formats.to_onnx import loops as onnx_loops
from tests.support.export_models import cheap, tiny_model
from tests.support.parts import fast

__all__ = ["cheap"]

WEIGHTS = np.arange(4, dtype=np.float32).reshape(2, 2) / 4


def looped() -> onnx.ModelProto:
    """`x = tanh(x W^T + b)` three times, as the converter writes it: W and b carried along, all of them returned."""
    float_, shape = TensorProto.FLOAT, [2, 2]
    ports = [("x", shape), ("w", shape), ("b", [2])]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["going_on"]),
            helper.make_node("Transpose", ["w"], ["w_t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "w_t"], ["product"]),
            helper.make_node("Mul", ["b", "two"], ["b_two"]),
            helper.make_node("Add", ["product", "b_two"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["x_new"]),
            helper.make_node("Identity", ["w"], ["w_same"]),
            helper.make_node("Identity", ["w_same"], ["w_new"]),
            helper.make_node("Identity", ["b"], ["b_new"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(name, float_, sizes) for name, sizes in ports),
        ],
        [
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(f"{name}_new", float_, sizes) for name, sizes in ports),
        ],
        [numpy_helper.from_array(np.float32(2.0), "two")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["most", "", "start", "weights", "bias"], ["result", "w_end", "b_end"], body=body),
            helper.make_node("ReduceSum", ["w_end"], ["total"], keepdims=0),
        ],
        "graph",
        [helper.make_tensor_value_info("start", float_, shape), helper.make_tensor_value_info("bias", float_, [2])],
        [
            helper.make_tensor_value_info("result", float_, shape),
            helper.make_tensor_value_info("total", float_, []),
            helper.make_tensor_value_info("b_end", float_, [2]),
        ],
        [numpy_helper.from_array(np.int64(3), "most"), numpy_helper.from_array(WEIGHTS, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[Any]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def test_a_loop_by_hand() -> None:
    inputs = {"start": np.eye(2, dtype=np.float32), "bias": np.array([0.5, -1.0], np.float32)}
    expected = inputs["start"]
    for _ in range(3):
        expected = np.tanh(expected @ WEIGHTS.T + 2 * inputs["bias"])
    model = looped()
    before = run(copy.deepcopy(model), inputs)
    onnx_loops.hoist(model.graph)
    after = run(model, inputs)
    np.testing.assert_allclose(after[0], expected, atol=1e-6)  # float32 sums of few products in three steps
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    assert list(loop.input) == ["most", "", "start"]
    body = loop.attribute[0].g
    assert [node.op_type for node in body.node] == ["Identity", "MatMul", "Add", "Tanh"]
    assert [port.name for port in body.input] == ["iteration", "going", "x"]
    assert "w_same" not in {name for node in model.graph.node for name in node.output}


def test_left_out_names_and_shared_constants() -> None:
    """Outputs that nobody reads, inputs that are left out, a constant that the body returns, one name in two bodies."""
    clip = helper.make_graph([helper.make_node("Clip", ["x", "", "high"], ["y"])], "clip", [], [])
    onnx_loops.replace(clip, {"": "weight", "x": "z"})
    assert list(clip.node[0].input) == ["z", "", "high"]
    float_ = TensorProto.FLOAT

    def body(name: str) -> onnx.GraphProto:
        return helper.make_graph(
            [
                helper.make_node("Mul", ["x", "k"], ["x_scaled"]),
                helper.make_node("Add", ["x_scaled", "w"], ["x_new"]),
                helper.make_node("Identity", ["w"], ["w_new"]),
            ],
            name,
            [
                helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
                helper.make_tensor_value_info("going", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", float_, [2]),
                helper.make_tensor_value_info("w", float_, [2]),
            ],
            [
                helper.make_tensor_value_info("true", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x_new", float_, [2]),
                helper.make_tensor_value_info("w_new", float_, [2]),
                helper.make_tensor_value_info("x_scaled", float_, [2]),
            ],
            [numpy_helper.from_array(np.array(True), "true"), numpy_helper.from_array(np.float32(2.0), "k")],
        )

    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["most", "", "start", "weight"], ["y", "w_unused", "history"], body=body("one")),
            helper.make_node("Loop", ["most", "", "y", "weight"], ["z", "w_end", "unused"], body=body("two")),
            helper.make_node("Clip", ["z", "", "highest"], ["clipped"]),
        ],
        "graph",
        [helper.make_tensor_value_info("start", float_, [2])],
        [
            helper.make_tensor_value_info("clipped", float_, [2]),
            helper.make_tensor_value_info("history", float_, [3, 2]),
            helper.make_tensor_value_info("w_end", float_, [2]),
        ],
        [
            numpy_helper.from_array(np.int64(3), "most"),
            numpy_helper.from_array(np.array([0.5, 1.0], np.float32), "weight"),
            numpy_helper.from_array(np.float32(50.0), "highest"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inputs = {"start": np.array([0.25, -1.0], np.float32)}
    before = run(copy.deepcopy(model), inputs)
    onnx_loops.hoist(model.graph)
    for one, other in zip(before, run(model, inputs), strict=True):
        np.testing.assert_array_equal(one, other)
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    assert [list(loop.input) for loop in loops] == [["most", "", "start"], ["most", "", "y"]]
    (last,) = [node for node in model.graph.node if node.op_type == "Clip"]
    assert list(last.input) == ["z", "", "highest"]


def test_random_numbers_are_drawn_in_each_iteration() -> None:
    float_ = TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Bernoulli", ["half"], ["draw"], seed=1.0),
            helper.make_node("Add", ["x", "draw"], ["x_new"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", float_, [64]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_new", float_, [64]),
        ],
        [numpy_helper.from_array(np.full(64, 0.5, np.float32), "half")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["most", "", "start"], ["y"], body=body)],
        "graph",
        [helper.make_tensor_value_info("start", float_, [64])],
        [helper.make_tensor_value_info("y", float_, [64])],
        [numpy_helper.from_array(np.int64(4), "most")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx_loops.hoist(model.graph)
    (sums,) = run(model, {"start": np.zeros(64, np.float32)})
    assert len(set(sums.tolist())) > 2  # one sample added four times would be 0 or 4


@pytest.mark.parametrize(("flag", "growth"), [(True, 3.0), (False, 2.0)])
def test_a_branch_that_reads_a_state_stays_in_the_loop(flag: bool, growth: float) -> None:
    """`x += 2 x if flag else x`, three times: what the branches read is no input of their node."""
    float_ = TensorProto.FLOAT

    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, float_, [2])])

    chosen = helper.make_node(
        "If",
        ["flag"],
        ["more"],
        then_branch=branch("twice", helper.make_node("Mul", ["x", "two"], ["twice"])),
        else_branch=branch("once", helper.make_node("Identity", ["x"], ["once"])),
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            chosen,
            helper.make_node("Add", ["x", "more"], ["x_new"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", float_, [2]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_new", float_, [2]),
        ],
        [numpy_helper.from_array(np.float32(2.0), "two")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["most", "", "start"], ["y"], body=body)],
        "graph",
        [
            helper.make_tensor_value_info("start", float_, [2]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", float_, [2])],
        [numpy_helper.from_array(np.int64(3), "most")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx_loops.hoist(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Loop"]
    start = np.array([0.25, -1.0], np.float32)
    (found,) = run(model, {"start": start, "flag": np.array(flag)})
    np.testing.assert_array_equal(found, growth**3 * start)


@pytest.mark.parametrize("attention", fast(["general", "additive"], "general"))
def test_the_search_carries_no_weights(attention: str, tmp_path: pathlib.Path, cheap: None) -> None:
    export(tiny_model(attention=attention), tmp_path / "artefact", "onnx", beam_size=3, max_length=13)
    graph = onnx.load(str(tmp_path / "artefact" / "onnx" / "translate.onnx")).graph
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    body = loop.attribute[0].g
    constants = {constant.name for constant in graph.initializer}
    carried = dict(zip(loop.input[2:], body.input[2:], strict=True))
    matrices = {
        name for name, port in carried.items() if name in constants and len(port.type.tensor_type.shape.dim) > 1
    }
    assert matrices == set()
    same = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    for given, returned in zip(body.input[2:], body.output[1:], strict=False):
        assert same.get(returned.name) != given.name
    varying = {port.name for port in body.input}
    for node in body.node:
        assert onnx_loops.read_by(_alone(node)) & varying, node.op_type  # every node depends on an iteration
        varying |= set(node.output)


def _alone(node: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph([node], "alone", [], [])


@pytest.mark.slow
@pytest.mark.parametrize("shortest", [1, 23], ids=["ends at once", "held back"])
def test_the_search_ends_with_its_last_hypothesis(shortest: int, tmp_path: pathlib.Path, cheap: None) -> None:
    """Steps counted by ONNX Runtime's own profile: as many as the longest hypothesis, not as many as there is room."""
    model = tiny_model(spread=0.1)
    projection = model.get_layer("output")
    bias = np.zeros(projection.bias.shape, np.float32)
    bias[2] = 30.0  # EOS: every hypothesis but those that are forbidden to ends at its first word
    projection.bias.assign(bias)
    export(model, tmp_path / "artefact", "onnx", beam_size=2, max_length=41, min_length=41)
    manifest = runtime.read_manifest(tmp_path / "artefact")
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(tmp_path / "artefact" / "onnx" / "translate.onnx"), options)
    knobs = runtime.knob_values(manifest, 1, {"min_length": shortest})
    outputs = session.run(["lengths"], {"source_ids": np.asarray([[4, 5, 6, 2]], np.int32), **knobs})
    events = json.loads(pathlib.Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = collections.Counter(event["name"] for event in events if event["name"].endswith("_kernel_time"))
    assert outputs[0][0, 0] == shortest
    assert max(runs.values()) == outputs[0].max() < 41
