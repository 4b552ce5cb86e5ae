"""Import of weights from `tfa.seq2seq`, the seq2seq module of TensorFlow Addons.

The arguments are NumPy arrays, named and shaped as in Addons; TensorFlow Addons itself is not needed. Other weights
need no conversion: the weights of a Keras cell inside `AttentionWrapper` are those of the same cell inside
`AttentionCell`, since both feed it `[inputs ; attention]`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.attention.luong import LuongAttention
from keras_attention.recurrent.attention_cell import AttentionCell


def load_tfa_luong(
    layer: LuongAttention,
    memory_kernel: npt.ArrayLike,
    attention_g: npt.ArrayLike | None = None,
    attention_score_bias: npt.ArrayLike | None = None,
) -> None:
    """Load the weights of a `tfa.seq2seq.LuongAttention` or `LuongMonotonicAttention`, into a `general` score.

    With M the kernel of Addons' memory layer, the score of both is the same number for `W_a = M^T`:

        g h_t . (h_s M) + r  =  g h_t W_a h_s + r

    Args:
        layer: a built `LuongAttention("general")`; with `use_scale=True` for Addons' `scale=True`, and with
            `alignment="monotonic"` or `"hard_monotonic"` for the monotonic mechanism.
        memory_kernel: M, `(Dv, units)`, from `mechanism.memory_layer.kernel`; `units` is the depth of the query.
        attention_g: g, a scalar, from the weight of that name, where `scale=True`.
        attention_score_bias: r, a scalar, from the weight of that name, of the monotonic mechanism.

    Raises:
        ValueError: for a layer of another score, or one not built, and arrays that are not its weights.

    Example:
    >>> import numpy as np
    >>> layer = LuongAttention("general")
    >>> layer.build((None, None, 5), (None, None, 11))
    >>> load_tfa_luong(layer, memory_kernel=np.ones((11, 5)))
    >>> tuple(layer.kernel.shape)
    (5, 11)
    """
    _check_score(layer, ("general",))
    _assign(
        layer,
        {
            "kernel": ("memory_kernel", memory_kernel),
            "scale": ("attention_g", attention_g),
            "score_bias": ("attention_score_bias", attention_score_bias),
        },
        transposed=("kernel",),
    )


def load_tfa_bahdanau(
    layer: LuongAttention,
    query_kernel: npt.ArrayLike,
    memory_kernel: npt.ArrayLike,
    attention_v: npt.ArrayLike,
    attention_g: npt.ArrayLike | None = None,
    attention_b: npt.ArrayLike | None = None,
    attention_score_bias: npt.ArrayLike | None = None,
) -> None:
    """Load the weights of a `tfa.seq2seq.BahdanauAttention` or `BahdanauMonotonicAttention`, into an additive score.

    The formulas are the same, and so are the shapes:

        v . tanh(W_1 h_t + W_2 h_s) + r        or        (g v / norm v) . tanh(W_1 h_t + W_2 h_s + b) + r

    Args:
        layer: a built `BahdanauAttention(units)`; with `normalize=True` and `alignment` as Addons' mechanism.
        query_kernel: W_1, `(Dq, units)`, from `mechanism.query_layer.kernel`.
        memory_kernel: W_2, `(Dv, units)`, from `mechanism.memory_layer.kernel`.
        attention_v: v, `(units,)`, from the weight of that name, as the next three are.
        attention_g: g, a scalar, where `normalize=True`.
        attention_b: b, `(units,)`, where `normalize=True`.
        attention_score_bias: r, a scalar, of the monotonic mechanism.

    Raises:
        ValueError: for a layer of another score, or one not built, and arrays that are not its weights.

    Example:
    >>> import numpy as np
    >>> from keras_attention import BahdanauAttention
    >>> layer = BahdanauAttention(units=13)
    >>> layer.build((None, None, 5), (None, None, 11))
    >>> load_tfa_bahdanau(layer, np.ones((5, 13)), np.ones((11, 13)), np.ones(13))
    >>> float(keras.ops.convert_to_numpy(layer.vector)[0])
    1.0
    """
    _check_score(layer, ("additive", "concat", "normalized_additive"))
    _assign(
        layer,
        {
            "query_kernel": ("query_kernel", query_kernel),
            "key_kernel": ("memory_kernel", memory_kernel),
            "vector": ("attention_v", attention_v),
            "factor": ("attention_g", attention_g),
            "bias": ("attention_b", attention_b),
            "score_bias": ("attention_score_bias", attention_score_bias),
        },
    )


def load_tfa_attention_layer(
    cell: AttentionCell, kernel: npt.ArrayLike | Sequence[npt.ArrayLike], activation: Any = None
) -> None:
    """Load the attention layer of a `tfa.seq2seq.AttentionWrapper`, into the attentional vector of a cell.

    Addons joins `[h_t ; c_t]`, here it is `[c_t ; h_t]` as in the paper, so that the rows change places. Addons' layer
    has no activation, here it is tanh as in the paper by default: the cell must have
    `activation=None` for equal results. With several mechanisms Addons has a layer for each and concatenates their
    outputs; here one layer reads all contexts, and its kernel is theirs in blocks:

        [h_t ; c_t] K = [c_t ; h_t] [K_c  ]        K = [K_h]        two mechanisms: [K_c    0  ]
                                    [K_h  ]            [K_c]                        [0      K'_c]
                                                                                    [K_h    K'_h]

    Args:
        cell: a built `AttentionCell` whose `attentional_size` is Addons' `attention_layer_size`, or the sum of a list.
        kernel: `(U + Dv, A)`, U the depth of the recurrent cell's output; a list of such kernels, one for each of
            several mechanisms, in their order.
        activation: of Addons' layer, if one with an activation was passed as `attention_layer`.

    Raises:
        ValueError: for a cell without an attentional vector, not built, or of another activation, and kernels that do
            not fit.

    Example:
    >>> import keras, numpy as np
    >>> cell = AttentionCell(keras.layers.LSTMCell(5), LuongAttention("general"), attentional_size=3, activation=None)
    >>> cell.build((None, 4), (None, None, 11))
    >>> load_tfa_attention_layer(cell, np.ones((5 + 11, 3)))
    >>> tuple(cell.attentional.kernel.shape)
    (16, 3)
    """
    if cell.attentional is None or not cell.attentional.built:
        raise ValueError(
            "The cell has no attentional vector, or is not built. Expected: an AttentionCell with an attentional_size "
            f"that was called or built. Received: attentional_size={cell.attentional_size}, built={cell.built}"
        )
    expected_activation = keras.activations.get(activation)
    if cell.activation is not expected_activation:
        raise ValueError(
            "The attention layer of tfa.seq2seq.AttentionWrapper has no activation. Expected: an AttentionCell with "
            f"activation={_name(expected_activation)}. Received: activation={_name(cell.activation)}"
        )
    kernels = [np.asarray(one) for one in (kernel if isinstance(kernel, (list, tuple)) else [kernel])]
    weight, units, count = cell.attentional.kernel, cell.query_depth, len(cell.attentions)
    rows, size = weight.shape
    depth = (rows - units) // count
    shapes = [one.shape for one in kernels]
    fits = all(len(shape) == 2 and shape[0] == units + depth for shape in shapes)
    if len(kernels) != count or not fits or sum(shape[1] for shape in shapes) != size:
        raise ValueError(
            f"The kernels are not those of this cell's attentional vector. Expected: {count} of shape "
            f"({units + depth}, A), one for each mechanism, with {size} columns in all. Received: shapes {shapes}"
        )
    joined = np.zeros((rows, size))
    start = 0
    for number, one in enumerate(kernels):
        columns = slice(start, start + one.shape[1])
        joined[number * depth : (number + 1) * depth, columns] = one[units:]
        joined[count * depth :, columns] = one[:units]
        start += one.shape[1]
    weight.assign(joined)


def _check_score(layer: LuongAttention, scores: tuple[str, ...]) -> None:
    score = getattr(layer, "score", None)
    if not isinstance(layer, LuongAttention) or score not in scores:
        raise ValueError(
            f"These weights belong to another score. Expected: a LuongAttention with score in {scores}. "
            f"Received: {type(layer).__name__} with score={score!r}"
        )
    if not layer.built:
        raise ValueError(
            "The layer has no weights yet. Expected: a layer that was called, or built by "
            "layer.build(query_shape, value_shape). Received: built=False"
        )


def _assign(
    layer: LuongAttention, sources: Mapping[str, tuple[str, npt.ArrayLike | None]], transposed: tuple[str, ...] = ()
) -> None:
    """Check all arrays, then assign them: `sources` maps a weight's name to Addons' name and its array."""
    weights = {weight.name: weight for weight in layer.weights}
    given = {name: np.asarray(array) for name, (_, array) in sources.items() if array is not None}
    if set(given) != set(weights):
        expected = sorted(sources[name][0] if name in sources else f"{name} (not in tfa)" for name in weights)
        raise ValueError(
            "The arrays are not the weights of this layer; arguments such as use_scale, normalize and alignment say "
            f"which it has. Expected: {expected}. Received: {sorted(sources[name][0] for name in given)}"
        )
    for name, array in given.items():
        shape = tuple(weights[name].shape)
        shape = shape[::-1] if name in transposed else shape
        if array.shape != shape:
            raise ValueError(
                f"`{sources[name][0]}` does not fit the layer. Expected: shape {shape}. Received: shape {array.shape}"
            )
    for name, array in given.items():
        weights[name].assign(array.T if name in transposed else array)


def _name(activation: Any) -> str:
    return getattr(activation, "__name__", repr(activation))
