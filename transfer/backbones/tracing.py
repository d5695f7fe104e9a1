"""Any network cut into layers: torch.fx writes down what it does, and a rule says where to cut.

- The head is the last linear layer, with the dropout directly before it; before it is the trunk.
- A cut is possible behind a value on which alone everything later depends, if it is one floating
  tensor with a row for each image. Values that don't depend on the images (parameters, say) don't
  count: they are taken where they are used.
- A layer is the stretch between two possible cuts, if it has weights of its own with two or more
  dimensions: convolutions, linear layers, embeddings. Other stretches (normalisation, activation,
  pooling) belong to the layer before, and at the very start to the first.

The network is written down in eval mode: modules such as dropout and BatchNorm follow
train and eval later on, functions that are told `training=self.training` stay in eval mode.
Knows nothing of where a network comes from.
"""

import copy
import inspect
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from transfer.backbones.table import on_meta, run_blocks
from transfer.messages import one_line


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


Shapes = dict[fx.Node, torch.Size | None]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """A network's layers as graphs, and the names of its head's modules.

    `gmacs` are 10^9 multiply-accumulates for one image of the size it was traced with.
    """

    graphs: tuple[fx.Graph, ...]
    head: tuple[str, ...]
    constants: dict[str, Tensor]
    num_features: int
    gmacs: float

    def blocks_of(self, network: nn.Module) -> list[nn.Module]:
        """Return the layers of a network built like the traced one, sharing its tensors."""
        for name, tensor in self.constants.items():
            if not hasattr(network, name):
                setattr(network, name, tensor)
        # A GraphModule owns its graph, so each gets a copy.
        return [fx.GraphModule(network, copy.deepcopy(graph)) for graph in self.graphs]

    def head_of(self, network: nn.Module) -> nn.Module:
        """Return the head of such a network."""
        return nn.Sequential(*(network.get_submodule(name) for name in self.head))


def trace_layers(
    build: Callable[[], nn.Module],
    image_size: int,
    *,
    leaves: Sequence[type[nn.Module]] = (),
    functions: Iterable[Callable[..., Any]] = (),
) -> Layers:
    """Cut the network that `build` gives into layers; nothing is computed but shapes.

    `leaves` and `functions` are not looked into. Raises ValueError with the reason where the
    rule gives fewer than two layers or no head.
    """
    network = on_meta(build)
    graph = _without_defaults(traced(network, tuple(leaves), tuple(functions)))
    head = _head(graph, network)
    module = fx.GraphModule(network, graph)
    shapes, gmacs = _shapes(module, image_size, 2)
    more_shapes, _ = _shapes(module, image_size, 3)
    features = _input(head[0])
    if (shape := shapes[features]) is None or len(shape) != 2:
        raise ValueError("its classifier does not take one row of features for each image")
    cuttable = {node for node in shapes if _is_batch(shapes[node], more_shapes[node])}
    graphs = layer_graphs(graph, network, features, cuttable)
    return Layers(
        graphs=tuple(graphs),
        head=tuple(str(node.target) for node in head),
        constants={k: v for k, v in vars(network).items() if isinstance(v, Tensor)},
        num_features=shape[1],
        gmacs=gmacs,
    )


def size_that_agrees(network: nn.Module, layers: Layers, image_sizes: Sequence[int]) -> int:
    """Return the first image size at which layers and head give the network's own numbers.

    Bit for bit, features and logits, with weights of noise: the network is spoilt. Raises
    ValueError with the reason if there is no such size.
    """
    network.eval().to(memory_format=torch.channels_last)  # as a study runs it
    reason = ""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        for parameter in network.parameters():
            # Zeros of an initialisation would hide whole branches from the comparison.
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        for size in image_sizes:
            try:
                images_N3hw = torch.randn(2, 3, size, size)
                if _agrees(network, layers, images_N3hw.to(memory_format=torch.channels_last)):
                    return size
                reason = f"its layers give other numbers than it does at {size} x {size} pixels"
            except Exception as error:  # a network raises nearly anything for a wrong size
                reason = f"it does not run at {size} x {size} pixels ({one_line(error)})"
    raise ValueError(reason)


