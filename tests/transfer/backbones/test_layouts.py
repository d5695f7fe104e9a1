"""The layouts of the table in particular, and what every block promises.

Shapes: N images, c channels, h x w pixels.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation

from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import find_backbone, split_into_blocks
from transfer.backbones.table import TABLE, on_meta, run_blocks


def test_the_table_describes_the_same_backbones_as_the_catalog():
    assert {name: backbone.spec for name, backbone in TABLE.items()} == BACKBONES


@pytest.mark.parametrize(
    ("name", "index", "kinds"),
    [
        ("densenet121", 0, ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]),
        ("densenet121", 1, ["_DenseLayer"]),
        ("densenet121", 7, ["BatchNorm2d", "ReLU", "Conv2d", "AvgPool2d"]),
        ("densenet121", -1, ["BatchNorm2d", "ReLU"]),
        ("convnext_tiny", 3, ["Sequential", "StochasticDepth"]),
        ("convnext_tiny", 4, ["Sequential", "CNBlock"]),
        ("convnext_tiny", -1, ["CNBlock", "AdaptiveAvgPool2d", "LayerNorm2d", "Flatten"]),
        ("squeezenet1_1", 0, ["Conv2d", "ReLU", "MaxPool2d"]),
        ("squeezenet1_1", 3, ["MaxPool2d", "Fire"]),
    ],
)
def test_a_block_is_made_of(name, index, kinds):
    block = split_into_blocks(name, find_backbone(name).build())[index]
    assert [type(part).__name__ for part in block.children()] == kinds


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large", "convnext_tiny"])
def test_pretrained_parts_of_the_head_belong_to_the_last_block(name):
    with torch.device("meta"):
        blocks = split_into_blocks(name, find_backbone(name).build()).eval()
        features_ND = blocks(torch.empty(2, 3, 64, 64))
    assert features_ND.shape == (2, BACKBONES[name].num_features)


class Scaled(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda x: x.mul_(2), "block 1 writes into its input"),
        (lambda x: (x, x), "block 1 gives tuple, not one float tensor"),
        (lambda x: x > 0, "block 1 gives Tensor, not one float tensor"),
        (lambda x: x.mean(0), r"block 1 gives shape \(3, 8, 8\) for 2 images"),
        (lambda x: x.sum(), r"block 1 gives shape \(\) for 2 images"),
        (lambda x: x.flatten(2), r"the last block gives shape \(2, 3, 64\), not ND or NDhw"),
    ],
)
def test_a_block_that_breaks_its_promise_is_named(how, reason):
    blocks = [Scaled(lambda x: x + 1), Scaled(how)]
    with pytest.raises(ValueError, match=reason):
        run_blocks(blocks, torch.ones(2, 3, 8, 8))


def test_blocks_run_one_after_the_other():
    blocks = [Scaled(lambda x: x + 1), Scaled(lambda x: x * 2)]
    assert torch.equal(run_blocks(blocks, torch.ones(2, 3, 8, 8)), torch.full((2, 3, 8, 8), 4.0))


def test_a_network_without_memory_is_built_even_if_its_builder_reads_values():
    def build():
        return nn.Linear(3, int(torch.ones(4).sum().item()))

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert on_meta(build).weight.is_meta
    assert torch.equal(torch.get_rng_state(), before)


def tensorflow_convolution(conv: nn.Conv2d, inputs_Nchw: torch.Tensor) -> torch.Tensor:
    """'SAME' as TensorFlow documents it: size / stride outputs, the odd pixel after the image."""
    pads = []
    for size, kernel, stride in zip(
        reversed(inputs_Nchw.shape[2:]), conv.kernel_size, conv.stride, strict=True
    ):
        total = max(kernel - (size % stride or stride), 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(inputs_Nchw, pads), conv.weight, stride=conv.stride, groups=conv.groups)


@pytest.mark.parametrize("size", [32, 33, 34, 7, 2, 1])
def test_efficientnet_lite0_pads_every_stride_like_tensorflow(size):
    network = find_backbone("efficientnet_lite0").build()
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [conv.kernel_size[0] for conv in strided] == [3, 3, 5, 3, 5]
    for conv in strided:
        inputs_Nchw = torch.randn(1, conv.in_channels, size, size + 1)
        assert torch.equal(conv(inputs_Nchw), tensorflow_convolution(conv, inputs_Nchw))


def test_efficientnet_lite0_has_neither_silu_nor_squeeze_and_excitation():
    modules = list(find_backbone("efficientnet_lite0").build().modules())
    assert not any(isinstance(module, nn.SiLU | SqueezeExcitation) for module in modules)
    # Stem and last convolution, one in the first block, two in each of the other fifteen.
    assert sum(isinstance(module, nn.ReLU6) for module in modules) == 2 + 1 + 2 * 15
