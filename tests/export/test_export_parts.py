"""Parts of an export by themselves: what is planned, estimated, calibrated and rounded, and single graphs."""

from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import ops

from keras_attention import Seq2SeqConfig, UserError
from keras_attention.export.formats import calibration, subwords
from keras_attention.export.formats.int8_rows import quantised_rows
from keras_attention.export.formats.to_npu.graphs import decode_step_graph
from keras_attention.export.formats.to_onnx import weights as onnx_weights
from keras_attention.export.formats.to_tflite.int8_embeddings import int8_lookups
from keras_attention.export.graphs.knobs import knobs_of
from keras_attention.export.plan import plan_export
from keras_attention.export.report import cost as estimates
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.searching import run_search
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import train_tokenizer
from tests.support.export_models import LINES, tiny_model


def test_references_stay_with_their_samples() -> None:
    """The second and the fourth are too long for the target, and are left out with what they may become."""
    rows = [[4, 5, 2], [6, 7, 8, 9, 10, 2], [4, 2], [5, 6, 7, 8, 2], [7, 8, 9, 2]]
    references = [["a"], ["b"], ["c", "cc"], ["d"], ["e"]]
    settings = SearchPolicy(beam_size=1, max_length=2)
    plan = plan_export(tiny_model(), settings, None, rows, references, source_length=4)
    assert plan.cases.references == [["a"], ["c", "cc"], ["e"]]
    assert plan.left_out == 2
    searched = [case.inputs["source_ids"] for case in plan.cases.of("translate") if case.counted]
    assert [[i for i in row if i] for batch in searched for row in batch.tolist()] == [rows[0], rows[2], rows[4]]


def test_an_ngram_that_is_fixed_to_come_once() -> None:
    net = EncoderDecoder(tiny_model())
    source = np.array([[4, 5, 2]], np.int32)

    def ngrams(count: int, n: int) -> list[tuple[int, ...]]:
        settings = SearchPolicy(beam_size=1, max_length=9, no_repeat_ngram=n)
        knobs = {knob.port.name: knob.filled(1) for knob in knobs_of(settings, net)}
        ids = np.asarray(run_search(settings, net, source, knobs)["ids"])[0, 0].tolist()
        return [tuple(ids[start : start + count]) for start in range(9 - count + 1)]

    assert len(set(ngrams(2, 0))) < 8
    assert len(set(ngrams(2, 2))) == 8


@pytest.mark.parametrize(
    ("count", "given", "verified", "calibrated"),
    [(200, None, range(72), range(72, 200)), (129, None, range(1), range(1, 129)), (3, 117, range(3), range(117))],
)
def test_no_sample_is_both_verified_and_calibrated_with(count: int, given: Any, verified: Any, calibrated: Any) -> None:
    known, number, ranges = calibration.split_samples(range(count), given and range(given))
    assert (known, number, ranges) == (list(verified), len(verified), list(calibrated))


def test_too_little_to_calibrate_with() -> None:
    for samples, given in ((range(128), None), (range(9), range(99)), ((), range(100))):
        with pytest.raises(UserError, match="Expected: at least 100 of them"):
            calibration.split_samples(samples, given)
    with pytest.raises(UserError, match=r"fit into 7 tokens\. Expected: at least 100\. Received: 99"):
        calibration.check_rows([[2]] * 99, 7)
    calibration.check_rows([[2]] * 100, 7)


SOURCE, TARGET, BEAM = 13, 3, 2
ENCODER = 2 * 4 * 7 * (5 + 7)
"""An LSTM in each direction: four gates of 7 units over 5 embedded numbers and 7 units."""
DECODER = 4 * 11 * (5 + 11) + (14 + 11) * 11 + 11 * 31
"""An LSTM of 11 units, the attentional layer over context and state, the output of 31 words."""
BRIDGE = 2 * 14 * 11


@pytest.mark.parametrize(
    ("config", "token", "step", "bridge"),
    [
        ({}, ENCODER + 11 * 14, DECODER + SOURCE * (11 + 14), BRIDGE),
        ({"attention": "additive"}, ENCODER + 14 * 11, DECODER + 11 * 11 + SOURCE * (11 + 14), BRIDGE),
        (
            {"attention": "additive", "attention_units": 3},
            ENCODER + 14 * 3,
            DECODER + 11 * 3 + SOURCE * (3 + 14),
            BRIDGE,
        ),
        ({"attention": "location", "max_source_length": 17}, ENCODER, DECODER + 11 * 17 + SOURCE * 14, BRIDGE),
        (
            {"attention": "dot", "encoder_units": 11, "bidirectional": False},
            4 * 11 * (5 + 11),
            DECODER - 3 * 11 + SOURCE * (11 + 11),  # a context of 11 numbers, not 14
            2 * 11 * 11,
        ),
        ({"input_feeding": True}, ENCODER + 11 * 14, DECODER + 4 * 11 * 11 + SOURCE * (11 + 14), BRIDGE),
    ],
    ids=str,
)
def test_products_by_hand(config: dict[str, Any], token: int, step: int, bridge: int) -> None:
    sizes: dict[str, Any] = {"embedding_size": 5, "encoder_units": 7, "decoder_units": 11}
    found = estimates.estimate(Seq2SeqConfig(29, 31, **(sizes | config)), SOURCE, TARGET, BEAM)
    assert found.step_macs == step
    assert found.sentence_macs == SOURCE * token + bridge + BEAM * TARGET * step


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 11), (1, 1)])
def test_rows_in_int8(shape: tuple[int, ...]) -> None:
    """Off by half a step at most, the largest of each row at the end of the range, of either sign."""
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    weights[0] *= -100
    rows, scale = quantised_rows(weights)
    assert (rows.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, shape[:-1])
    assert (np.abs(rows.astype(int)).max(axis=-1) == 127).all()
    assert (rows[weights == 0] == 0).all()
    off = np.abs(weights - scale[..., None] * rows)
    assert (off <= 0.5001 * scale[..., None]).all()  # the rounding of float32 on top
    assert (np.sign(rows) * np.sign(weights) >= 0).all()
    zeros, tiny = quantised_rows(np.zeros((2, 3), np.float32))
    assert not zeros.any()
    assert np.isfinite(tiny).all()


