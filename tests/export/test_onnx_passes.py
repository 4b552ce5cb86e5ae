"""tf2onnx's passes in one walk: the operators and outputs of tf2onnx's own route."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx

from keras_attention.export.formats.to_onnx import convert as to_onnx
from keras_attention.export.formats.to_onnx import passes as onnx_passes


def looped(x: Any, y: Any) -> dict[str, Any]:
    """Two outputs that share nodes, a loop that reads from outside, an input that nothing reads."""
    del y
    turned = tf.transpose(tf.transpose(x))
    total = tf.while_loop(lambda t, _: t < 3, lambda t, s: (t + 1, s + turned * tf.cast(t, tf.float32)), [0, x])[1]
    return {"total": total, "mean": tf.reduce_mean(turned, axis=1)}


def folded(x: Any, y: Any) -> dict[str, Any]:
    """Constants to fold, duplicates to merge, an identity to remove, a product."""
    twice = tf.reshape(x, [-1, 5]) * (tf.constant(2.0) + 1.0) + tf.reshape(x, [-1, 5])
    return {
        "product": tf.matmul(tf.identity(twice), tf.constant(np.ones((5, 2), np.float32))),
        "more": y + 1.0,
    }


def branched(x: Any, y: Any) -> dict[str, Any]:
    """Branches that read a product made outside of them, which nothing else reads."""
    product = tf.matmul(x, tf.constant(np.full((5, 5), 0.5, np.float32)))
    chosen = tf.cond(tf.reduce_sum(y) > 0, lambda: product * 2.0, lambda: product - 1.0)
    return {"chosen": chosen, "more": y + 1.0}


@pytest.mark.parametrize("function", [looped, folded, branched])
def test_the_same_operators_and_outputs_as_tf2onnx(function: Callable[..., Any]) -> None:
    specs = [tf.TensorSpec([None, 5], name="x"), tf.TensorSpec([None], name="y")]
    traced = tf.function(function, autograph=False)
    stock, _ = tf2onnx.convert.from_function(traced, input_signature=specs, opset=to_onnx.OPSET)
    ours = onnx_passes.from_function(traced.get_concrete_function(*specs), to_onnx.OPSET)
    assert to_onnx.operators(ours.graph) == to_onnx.operators(stock.graph)
    assert [info.name for info in ours.graph.input] == [info.name for info in stock.graph.input]
    feeds = {"x": np.arange(15, dtype=np.float32).reshape(3, 5), "y": np.arange(7, dtype=np.float32)}
    expected = {
        name: value.numpy() for name, value in function(**{k: tf.constant(v) for k, v in feeds.items()}).items()
    }
    session = onnxruntime.InferenceSession(ours.SerializeToString())
    found = session.run(list(expected), {info.name: feeds[info.name] for info in session.get_inputs()})
    for name, value in zip(expected, found, strict=True):
        # Float32 sums of five products, in an order of the kernel's own.
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)


def test_passes_without_an_operator_to_rewrite_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[set[str]] = []
    optimise = tf2onnx.optimizer.optimize_graph
    monkeypatch.setattr(
        tf2onnx.optimizer,
        "optimize_graph",
        lambda *args, **kinds: ran.append(set(kinds["optimizers"])) or optimise(*args, **kinds),
    )
    specs = [tf.TensorSpec([None, 5], name="x"), tf.TensorSpec([None], name="y")]
    for function in (looped, folded):
        onnx_passes.from_function(tf.function(function, autograph=False).get_concrete_function(*specs), to_onnx.OPSET)
    every = set(tf2onnx.optimizer._get_optimizers())
    assert set(onnx_passes.OPERATORS_OF_PASSES) < every  # a pass of another name would be run for nothing
    idle = {"remove_redundant_upsample", "const_dequantize_optimizer", "q_dq_optimizer", "einsum_optimizer"}
    assert every - ran[0] == idle
    assert every - ran[1] == {*idle, "loop_optimizer", "global_pool_optimizer"}


def test_the_walk_of_tf2onnx_is_put_back() -> None:
    former = tf2onnx.graph.Graph.extract_sub_graph_nodes
    with onnx_passes.one_walk_for_all_outputs():
        assert tf2onnx.graph.Graph.extract_sub_graph_nodes is not former
    assert tf2onnx.graph.Graph.extract_sub_graph_nodes is former
