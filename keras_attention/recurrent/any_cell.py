"""Any recurrent cell as a step over a flat, named state: Keras' cells, stacks of them, and custom cells.

A cell is one that `keras.layers.RNN` accepts: it has `state_size`, an int or a list of ints, and is called as
`cell(inputs, states) -> output, states`. States are named by kind and place in the stack: `h_0`, `c_0` for the LSTM
cell at the bottom, `h_1` for a GRU cell above it, `s2_0` for the third state of a cell that has three or more.
"""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_attention.recurrent.stack import RecurrentStack
from keras_attention.types import Tensor, TensorDict


def flat_cells(cell: Any) -> list[Any]:
    """Return the cells of a stack from the bottom up, nested stacks flattened.

    Raises:
        ValueError: for anything that is not a recurrent cell.
    """
    if isinstance(cell, keras.layers.StackedRNNCells) and cell.cells:
        return [inner for part in cell.cells for inner in flat_cells(part)]
    sizes = getattr(cell, "state_size", None)
    flat = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    whole = isinstance(cell, keras.layers.RNN)  # runs a cell over time, and has its `state_size`
    if whole or not callable(cell) or not flat or not all(isinstance(size, int) for size in flat):
        raise ValueError(
            "This is no recurrent cell. Expected: an object called as cell(inputs, states), whose state_size is an int "
            f"or a list of ints. Received: {type(cell).__name__} with state_size={sizes}"
        )
    return [cell]


def state_sizes(cell: Any) -> dict[str, int]:
    """Return name and depth of every state, in the order of the cells.

    Raises:
        ValueError: for anything that is not a recurrent cell, and for a `RecurrentStack` that cannot be stepped.
    """
    if isinstance(cell, RecurrentStack):
        if cell.bidirectional or (cell.has_cell_state and not cell.return_cell_state):
            raise ValueError(
                "A RecurrentStack is stepped through in one direction, with its whole state. Expected: "
                "bidirectional=False, and return_cell_state=True for an LSTM. Received: "
                f"cell={cell.cell!r}, bidirectional={cell.bidirectional}, return_cell_state={cell.return_cell_state}"
            )
        return dict.fromkeys(cell.state_names, cell.units)
    names: dict[str, int] = {}
    for place, inner in enumerate(flat_cells(cell)):
        names.update(zip(_names(inner, place), _sizes(inner), strict=True))
    return names


def output_size(cell: Any) -> int:
    """Return the depth of the cell's output."""
    if isinstance(cell, RecurrentStack):
        return cell.output_depth
    top = flat_cells(cell)[-1]
    return int(getattr(top, "output_size", None) or _sizes(top)[0])


def top_cell(cell: Any) -> Any:
    """Return the cell that gives the stack's output: of a `RecurrentStack`, the cell of its last layer."""
    return cell.layers[-1][0].cell if isinstance(cell, RecurrentStack) else flat_cells(cell)[-1]


def build_cell(cell: Any, depth: int) -> None:
    """Build every cell that is a layer, for inputs `(B, depth)`."""
    if isinstance(cell, RecurrentStack):
        if not cell.built:
            cell.build((None, None, depth))
        return
    for inner in flat_cells(cell):
        if isinstance(inner, keras.layers.Layer) and not inner.built:
            inner.build((None, depth))
        depth = output_size(inner)


def first_state(cell: Any, batch_size: Tensor | int, dtype: str) -> TensorDict:
    """Return the cell's own initial state: that of its `get_initial_state`, or zeros."""
    state: TensorDict = {}
    if isinstance(cell, RecurrentStack):
        return {name: ops.zeros((batch_size, size), dtype=dtype) for name, size in state_sizes(cell).items()}
    for place, inner in enumerate(flat_cells(cell)):
        if hasattr(inner, "get_initial_state"):
            tensors = keras.tree.flatten(inner.get_initial_state(batch_size=batch_size))
        else:
            tensors = [ops.zeros((batch_size, size)) for size in _sizes(inner)]
        tensors = [ops.cast(tensor, dtype) for tensor in tensors]
        state.update(zip(_names(inner, place), tensors, strict=True))
    return state


def draw_noise(cell: Any, inputs: Tensor) -> TensorDict:
    """Draw the dropout factors of a training pass over inputs `(B, T, D)`; Keras' cells keep their own."""
    return cell.draw_noise(inputs) if isinstance(cell, RecurrentStack) else {}


def step_cell(
    cell: Any, inputs: Tensor, state: TensorDict, training: bool | None, noise: TensorDict | None = None
) -> tuple[Tensor, TensorDict]:
    """One step: inputs `(B, D)` give outputs `(B, U)` and the new state.

    `noise` is this step of the result of `draw_noise`; without it the cell draws its own.
    """
    if isinstance(cell, RecurrentStack):
        return cell.step(inputs, state, noise, training)
    new_state: TensorDict = {}
    outputs = inputs
    for place, inner in enumerate(flat_cells(cell)):
        names = _names(inner, place)
        arguments = {"training": training} if _takes_training(inner) else {}
        outputs, states = inner(outputs, [state[name] for name in names], **arguments)
        new_state.update(zip(names, keras.tree.flatten(states), strict=True))
    # A cell may compute in a dtype of its own, but a loop needs states of one dtype.
    return ops.cast(outputs, inputs.dtype), {n: ops.cast(tensor, state[n].dtype) for n, tensor in new_state.items()}


