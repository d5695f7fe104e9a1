"""The rule that cuts the graph of a trunk into layers.

- A cut is possible behind a value on which alone everything later depends, if it is one floating
  tensor with a row for each image. Values that don't depend on the images (parameters, say) don't
  count: they are taken where they are used.
- A layer is the stretch between two possible cuts, if it has weights of its own with two or more
  dimensions: convolutions, linear layers, embeddings. Other stretches (normalisation, activation,
  pooling) belong to the layer before, and at the very start to the first.

Knows graphs of torch.fx, and nothing of how they are made or run.
"""

import operator
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import fx, nn


def layer_graphs(
    graph: fx.Graph, network: nn.Module, features: fx.Node, cuttable: set[fx.Node]
) -> list[fx.Graph]:
    """Return a graph for each layer of the trunk, the part of `graph` that gives `features`.

    `cuttable` are the values that a layer may hand on. Raises ValueError with the reason if there
    are fewer than two layers, or two that share weights.
    """
    images, *trunk = _depending_on_images(graph, features)
    stretches = _stretches(images, trunk, cuttable)
    layers = _joined([(s, _weights(s.graph(), network)) for s in stretches])
    if len(layers) < 2:
        raise ValueError("it can't be cut between two layers with weights")
    graphs = [layer.graph() for layer in layers]
    uses = Counter(weight for graph in graphs for weight in _weights(graph, network))
    if any(count > 1 for count in uses.values()):
        raise ValueError("some of its layers share weights")
    return graphs


def _depending_on_images(graph: fx.Graph, features: fx.Node) -> list[fx.Node]:
    """Return the images and what depends on them, up to `features`, in order of computation."""
    images, *_ = graph.find_nodes(op="placeholder")
    found = {images: None}
    for node in graph.nodes:
        if any(source in found for source in node.all_input_nodes):
            found[node] = None
        if node is features:
            break
    return list(found)


class _Stretch(NamedTuple):
    """Nodes that take one value in, hand one on, and need no other from the rest."""

    start: fx.Node
    nodes: list[fx.Node]
    output: fx.Node

    def graph(self) -> fx.Graph:
        """Return the nodes as a graph of their own, with what they use beside the images."""
        graph = fx.Graph()
        copies = {self.start: graph.placeholder("x")}

        def copied(node: fx.Node) -> fx.Node:
            if node not in copies:
                copies[node] = graph.node_copy(node, copied)
            return copies[node]

        for node in self.nodes:
            copied(node)
        graph.output(copied(self.output))
        return graph


def _stretches(
    images: fx.Node, trunk: Sequence[fx.Node], cuttable: set[fx.Node]
) -> list[_Stretch]:
    """Return the trunk cut wherever one value alone is handed on."""
    position = {node: index for index, node in enumerate((images, *trunk))}
    last_use = {n: max((position.get(u, 0) for u in n.users), default=0) for n in position}
    last_use[trunk[-1]] = len(trunk) + 1
    stretches, alive = [], {images}
    start, nodes = images, list[fx.Node]()
    for node in trunk:
        nodes.append(node)
        alive = {n for n in (*alive, node) if last_use[n] > position[node]}
        if node is trunk[-1] or (len(alive) == 1 and alive <= cuttable - {images}):
            (output,) = alive
            stretches.append(_Stretch(start, nodes, output))
            start, nodes = output, []
    return stretches


def _joined(stretches: list[tuple[_Stretch, set[nn.Parameter]]]) -> list[_Stretch]:
    """Return the layers: a stretch without weights joins the layer before."""
    layers: list[_Stretch] = []
    has_weights = False
    for stretch, weights in stretches:
        matters = any(weight.ndim >= 2 for weight in weights)
        if layers and not (matters and has_weights):
            before = layers.pop()
            stretch = _Stretch(before.start, before.nodes + stretch.nodes, stretch.output)
        layers.append(stretch)
        has_weights = has_weights or matters
    return layers


def _weights(graph: fx.Graph, network: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that a graph uses."""
    weights: set[nn.Parameter] = set()
    for node in graph.nodes:
        if node.op == "call_module":
            weights.update(network.get_submodule(str(node.target)).parameters())
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(network)
            weights |= {value} if isinstance(value, nn.Parameter) else set()
    return weights