@pytest.mark.parametrize("fails", [False, True])
def test_tables_are_what_they_were_after_int8_lookups(fails: bool) -> None:
    """In between they hold multiples of a row's scale, in the lookup and in the product with a tied table."""
    words = keras.Input((None,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(13, 5)
    model = keras.Model(words, table(table(words), reverse=True))
    former = np.random.default_rng(2).normal(size=(13, 5)).astype(np.float32)
    former[4] *= 50
    table.embeddings.assign(former)
    ids = np.array([[4, 12, 0]], np.int32)
    step = np.abs(former).max(axis=1, keepdims=True) / 127
    rounded = np.rint(former / step) * step
    try:
        with int8_lookups(model):
            np.testing.assert_allclose(table(ids)[0], rounded[ids[0]], rtol=1e-6)  # float32
            inside = np.asarray(model(ids))[0]
            if fails:
                raise KeyError
    except KeyError:
        pass
    np.testing.assert_allclose(inside, rounded[ids[0]] @ rounded.T, rtol=1e-4, atol=1e-4)  # float32 sums of five
    np.testing.assert_array_equal(ops.convert_to_numpy(table.embeddings), former)
    np.testing.assert_array_equal(np.asarray(table(ids))[0], former[ids[0]])
    assert "call" not in vars(table)


def constant_model(**constants: np.ndarray) -> onnx.ModelProto:
    """A model that adds constants, each with itself."""
    make, ports = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [make("Add", [name, name], [f"{name}_twice"]) for name in constants],
        "sums",
        [],
        [ports(f"{name}_twice", onnx.TensorProto.FLOAT, value.shape) for name, value in constants.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


def test_constants_that_float16_can_hold_become_float16() -> None:
    """Those that are large enough, and hold no number that stands for "never"."""
    import onnxruntime

    generator = np.random.default_rng(0)
    values = {
        "large": generator.normal(size=(16, 16)).astype(np.float32),
        "small": generator.normal(size=(15, 17)).astype(np.float32),
        "never": np.where(np.arange(300) % 7, np.float32(0.1), np.float32(-1e9)),
        "just": np.full(256, -65504.0, np.float32),
    }
    model = onnx_weights.to_float16(constant_model(**values))
    onnx.checker.check_model(model, full_check=True)
    halves = [one.name for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT16]
    assert halves == ["large/float16", "just/float16"]
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    for name, value in zip(values, found, strict=True):
        wanted = values[name].astype(np.float16).astype(np.float32) if name in ("large", "just") else values[name]
        np.testing.assert_array_equal(value, 2 * wanted)


@pytest.mark.parametrize(
    "config",
    [
        {"attention": "general"},
        {"attention": "additive", "input_feeding": True, "attentional_size": 10},
        {"attention": "normalized_additive"},
        {"attention": "scaled_dot", "decoder_units": 14, "use_scale": True},
        {"attention": "dot", "decoder_units": 14, "decoder_layers": 2},
        {"attention": "none", "bridge": "dense"},
    ],
    ids=lambda config: config["attention"],
)
def test_a_step_of_fixed_sizes_is_the_model_s(config: dict[str, Any]) -> None:
    """Of the NPU format, in float32: with a bias that leaves padding nothing."""
    net = EncoderDecoder(tiny_model(**config))
    source = np.array([[4, 5, 6, 7, 2, 0, 0]], np.int32)
    token = np.array([6], np.int32)
    state, memory = net.encode(source)
    state = {name: value + 0.1 for name, value in state.items()}
    log_probs, after, alignment = net.step(token, state, memory)
    given = {f"state_{name}": value for name, value in state.items()}
    given |= {
        "embedded": net.target_embedding(token),
        **{name: memory[name] for name in ("values", "keys") if name in memory},
    }
    given["mask_bias"] = np.where(source == 0, np.float32(-100), np.float32(0))
    graph = decode_step_graph(net, source.shape[1])
    found = graph.function(*(ops.convert_to_tensor(given[port.name]) for port in graph.inputs))
    # float32 in another order
    np.testing.assert_allclose(ops.log_softmax(found["logits"]), log_probs, atol=1e-5)
    for name, value in after.items():
        np.testing.assert_allclose(found[f"next_state_{name}"], value, atol=1e-5)  # likewise
    if config["attention"] != "none":
        np.testing.assert_allclose(found["alignment"], alignment, atol=1e-6)  # likewise


def test_special_pieces_add_nothing_to_a_text() -> None:
    tokenizer = train_tokenizer("subword", LINES * 4, 60)
    pieces = subwords.written_pieces(tokenizer)
    assert pieces[:4] == [""] * 4
    assert all(pieces[4:])
    ids = tokenizer.encode(LINES[0])
    assert "".join(pieces[i] for i in [1, *ids, 3, 2, 0]).replace("\u2581", " ").strip() == LINES[0]