@contextlib.contextmanager
def dropout_of_one_pass(cell: Any, depth: int, inputs: Tensor, training: bool | None) -> Iterator[None]:
    """Draw the dropout masks of Keras' cells before a loop, keep them during it, and reset them at its end.

    Args:
        cell: a recurrent cell.
        depth: depth of the cell's inputs.
        inputs: `(B, ...)`, read for its batch size and dtype.
        training: whether dropout applies.
    """
    cells = [] if isinstance(cell, RecurrentStack) else flat_cells(cell)
    dropping = [inner for inner in cells if hasattr(inner, "get_dropout_mask")]
    try:
        for inner in cells:
            if training and inner in dropping:
                inner.get_dropout_mask(_zeros(inputs, depth))
                inner.get_recurrent_dropout_mask(_zeros(inputs, _sizes(inner)[0]))
            depth = output_size(inner)
        yield
    finally:  # the next pass, of another graph, would read a mask left behind
        for inner in dropping:
            inner.reset_dropout_mask()
            inner.reset_recurrent_dropout_mask()


def given_state(cell: Any, states: Any, dtype: str) -> TensorDict:
    """Return the cell's initial state as given by the caller, see `named_state`, in the order of the cells.

    Raises:
        ValueError: for names, depths or a number of tensors that are not the cell's.
    """
    named = named_state(cell, states)
    named = {name: ops.convert_to_tensor(tensor, dtype=dtype) for name, tensor in named.items()}
    sizes = state_sizes(cell)
    check_state(sizes, named)
    return {name: named[name] for name in sizes}


def first_output(cell: Any, state: TensorDict) -> Tensor:
    """Return the output before the first step: the first state of the top cell, or zeros if its depth differs."""
    names = list(state_sizes(cell))
    top = state[names[-len(state_sizes(top_cell(cell)))]]
    depth = output_size(cell)
    return top if top.shape[-1] == depth else _zeros(top, depth)


def named_state(cell: Any, states: Any) -> TensorDict:
    """Convert states given as a dict, a tensor, or a nest of tensors in the order of the cells to a dict.

    Raises:
        ValueError: for a wrong number of tensors.
    """
    if isinstance(states, dict):
        return states
    names, tensors = list(state_sizes(cell)), keras.tree.flatten(states)
    if len(names) != len(tensors):
        raise ValueError(
            f"The states do not match the cell. Expected: {len(names)} tensors, {names}. Received: {len(tensors)}"
        )
    return dict(zip(names, tensors, strict=True))


def check_state(expected: Mapping[str, int | None], state: Any) -> None:
    """Raise ValueError unless the state has these names, and these depths where given."""
    if not isinstance(state, dict):
        raise ValueError(
            f"The state is no dict. Expected: names and depths {_shown(expected)}. Received: {type(state).__name__}"
        )
    received: dict[str, Any] = {name: tensor.shape[-1] if len(tensor.shape) else 0 for name, tensor in state.items()}
    wrong = [name for name, depth in expected.items() if depth is not None and received.get(name) not in (depth, None)]
    if set(expected) != set(received) or wrong:
        raise ValueError(
            "The state does not match the cell and its attention. Expected: names and depths "
            f"{_shown(expected)}. Received: {_shown(received)}"
        )


def axes_of(names: Iterable[str], state: TensorDict) -> dict[str, tuple[Any, str]]:
    """Return the recurrent states' shapes and axes, for `check_shapes`."""
    return {f"state {name}": (state[name].shape, f"B {name}") for name in names}


def described(part: Any) -> Any:
    """Serialise a part as `keras.saving` does, without its build shapes: its owner builds it.

    Those shapes would tie a config to the first batch, and are tuples, which JSON lacks.
    """
    return _without_shapes(keras.saving.serialize_keras_object(part))


def _without_shapes(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _without_shapes(value) for name, value in config.items() if name != "build_config"}
    return [_without_shapes(value) for value in config] if isinstance(config, list) else config


def _shown(depths: Mapping[str, int | None]) -> str:
    return (
        "{" + ", ".join(f"{name}: {'any' if depth is None else depth}" for name, depth in sorted(depths.items())) + "}"
    )


def _sizes(cell: Any) -> Sequence[int]:
    return list(cell.state_size) if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]


def _names(cell: Any, place: int) -> list[str]:
    kinds = ["h", "c" if isinstance(cell, keras.layers.LSTMCell) else "s1"]
    return [f"{kinds[number] if number < 2 else f's{number}'}_{place}" for number in range(len(_sizes(cell)))]


def _takes_training(cell: Any) -> bool:
    return "training" in inspect.signature(getattr(cell, "call", cell)).parameters


def _zeros(inputs: Tensor, depth: int) -> Tensor:
    return ops.zeros((ops.shape(inputs)[0], depth), dtype=inputs.dtype)
