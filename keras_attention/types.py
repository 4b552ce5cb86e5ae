"""Names shared by every module: the tensor alias and the ids of the special tokens."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of whatever backend Keras runs on, or a symbolic `keras.KerasTensor`."""

TensorDict: TypeAlias = dict[str, Tensor]
"""A flat state or memory: names to tensors whose first axis is the batch."""

Shape: TypeAlias = tuple[Any, ...]
"""The shape of a tensor, as Keras passes it to `build`: an int for each axis, or None."""

PAD_ID = 0
BOS_ID = 1
EOS_ID = 2
BACKWARD_ID = EOS_ID
"""First token of a right-to-left target, in place of BOS; it ends with EOS, too."""
UNK_ID = 3
