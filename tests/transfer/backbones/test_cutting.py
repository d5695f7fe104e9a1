"""The rule that cuts a trunk: where one value alone is handed on, and at layers with weights."""

import pytest
import torch
from torch import fx, nn

from transfer.backbones.tracing import layer_graphs


class Trunk(nn.Module):
    """Layers by name, put together by `forward`; `a`, `b`, `c` keep four channels."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 1, bias=False) for _ in range(3))
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.embedding = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.gain = nn.Parameter(torch.ones(1))
        self.computed = forward

    def forward(self, x):
        return self.computed(self, x)


def cut(forward, *, uncuttable=()):
    trunk = Trunk(forward)
    graph = fx.Tracer().trace(trunk)
    (features,) = graph.output_node().all_input_nodes
    cuttable = {node for node in graph.nodes if node.name not in uncuttable}
    graphs = layer_graphs(graph, trunk, features, cuttable)
    return trunk, [fx.GraphModule(trunk, layer) for layer in graphs]


def used(layer):
    names = (node.target for node in layer.graph.nodes if node.op in ("call_module", "get_attr"))
    return " ".join(names)


def residual(trunk, x):
    x = trunk.a(x)
    return trunk.relu(x + trunk.c(trunk.b(x)))


def embedding_read_first(trunk, x):
    doubled = trunk.embedding * 2
    x = trunk.a(x)
    return x + trunk.b(x * doubled)


LAYERS = {
    "one after the other": (lambda t, x: t.c(t.b(t.a(x))), ["a", "b", "c"]),
    "norm and activation join the layer before": (
        lambda t, x: t.b(t.relu(t.norm(t.a(x)))),
        ["a norm relu", "b"],
    ),
    "at the start they join the first": (lambda t, x: t.b(t.a(t.norm(x))), ["norm a", "b"]),
    "a residual branch stays whole": (residual, ["a", "b c relu"]),
    "an embedding is a layer": (lambda t, x: t.a(x) + t.embedding, ["a", "embedding"]),
    "a single number is none": (lambda t, x: t.b(t.a(x) * t.gain), ["a gain", "b"]),
    "parameters are taken where they are used": (embedding_read_first, ["a", "embedding b"]),
}


@pytest.mark.parametrize("case", LAYERS)
def test_the_layers_of_a_trunk(case):
    forward, expected = LAYERS[case]
    trunk, layers = cut(forward)
    assert [used(layer) for layer in layers] == expected
    images = torch.randn(2, 4, 3, 3)
    assert torch.equal(nn.Sequential(*layers)(images), trunk(images))


def test_a_value_that_may_not_be_handed_on_joins_two_layers():
    _, layers = cut(lambda t, x: t.c(t.b(t.a(x))), uncuttable=("b",))
    assert [used(layer) for layer in layers] == ["a", "b c"]


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda t, x: t.a(x), "it can't be cut between two layers with weights"),
        (lambda t, x: t.b(t.a(x)) + x, "it can't be cut between two layers with weights"),
        (lambda t, x: t.a(t.b(t.a(x))), "some of its layers share weights"),
    ],
)
def test_a_trunk_without_two_layers_of_their_own_is_refused(forward, reason):
    with pytest.raises(ValueError, match=reason):
        cut(forward)