def _agrees(network: nn.Module, layers: Layers, images_N3hw: Tensor) -> bool:
    seen: list[Tensor] = []
    head = layers.head_of(network)
    first = network.get_submodule(layers.head[0])
    with first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone())):
        logits_NC = network(images_N3hw.clone())
    features_ND = run_blocks(layers.blocks_of(network), images_N3hw)
    return torch.equal(features_ND, seen[0]) and torch.equal(head(features_ND), logits_NC)


class _Tracer(fx.Tracer):
    """Looks into modules of modules, and not into torch's own."""

    # Otherwise what a forward computes from its buffers becomes a constant.
    proxy_buffer_attributes = True

    def __init__(
        self, leaves: tuple[type[nn.Module], ...], functions: tuple[Callable[..., Any], ...]
    ) -> None:
        super().__init__(autowrap_functions=functions)
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        alone = next(m.children(), None) is None
        return (
            alone or isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)
        )


def traced(
    network: nn.Module,
    leaves: tuple[type[nn.Module], ...],
    functions: tuple[Callable[..., Any], ...],
) -> fx.Graph:
    _, *others = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in others if p.default is not p.empty}
    try:
        return _Tracer(leaves, functions).trace(network, concrete_args=defaults or None)
    except Exception as error:  # the network's own code runs, with stand-ins for tensors
        raise ValueError(f"torch.fx can't follow it ({one_line(error)})") from error


def _without_defaults(graph: fx.Graph) -> fx.Graph:
    """Return the graph without arguments beside the images and without checks of them."""
    _, *others = graph.find_nodes(op="placeholder")
    doomed = dict.fromkeys(others)
    for node in graph.nodes:
        if any(source in doomed for source in node.all_input_nodes):
            doomed[node] = None
    for node in reversed(doomed):
        graph.erase_node(node)
    return graph


def _head(graph: fx.Graph, network: nn.Module) -> list[fx.Node]:
    """Return the nodes of the last linear layer and of the dropout directly before it."""
    (end,) = graph.output_node().args
    if not isinstance(end, fx.Node):
        raise ValueError("it does not give one tensor of logits")
    while isinstance(_module(end, network), nn.Identity):
        end = _input(end)
    if not isinstance(_module(end, network), nn.Linear):
        raise ValueError(f"its classifier is not one linear layer (it ends in {_described(end)})")
    head = [end]
    while isinstance(_module(before := _input(head[0]), network), nn.Dropout | nn.Identity):
        head.insert(0, before)
    return head


def _input(node: fx.Node) -> fx.Node:
    source, *_ = node.all_input_nodes
    return source


def _described(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _module(node: fx.Node, network: nn.Module) -> nn.Module | None:
    if node.op != "call_module":
        return None
    return network.get_submodule(str(node.target))


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and keeps the shape of every floating tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.shapes: Shapes = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        self.shapes[n] = value.shape if is_float else None
        return value


def _shapes(module: fx.GraphModule, image_size: int, num_images: int) -> tuple[Shapes, float]:
    """Return the shape of every value for so many images, and the GMACs of one image."""
    recorder = _ShapeRecorder(module)
    images_N3hw = torch.empty(num_images, 3, image_size, image_size, device="meta")
    try:
        with FlopCounterMode(display=False) as counter:
            recorder.run(images_N3hw)
    except Exception as error:  # the network's own code runs
        raise ValueError(
            f"it does not run with {num_images} images of {image_size} x {image_size} pixels "
            f"({one_line(error)})"
        ) from error
    return recorder.shapes, counter.get_total_flops() / 2 / num_images / 1e9


def _is_batch(shape_of_2: torch.Size | None, shape_of_3: torch.Size | None) -> bool:
    if not shape_of_2 or not shape_of_3 or len(shape_of_2) < 2:
        return False
    return (shape_of_2[0], shape_of_3[0]) == (2, 3)
