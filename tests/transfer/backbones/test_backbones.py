"""Blocks are the original network cut into pieces: nothing lost, nothing doubled, nothing changed.

Shapes: N images, C classes, D features, c channels, h x w pixels.
"""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from torch import nn

from transfer.backbones import libraries as generic
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import (
    TransferNetwork,
    block_tensors,
    check_image_size,
    find_backbone,
    find_spec,
    has_batch_norm,
    pool,
    split_into_blocks,
)
from transfer.backbones.libraries import UnknownBackboneError
from transfer.network import freeze


@pytest.fixture(scope="module", params=BACKBONES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    torch.manual_seed(0)
    return find_backbone(name).build().eval()


@pytest.fixture(scope="module")
def blocks(name, network):
    return split_into_blocks(name, network)


@pytest.fixture
def images_N3hw():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_blocks_and_original_head_give_the_original_logits(name, network, blocks, images_N3hw):
    logits_NC = network(images_N3hw)
    assert torch.equal(find_backbone(name).head(network)(blocks(images_N3hw)), logits_NC)
    assert not torch.equal(logits_NC[0], logits_NC[1])


def test_blocks_hold_every_parameter_but_the_classifiers_exactly_once(name, network, blocks):
    held = Counter(id(parameter) for block in blocks for parameter in block.parameters())
    classifier = {id(parameter) for parameter in find_backbone(name).head(network).parameters()}
    everything = {id(parameter) for parameter in network.parameters()}
    assert set(held.values()) == {1}
    assert held.keys() == everything - classifier
    assert len(classifier) == 2


def test_block_tensors_are_the_memory_of_the_blocks_by_their_original_names(name, network, blocks):
    named, state = block_tensors(name, network), network.state_dict()
    assert {tensor.data_ptr() for tensor in named.values()} == {
        tensor.data_ptr() for tensor in blocks.state_dict().values()
    }
    assert all(state[key].data_ptr() == tensor.data_ptr() for key, tensor in named.items())


@torch.inference_mode()
def test_depth_and_num_features_are_the_catalogs(name, blocks, images_N3hw):
    assert len(blocks) == BACKBONES[name].depth
    assert pool(blocks(images_N3hw)).shape == (2, BACKBONES[name].num_features)


@torch.inference_mode()
def test_no_block_writes_into_its_input(blocks, images_N3hw):
    activations_Nchw = images_N3hw
    for block in blocks:
        before_Nchw = activations_Nchw.clone()
        outputs_Nchw = block(activations_Nchw)
        assert torch.equal(activations_Nchw, before_Nchw)
        activations_Nchw = outputs_Nchw


def one_step(network: TransferNetwork, num_unfrozen_layers: int) -> None:
    freeze(network, num_unfrozen_layers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    images_N3hw = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    nn.functional.cross_entropy(network.train()(images_N3hw), torch.arange(4)).backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["torchvision:mnasnet0_5", "timm:test_vit4"])
def test_the_frozen_layers_of_a_cut_network_are_bit_identical_after_training(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    spec, blocks = find_spec(name), split_into_blocks(name, find_backbone(name).build())
    for num_unfrozen_layers in (0, 1, spec.depth):
        network = TransferNetwork(deepcopy(blocks), spec.num_features, 4, dropout=0.0)
        before = deepcopy(network.state_dict())
        one_step(network, num_unfrozen_layers)
        frozen = tuple(f"blocks.{i}." for i in range(spec.depth - num_unfrozen_layers))
        moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
        assert not any(key.startswith(frozen) for key in moved)
        assert "head.1.weight" in moved
        assert num_unfrozen_layers == 0 or any(
            key.startswith(f"blocks.{spec.depth - 1}.") for key in moved
        )


def test_an_unknown_backbone_is_refused_with_the_choices_and_what_was_meant():
    with pytest.raises(UnknownBackboneError) as error:
        find_backbone("resnet51").build()
    message = str(error.value)
    assert message.startswith("Unknown backbone 'resnet51'; choose from efficientnet_lite0, resn")
    assert "squeezenet1_1, torchvision:NAME, timm:NAME. Did you mean resnet50, " in message


def test_a_backbone_is_found_once_in_a_process(monkeypatch):
    found = find_backbone("torchvision:alexnet")
    monkeypatch.setattr(generic, "torchvision_backbone", None)
    assert find_backbone("torchvision:alexnet") is found
    assert find_spec("torchvision:alexnet") is found.spec


def test_a_refusal_is_found_once_in_a_process(monkeypatch):
    with pytest.raises(ValueError) as first:
        find_backbone("torchvision:squeezenet1_0")
    monkeypatch.setattr(generic, "torchvision_backbone", None)
    with pytest.raises(ValueError) as second:
        find_backbone("torchvision:squeezenet1_0")
    assert str(first.value) == str(second.value)


def test_looking_a_network_up_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    find_backbone("torchvision:shufflenet_v2_x1_0")
    check_image_size("torchvision:shufflenet_v2_x1_0", 64)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("image_size", [32, 64, 100])
def test_every_backbone_of_the_table_takes_images_of_any_usual_size(name, image_size):
    check_image_size(name, image_size)


@pytest.mark.parametrize(
    ("name", "image_size", "own_size"),
    [("densenet121", 16, 224), ("timm:test_maxvit", 64, 160)],
)
def test_an_image_size_that_does_not_fit_is_refused_with_the_one_that_does(
    name, image_size, own_size
):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError) as error:
        check_image_size(name, image_size)
    message = str(error.value)
    assert message.startswith(
        f"Backbone '{name}' can't take images of {image_size} x {image_size} pixels ("
    )
    assert f"its own size is {own_size} x {own_size}: give --image-size {own_size}" in message
    assert "\n" not in message
    check_image_size(name, own_size)


def test_pool_leaves_features_as_they_are():
    features_ND = torch.randn(2, 5)
    assert pool(features_ND) is features_ND


def test_pool_is_the_mean_over_pixels():
    activations_Nchw = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(pool(activations_Nchw), activations_Nchw.mean(dim=(2, 3)))


def test_head_runs_alone_on_pooled_features(images_N3hw):
    blocks = nn.Sequential(nn.Conv2d(3, 8, 3))
    network = TransferNetwork(blocks, num_features=8, num_classes=5, dropout=0.5).eval()
    logits_NC = network(images_N3hw)
    assert logits_NC.shape == (2, 5)
    assert torch.equal(network.head(pool(blocks(images_N3hw))), logits_NC)


def test_dropout_is_in_the_head_and_only_in_train_mode():
    network = TransferNetwork(nn.Sequential(), num_features=8, num_classes=5, dropout=0.5)
    features_ND = torch.ones(64, 8)
    assert network.train().head(features_ND).unique(dim=0).shape[0] > 1
    assert network.eval().head(features_ND).unique(dim=0).shape[0] == 1


def test_head_depends_on_the_global_seed_alone():
    def head_weight(seed: int, blocks: nn.Sequential) -> torch.Tensor:
        torch.manual_seed(seed)
        network = TransferNetwork(blocks, num_features=8, num_classes=5, dropout=0.1)
        return network.head[1].weight

    small, large = nn.Sequential(nn.Conv2d(3, 8, 1)), nn.Sequential(nn.Conv2d(3, 8, 7))
    assert torch.equal(head_weight(0, small), head_weight(0, large))
    assert not torch.equal(head_weight(0, small), head_weight(1, small))


@pytest.mark.parametrize(
    ("backbone", "num_layers", "expected"),
    [
        ("resnet18", 1, True),
        ("resnet18", 0, False),
        ("mobilenet_v2", BACKBONES["mobilenet_v2"].depth, True),
        ("convnext_tiny", BACKBONES["convnext_tiny"].depth, False),
        ("squeezenet1_1", BACKBONES["squeezenet1_1"].depth, False),
    ],
)
def test_it_is_known_which_backbones_have_batch_norm(backbone, num_layers, expected):
    assert has_batch_norm(backbone, num_layers) is expected
