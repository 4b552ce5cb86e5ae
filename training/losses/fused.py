"""The last layer of a training pass: vocabulary projection and cross-entropy as one, so that no full logits are held.

    L = 1/N sum_n [ log sum_w exp(z_nw) - (1 - e) z_n,label - e mean_w z_nw ],   z_n = E h_n + b

over the N real tokens. The gradient in z of the first two terms, `softmax(z_n)_w`, less `1 - e` at the label, is used
up in the very chunk of tokens in which it is made: its products with E and h are kept, it itself is not. The third term
needs no logits at all.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attention.recurrent.lstm_kernel import product
from keras_attention.types import PAD_ID, Tensor

from .auxiliary import AlignmentLoss, Signals, rewire

CHUNK_OF_VOCABULARY = 4000
"""A batch is cut into one chunk of tokens for each so many words of the vocabulary."""


def exponentiate(logits: Tensor, read: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """`exp(z - max z)` `(N, V)`, its sums `(N, 1)` and `log sum exp z` `(N, 1)`, without overflow.

    `read` `(N, 1)` is what was read of the logits: TensorFlow then reads it first, and the exponentials take the
    logits' place in memory.
    """
    # The last chunks of a tiny batch have no rows, which Keras refuses; what it takes as an initial value instead lies
    # on the processor under PyTorch, wherever the rows are.
    top = logits[:, :1] if logits.shape[0] == 0 else ops.max(logits, axis=-1, keepdims=True)
    if read is not None:
        top = top + 0.0 * read
    exponentials = ops.exp(logits - top)
    sums = ops.sum(exponentials, axis=-1, keepdims=True)
    return exponentials, sums, ops.log(sums) + top


def of_the_loss(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """The gradient that reaches a scalar result, from what a backend calls the function of a custom gradient with.

    PyTorch: the inputs, and `upstream`; the others: the gradient alone, JAX in a tuple where the results are one.
    """
    found = named["upstream"] if "upstream" in named else arguments[0]
    return found[0] if isinstance(found, tuple | list) else found


def chunked_cross_entropy(
    hidden: Tensor,
    weights: Tensor,
    bias: Tensor,
    labels: Tensor,
    scale: Tensor,
    label_share: float = 1.0,
    chunks: int = 1,
    products: str = "float32",
    columns: bool = False,
) -> Tensor:
    """`sum_n scale_n (log sum_w exp(z_nw) - label_share z_n,label)`, a scalar, with `z = hidden weights^T + bias`.

    Args:
        hidden: float32 `(N, E)`.
        weights: `(V, E)`, or with `columns` `(E, V)`. bias: `(V,)`.
        labels: int `(N,)`.
        scale: `(N,)`; no gradient reaches it.
        label_share: of the label's term; 0 leaves the log partition alone.
        chunks: into how many parts the N rows are cut; never more than one part of the logits is held.
        products: one of `lstm.PRODUCTS`.
        columns: how the weights lie.
    """

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def run(hidden: Tensor, weights: Tensor, bias: Tensor, labels: Tensor, scale: Tensor) -> Any:
        size = (ops.shape(hidden)[0] + chunks - 1) // chunks
        labels = ops.cast(labels, "int32")
        rounded = ops.cast(weights, products)
        turned = ops.transpose(rounded)
        to_words, to_hidden = (rounded, turned) if columns else (turned, rounded)
        total: Any = 0.0
        d_weights: Any = 0.0
        d_bias: Any = 0.0
        d_hidden: list[Tensor] = []
        for chunk in range(chunks):
            part = slice(chunk * size, (chunk + 1) * size)
            rows = hidden[part]
            if chunk:  # one after the other: TensorFlow would make all chunks' logits at once
                rows = rows + 0.0 * d_weights[0, 0]
            logits = product(rows, to_words, products) + bias
            share = ops.expand_dims(scale[part], 1)
            label = ops.expand_dims(labels[part], 1)
            at_label = ops.take_along_axis(logits, label, axis=1) if label_share else None
            exponentials, sums, partition = exponentiate(logits, at_label)
            if at_label is not None:
                partition = partition - label_share * at_label
                # N numbers, for which TensorFlow on a processor copies the matrix: cheaper than N rows of the weights.
                lowered = ops.take_along_axis(exponentials, label, axis=1) - label_share * sums
                number = ops.arange(ops.shape(label)[0], dtype="int32")
                places = ops.stack([number, labels[part]], axis=1)
                exponentials = ops.scatter_update(exponentials, places, lowered[:, 0])
            total = total + ops.sum(share * partition)
            share = share / sums
            exponentials = ops.cast(exponentials, products)
            d_hidden.append(product(exponentials, to_hidden, products) * share)
            if columns:
                d_weights = d_weights + product(ops.transpose(rows * share), exponentials, products)
            else:
                d_weights = d_weights + product(ops.transpose(exponentials), rows * share, products)
            d_bias = d_bias + product(ops.transpose(share), exponentials, products)[0]
        joined = ops.concatenate(d_hidden, axis=0)

        def gradient(*arguments: Any, **named: Any) -> tuple[Tensor, ...]:
            up = of_the_loss(arguments, named)
            return up * joined, up * d_weights, up * d_bias, ops.zeros_like(scale), ops.zeros_like(scale)

        return total, gradient

    # As floats, exact to 16 million: JAX has no gradient in integers.
    total: Tensor = run(hidden, weights, bias, ops.cast(labels, "float32"), scale)
    return total


class FusedCrossEntropy(keras.layers.Layer):
    """Hidden states and labels in, loss out: the numbers of `TokenCrossEntropy` on the projected states.

    The projection's own layer is shared with the model. The loss is added by `add_loss`; compile without a loss.

    Args:
        projection: a built `keras.layers.Dense`, or a `keras.layers.ReversibleEmbedding` used in reverse.
        label_smoothing: e above.
        products: one of `lstm.PRODUCTS`.
        distillation: weight of the teachers' distributions, where the call is given them (see `teacher`).

    Call arguments:
        hidden: float `(B, T, E)`.
        labels: int `(B, T)`, padded with 0.
        teacher_ids, teacher_shares: int and float `(B, T, K)`: a distribution over K words for each label.

    Returns:
        The number of real labels of each row, int32 `(B,)`.
    """

    def __init__(
        self,
        projection: keras.Layer,
        label_smoothing: float = 0.0,
        products: str = "float32",
        distillation: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.projection = projection
        self.label_smoothing = label_smoothing
        self.products = products
        self.distillation = distillation
        self.built = True

    def call(
        self, hidden: Tensor, labels: Tensor, teacher_ids: Tensor | None = None, teacher_shares: Tensor | None = None
    ) -> Tensor:
        self.add_loss(self.loss(hidden, labels, teacher_ids, teacher_shares))
        return ops.sum(ops.cast(ops.not_equal(labels, PAD_ID), "int32"), axis=1)

    def compute_output_spec(self, hidden: Tensor, labels: Tensor, *_: Any, **__: Any) -> keras.KerasTensor:
        """Return the spec without tracing `call`, whose chunks need a known number of rows under JAX."""
        return keras.KerasTensor((labels.shape[0],), "int32")

    def loss(
        self, hidden: Tensor, labels: Tensor, teacher_ids: Tensor | None = None, teacher_shares: Tensor | None = None
    ) -> Tensor:
        """The scalar loss; 0 without any real label."""
        # Reshaped, a variable is a plain tensor, which is what TensorFlow's custom gradients take when eager.
        if isinstance(self.projection, keras.layers.ReversibleEmbedding):
            weights, bias = ops.reshape(self.projection.embeddings, self.projection.embeddings.shape), None
            columns = False
        else:
            weights, bias = ops.reshape(self.projection.kernel, self.projection.kernel.shape), self.projection.bias
            columns = True
        words = int(weights.shape[1 if columns else 0])
        bias = ops.zeros((words,)) if bias is None else ops.reshape(bias, (words,))
        hidden = ops.cast(hidden, "float32")
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        real = ops.cast(ops.not_equal(labels, PAD_ID), "float32")
        scale = real / ops.maximum(ops.sum(real), 1.0)
        chunks = -(-words // CHUNK_OF_VOCABULARY)
        taught = teacher_ids is not None and teacher_shares is not None
        own = 1.0 - self.distillation if taught else 1.0  # the share of the labels, smoothed, in what is wanted
        e = self.label_smoothing
        hidden = ops.reshape(hidden, (-1, hidden.shape[-1]))
        settings = own * (1.0 - e), chunks, self.products, columns
        loss = chunked_cross_entropy(hidden, weights, bias, labels, scale, *settings)
        if e:
            row = ops.mean(weights, axis=1 if columns else 0)
            mean = ops.matmul(hidden, ops.expand_dims(row, 1))[:, 0] + ops.mean(bias)
            loss = loss - own * e * ops.sum(scale * mean)
        if teacher_ids is not None and teacher_shares is not None:
            # No logits are needed, for a mean of logits is the logit of a mean of rows.
            ids = ops.reshape(ops.cast(teacher_ids, "int32"), (-1, teacher_ids.shape[-1]))
            shares = ops.reshape(ops.cast(teacher_shares, "float32"), (-1, teacher_ids.shape[-1]))
            by_word = ops.transpose(weights) if columns else weights
            row = ops.sum(ops.expand_dims(shares, 2) * ops.take(by_word, ids, axis=0), axis=1)
            logit = ops.sum(hidden * row, axis=-1) + ops.sum(shares * ops.take(bias, ids, axis=0), axis=-1)
            loss = loss - self.distillation * ops.sum(scale * logit)
        return loss


def fuse_loss(
    model: keras.Model,
    label_smoothing: float = 0.0,
    products: str = "float32",
    signals: Signals | None = None,
    kind: type[keras.Model] = keras.Model,
    distillation: float = 0.5,
    candidates: int | None = None,
) -> keras.Model:
    """A training model around a model of `build_seq2seq`: inputs `source`, `target` and `labels`, the loss built in.

    All weights are the model's own: fit this one, use that one.
    `kind` is the class of the model, e.g. `StackedSteps`. With `candidates` K there are two more inputs,
    `teacher_ids` and `teacher_shares` `(B, T, K)`, whose weight is `distillation`.
    `signals` other than the words may want more inputs: `gold` `(B, 1)`, `guide` `(B, T, S)`, see `signals`.

    Example: `fuse_loss(model, 0.1).compile("adam")`, then `fit({"source": …, "target": …, "labels": …})`.
    """
    layers = {layer.name: layer for layer in model.layers}
    embedding = layers.get("embedding") or layers["target_embedding"]
    tied = isinstance(embedding, keras.layers.ReversibleEmbedding)
    projection = embedding if tied else layers["output"]
    hidden = layers["output"].output if tied else layers["output"].input
    labels = keras.Input((None,), dtype="int32", name="labels")
    more: dict[str, Any] = {}
    alignments = None
    if signals:
        more, hidden, alignments = rewire(model, signals)
    if alignments is not None:
        guide = [more["guide"]] if "guide" in more else []
        hidden = AlignmentLoss(signals or Signals(), name="alignment_loss")([hidden, alignments, labels, *guide])
    head = FusedCrossEntropy(projection, label_smoothing, products, distillation, name="loss")
    taught: dict[str, Any] = {}
    if candidates is not None:
        taught = {
            name: keras.Input((None, candidates), dtype=dtype, name=name)
            for name, dtype in (("teacher_ids", "int32"), ("teacher_shares", "float32"))
        }
    inputs = {**model.input, "labels": labels, **more, **taught}
    return kind(inputs, head(hidden, labels, **taught), name="training")
