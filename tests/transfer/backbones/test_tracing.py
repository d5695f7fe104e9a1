"""A traced network: its layers and head give its own numbers, or it is refused with the reason.

Shapes: N images, D features, C classes, h x w pixels.
"""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from transfer.backbones.tracing import size_that_agrees, trace_layers


def conv(num_inputs, num_outputs):
    return nn.Conv2d(num_inputs, num_outputs, 3, padding=1)


class Net(nn.Module):
    """Two convolutions and a linear layer, with a `forward` that a test hands in."""

    def __init__(self, forward=None):
        super().__init__()
        self.first, self.second = conv(3, 4), conv(4, 4)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(4, 10)
        self.computed = forward

    def forward(self, x):
        return self.computed(self, x) if self.computed else self.usual(x)

    def features(self, x):
        return self.relu(self.norm(self.second(self.first(x)))).mean((2, 3))

    def usual(self, x):
        return self.fc(self.dropout(self.features(x)))


def traced(build=Net):
    torch.manual_seed(0)
    return trace_layers(build, 16), build().eval()


def test_layers_and_head_are_those_of_the_network():
    layers, network = traced()
    images_N3hw = torch.randn(3, 3, 16, 16)
    features_ND = nn.Sequential(*layers.blocks_of(network))(images_N3hw)
    assert torch.equal(features_ND, network.features(images_N3hw))
    assert torch.equal(layers.head_of(network)(features_ND), network(images_N3hw))
    assert (layers.num_features, layers.head) == (4, ("dropout", "fc"))


def test_layers_share_the_networks_tensors_by_their_names():
    layers, network = traced()
    first, second = layers.blocks_of(network)
    assert set(first.state_dict()) == {"first.weight", "first.bias"}
    assert second.norm is network.norm
    assert {id(p) for block in (first, second) for p in block.parameters()} == {
        id(p) for name, p in network.named_parameters() if not name.startswith("fc.")
    }


def test_a_copy_of_a_layer_computes_the_same_and_shares_nothing():
    layers, network = traced()
    _, block = layers.blocks_of(network)
    copy, inputs = deepcopy(block), torch.randn(2, 4, 8, 8)
    assert torch.equal(copy(inputs), block(inputs))
    with torch.no_grad():
        copy.second.weight.zero_()
    assert network.second.weight.abs().sum() > 0


def test_layers_follow_train_and_eval():
    layers, network = traced()
    _, block = layers.blocks_of(network)
    inputs, before = torch.randn(2, 4, 8, 8), network.norm.running_mean.clone()
    block.eval()(inputs)
    assert torch.equal(network.norm.running_mean, before)
    block.train()(inputs)
    assert not torch.equal(network.norm.running_mean, before)


def test_gmacs_are_those_of_one_image():
    layers, _ = traced()
    assert layers.gmacs * 1e9 == 16 * 16 * 9 * (3 * 4 + 4 * 4) + 4 * 10


def test_an_argument_with_a_default_keeps_its_default():
    class WithMask(Net):
        def forward(self, x, mask=None, scale=2.0):
            return self.usual(x if mask is not None else x * scale)

    layers, network = traced(WithMask)
    assert size_that_agrees(network, layers, (16,)) == 16


def test_a_constant_that_a_network_makes_on_the_way_is_kept():
    layers, network = traced(partial(Net, lambda net, x: net.usual(x + torch.tensor(2.0))))
    assert len(layers.constants) == 1
    assert size_that_agrees(network, layers, (16,)) == 16


REFUSED = {
    "not one linear layer (it ends in flatten)": lambda net, x: net.second(net.first(x)).flatten(
        1
    ),
    "not one linear layer (it ends in add)": lambda net, x: net.usual(x) + net.usual(x),
    "does not give one tensor of logits": lambda net, x: {"logits": net.usual(x)},
    "one row of features for each image": lambda net, x: net.fc(
        net.second(net.first(x)).permute(0, 2, 3, 1)
    ),
    "torch.fx can't follow it (TraceError": lambda net, x: (
        net.usual(x) if x.sum() > 0 else net.usual(-x)
    ),
    "does not run with 3 images of 16 x 16 pixels": lambda net, x: net.usual(x.view(2, 3, 16, 16)),
    "can't be cut between two layers": lambda net, x: net.fc(
        net.second(net.first(x) + x.sum()).mean((2, 3)) + x.sum()
    ),
    "some of its layers share weights": lambda net, x: net.fc(
        net.second(net.second(net.first(x))).mean((2, 3))
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_network_that_the_rule_does_not_fit_is_refused_with_the_reason(reason):
    with pytest.raises(ValueError) as error:
        trace_layers(partial(Net, REFUSED[reason]), 16)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_size_at_which_a_network_runs_is_the_one_to_work_with():
    class Fixed(Net):
        def forward(self, x):
            torch._assert(x.shape[2] == 16, "wrong height")
            return self.usual(x)

    layers, network = traced(Fixed)
    assert size_that_agrees(network, layers, (8, 16)) == 16
    with pytest.raises(ValueError, match=r"does not run at 8 x 8 pixels \(AssertionError: wrong"):
        size_that_agrees(network, layers, (8,))


def with_a_branch(weight):
    """Its second layer is a branch of this weight, which starts at zero."""

    def forward(net, x):
        x = net.first(x)
        x = x + net.second(net.norm(x)) * weight
        return net.fc(net.dropout(x.mean((2, 3))))

    net = Net(forward)
    nn.init.zeros_(net.second.weight)
    nn.init.zeros_(net.second.bias)
    return net


def test_layers_that_compute_something_else_are_refused_even_if_the_difference_starts_at_zero():
    layers, network = traced(partial(with_a_branch, 1.0))
    assert size_that_agrees(network, layers, (16,)) == 16
    with pytest.raises(ValueError, match="its layers give other numbers than it does at 16 x 16"):
        size_that_agrees(with_a_branch(2.0), layers, (16,))


def test_a_layer_that_writes_into_its_input_is_refused():
    def forward(net, x):
        x = net.first(x)
        x = x + net.second(net.relu(x))
        return net.fc(net.dropout(x.mean((2, 3))))

    layers, network = traced(partial(Net, forward))
    with pytest.raises(ValueError, match="block 1 writes into its input"):
        size_that_agrees(network, layers, (16,))
