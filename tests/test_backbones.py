"""Blocks are the original network cut into pieces: nothing lost, nothing doubled, nothing changed.

Shapes: N images, C classes, D features, c channels, h x w pixels.
"""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation

from transfer.backbones import (
    TransferNetwork,
    block_tensors,
    original_head,
    original_network,
    pool,
    split_into_blocks,
)
from transfer.catalog import BACKBONES


@pytest.fixture(scope="module", params=BACKBONES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    torch.manual_seed(0)
    return original_network(name).eval()


@pytest.fixture(scope="module")
def blocks(name, network):
    return split_into_blocks(name, network)


@pytest.fixture
def images_N3hw():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def tensorflow_convolution(conv: nn.Conv2d, inputs_Nchw: torch.Tensor) -> torch.Tensor:
    """'SAME' as TensorFlow documents it: size / stride outputs, the odd pixel after the image."""
    pads = []
    for size, kernel, stride in zip(
        reversed(inputs_Nchw.shape[2:]), conv.kernel_size, conv.stride, strict=True
    ):
        total = max(kernel - (size % stride or stride), 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(inputs_Nchw, pads), conv.weight, stride=conv.stride, groups=conv.groups)


@torch.inference_mode()
def test_blocks_and_original_head_give_the_original_logits(name, network, blocks, images_N3hw):
    logits_NC = network(images_N3hw)
    assert torch.equal(original_head(name, network)(blocks(images_N3hw)), logits_NC)
    assert not torch.equal(logits_NC[0], logits_NC[1])


def test_blocks_hold_every_parameter_but_the_classifiers_exactly_once(name, network, blocks):
    held = Counter(id(parameter) for block in blocks for parameter in block.parameters())
    classifier = {id(parameter) for parameter in original_head(name, network).parameters()}
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


def test_unknown_backbone_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"Unknown backbone 'vgg16'; choose from .*resnet50"):
        original_network("vgg16")


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


@pytest.mark.parametrize("size", [32, 33, 34, 7, 2, 1])
def test_efficientnet_lite0_pads_every_stride_like_tensorflow(size):
    network = original_network("efficientnet_lite0")
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [conv.kernel_size[0] for conv in strided] == [3, 3, 5, 3, 5]
    for conv in strided:
        inputs_Nchw = torch.randn(1, conv.in_channels, size, size + 1)
        assert torch.equal(conv(inputs_Nchw), tensorflow_convolution(conv, inputs_Nchw))


def test_efficientnet_lite0_has_neither_silu_nor_squeeze_and_excitation():
    modules = list(original_network("efficientnet_lite0").modules())
    assert not any(isinstance(module, nn.SiLU | SqueezeExcitation) for module in modules)
    # Stem and last convolution, one in the first block, two in each of the other fifteen.
    assert sum(isinstance(module, nn.ReLU6) for module in modules) == 2 + 1 + 2 * 15
