"""A whole network has every tensor under its original name, what was trained in its place."""

import pytest
import torch
from bundles import head

from transfer.backbones.find import block_tensors, find_backbone, find_spec
from transfer.weights.find import find_weights, load_blocks
from transfer.weights.whole import HEAD, kinds_of, whole_network

NAME = "resnet18"


@pytest.fixture(scope="module")
def weight_file():
    return find_weights(NAME, weights="random")


def trained_state(weight_file, num_layers):
    """The last blocks with other numbers, and a head."""
    blocks = load_blocks(weight_file)
    state = head(2, find_spec(NAME).num_features)
    for index in range(len(blocks) - num_layers, len(blocks)):
        for key, tensor in blocks[index].state_dict(prefix=f"blocks.{index}.").items():
            state[key] = tensor + 1
    return state


def test_its_names_are_the_original_networks_and_the_heads(weight_file):
    tensors = whole_network(weight_file, trained_state(weight_file, 0))
    names = {
        name
        for name in block_tensors(NAME, find_backbone(NAME).build())
        if not name.endswith("num_batches_tracked")
    }
    assert tensors.keys() == names | set(HEAD)
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_trained_layers_are_replaced_and_frozen_ones_stay(weight_file):
    before = whole_network(weight_file, trained_state(weight_file, 0))
    after = whole_network(weight_file, trained_state(weight_file, 2))
    changed = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if key.startswith("layer4.")}


def test_the_kinds_are_known_without_the_tensors(weight_file):
    tensors = whole_network(weight_file, trained_state(weight_file, 1))
    kinds = kinds_of(NAME, 2)
    assert {key: (tuple(t.shape), t.dtype) for key, t in tensors.items()} == kinds


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("head.1.bias"),
        lambda state: state.update({"blocks.8.conv1.weight": torch.zeros(1)}),
        lambda state: state.update({"blocks.99.weight": torch.zeros(1)}),
    ],
)
def test_what_does_not_fit_is_refused(weight_file, change):
    state = trained_state(weight_file, 1)
    change(state)
    with pytest.raises(ValueError, match="don't fit backbone 'resnet18'"):
        whole_network(weight_file, state)
