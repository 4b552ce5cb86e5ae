"""Loop-invariant code motion for ONNX: invariant states and nodes are moved out of loops.

The converter turns every outer tensor that a TensorFlow loop reads into a loop state, weights
included. A runtime then copies them in each iteration, cannot see that they are constant, and neither packs nor
quantises them. The body of an ONNX `Loop` may read the tensors around it by name, so that none of this is needed.
"""

import graphlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FIRST_STATE = 2
"""Inputs of a Loop before its states: the maximum trip count and the initial condition. Its body has as many."""
RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial", "Dropout"),
}
"""Operators that give different numbers in each iteration."""
FIRST_STATE_OUTPUT = 1
"""Outputs of a Loop's body before its states: the condition."""


def hoist(graph: Any) -> None:
    """Move invariant states, and nodes that read no state, out of every loop of an ONNX graph, in place.

    The graph's results stay the same.
    """
    nodes: list[Any] = []
    for node in graph.node:
        for body in subgraphs(node):
            hoist(body)
        if node.op_type == "Loop":
            drop_constant_states(graph, node)
            nodes += invariant_nodes(graph, node)
        nodes.append(node)
    set_items(graph.node, nodes)
    prune(graph)


def set_items(items: Any, chosen: Iterable[Any]) -> None:
    """Replace the content of a repeated field of a graph."""
    held = list(chosen)
    del items[:]
    items.extend(held)


def put_in_order(graph: Any) -> None:
    """Sort the nodes of a graph, and of its loops, topologically, in place.

    ONNX Runtime's quantiser does not look into loops when it sorts: it may put one before nodes that its body reads.
    """
    nodes = list(graph.node)
    makers = {name: number for number, node in enumerate(nodes) for name in node.output}
    order: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for number, node in enumerate(nodes):
        bodies = list(subgraphs(node))
        for body in bodies:
            put_in_order(body)
        read = set(node.input).union(*(read_by(body) for body in bodies))
        order.add(number, *sorted(makers[name] for name in read if name in makers))
    set_items(graph.node, [nodes[number] for number in order.static_order()])


def prune(graph: Any) -> None:
    """Remove unused nodes and constants from a graph, in place."""
    kept: list[Any] = []
    needed = {port.name for port in graph.output}
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input).union(*(read_by(body) for body in subgraphs(node)))
    constants = [constant for constant in graph.initializer if constant.name in needed]
    set_items(graph.node, kept[::-1])
    set_items(graph.initializer, constants)


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the graphs nested in a node."""
    return (attribute.g for attribute in node.attribute if attribute.HasField("g"))


def drop_constant_states(graph: Any, loop: Any) -> None:
    """Remove states that the body returns unchanged: the body reads the outer tensor in their place."""
    (body,) = subgraphs(loop)
    sources = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    kept = []
    for number in range(len(loop.input) - FIRST_STATE):
        name, returned = body.input[FIRST_STATE + number].name, body.output[FIRST_STATE_OUTPUT + number].name
        while returned in sources and returned != name:
            returned = sources[returned]
        if returned != name:
            kept.append(number)
            continue
        replace(body, {name: loop.input[FIRST_STATE + number]})
        if number < len(loop.output):
            replace(graph, {loop.output[number]: loop.input[FIRST_STATE + number]})
    states = len(loop.input) - FIRST_STATE
    _keep(loop.input, FIRST_STATE, kept, states)
    _keep(body.input, FIRST_STATE, kept, states)
    _keep(body.output, FIRST_STATE_OUTPUT, kept, states)
    _keep(loop.output, 0, kept, states)


def _keep(items: Any, first: int, kept: list[int], states: int) -> None:
    """Keep, of a repeated field, the items before and behind the states, and the states listed."""
    former = list(items)
    set_items(items, [*former[:first], *(former[first + number] for number in kept), *former[first + states :]])


def replace(graph: Any, names: Mapping[str, str]) -> None:
    """Rename the inputs of nodes, in a graph and its nested graphs, and the graph's outputs.

    A graph's outputs have fixed names, so that a renamed one is passed on by an `Identity`. An empty
    name stands for an omitted input or output.
    """
    import onnx

    names = {old: new for old, new in names.items() if old and old != new}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for body in subgraphs(node):
            replace(body, names)
    for name in dict.fromkeys(output.name for output in graph.output if output.name in names):
        graph.node.append(onnx.helper.make_node("Identity", [names[name]], [name]))


def invariant_nodes(graph: Any, loop: Any) -> list[Any]:
    """Remove from a loop's body the nodes that depend on no state, with the constants they need; returns them."""
    (body,) = subgraphs(loop)
    varying = {port.name for port in body.input}
    # Outputs of the body stay in it, and so do names that have another meaning outside of it.
    fixed = {port.name for port in body.output} | names_of(graph)
    varying |= {constant.name for constant in body.initializer if constant.name in fixed}
    moved, kept = [], []
    for node in body.node:
        reads = set(node.input).union(*(read_by(inner) for inner in subgraphs(node)))
        if reads & varying or set(node.output) & fixed or node.op_type in RANDOM:
            varying |= set(node.output)
            kept.append(node)
        else:
            moved.append(node)
    constants = [constant for constant in body.initializer if constant.name not in fixed]
    stay = [constant for constant in body.initializer if constant.name in fixed]
    graph.initializer.extend(constants)
    set_items(body.initializer, stay)
    set_items(body.node, kept)
    return moved


def names_of(graph: Any) -> set[str]:
    """Return the names that a graph itself defines."""
    found = {port.name for port in graph.input} | {constant.name for constant in graph.initializer}
    return found.union(*(node.output for node in graph.node))


def read_by(graph: Any) -> set[str]:
    """Return every name that a graph reads, nested graphs included."""
    names = {port.name for port in graph.output}
    for node in graph.node:
        names |= set(node.input)
        for body in subgraphs(node):
            names |= read_by(body)
    return names
