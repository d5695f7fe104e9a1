"""Frozen means frozen: what lies below the boundary is the same, bit for bit, after training."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import TransferNetwork
from transfer.network import freeze, num_trainable_parameters, trainable_parameters
from transfer.weights.find import find_weights, load_blocks

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def random_blocks():
    return {name: load_blocks(find_weights(name, weights="random")) for name in BACKBONES}


@pytest.fixture
def build(random_blocks):
    def network_of(name: str = "resnet18") -> TransferNetwork:
        torch.manual_seed(0)
        features = BACKBONES[name].num_features
        return TransferNetwork(deepcopy(random_blocks[name]), features, NUM_CLASSES, dropout=0.1)

    return network_of


def train_carelessly(network: TransferNetwork, num_steps: int = 2) -> None:
    """Train as a caller would who has forgotten that anything is frozen."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        network.train()
        images_N3hw = torch.randn(4, 3, 32, 32, generator=generator)
        labels_N = torch.tensor([0, 1, 2, 0])
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images_N3hw), labels_N).backward()
        optimizer.step()


def moved_tensors(network: TransferNetwork, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, tensor in network.state_dict().items() if not tensor.equal(before[key])}


@pytest.mark.parametrize("share", ["none", "last", "half", "all"])
@pytest.mark.parametrize("name", BACKBONES)
def test_tensors_below_the_boundary_stay_and_all_above_it_move(build, name, share):
    depth = BACKBONES[name].depth
    num_unfrozen_layers = {"none": 0, "last": 1, "half": depth // 2, "all": depth}[share]
    network = build(name)
    freeze(network, num_unfrozen_layers)
    before = deepcopy(network.state_dict())
    train_carelessly(network)
    frozen = tuple(f"blocks.{index}." for index in range(depth - num_unfrozen_layers))
    assert moved_tensors(network, before) == {key for key in before if not key.startswith(frozen)}


def test_only_blocks_above_the_boundary_follow_train_and_all_follow_eval(build):
    network = build()
    freeze(network, 2)
    network.train()
    modes = [{module.training for module in block.modules()} for block in network.blocks]
    assert modes == [{False}] * 7 + [{True}] * 2
    assert network.head.training
    network.eval()
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("mode", [True, False])
def test_freezing_keeps_the_mode_of_what_trains(build, mode):
    network = build().train(mode)
    freeze(network, 1)
    assert network.training is network.head.training is network.blocks[-1].training is mode
    assert not network.blocks[0].training


def test_gradients_from_before_freezing_do_not_move_frozen_blocks(build):
    network = build()
    train_carelessly(network, num_steps=1)
    freeze(network, 0)
    before = deepcopy(network.state_dict())
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    assert moved_tensors(network, before) == {"head.1.weight", "head.1.bias"}


def test_freezing_again_moves_the_boundary_both_ways(build):
    network = build()
    freeze(network, 0)
    freeze(network, 9)
    assert len(trainable_parameters(network)) == len(list(network.parameters()))
    freeze(network, 1)
    assert trainable_parameters(network) == [
        *network.blocks[-1].parameters(),
        *network.head.parameters(),
    ]
    assert not network.blocks[-2].training


def test_feature_extraction_trains_the_head_alone(build):
    network = build()
    freeze(network, 0)
    assert num_trainable_parameters(network) == 512 * NUM_CLASSES + NUM_CLASSES


def test_fine_tuning_everything_trains_every_parameter(build):
    network = build()
    freeze(network, 9)
    everything = sum(parameter.numel() for parameter in network.parameters())
    assert num_trainable_parameters(network) == everything


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(build):
    network = build()
    freeze(network, 9, batch_norm="frozen")
    before = deepcopy(network.state_dict())
    train_carelessly(network)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved_tensors(network, before) == {k for k in before if not k.endswith(statistics)}


def test_batch_norm_can_be_let_loose_again(build):
    network = build()
    freeze(network, 2, batch_norm="frozen")
    network.train()
    norms = [m for m in network.blocks[-2:].modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    freeze(network, 2)
    assert all(norm.training for norm in norms)


@pytest.mark.parametrize("num_unfrozen_layers", [-1, 10])
def test_a_boundary_outside_the_backbone_is_refused(build, num_unfrozen_layers):
    network = build()
    with pytest.raises(ValueError) as error:
        freeze(network, num_unfrozen_layers)
    assert "`0 <= num_unfrozen_layers <= 9` must hold" in str(error.value)
    assert f"but got num_unfrozen_layers={num_unfrozen_layers};" in str(error.value)
