"""Backbones as an ordered list of blocks, and the network that puts a transfer head on them.

Knows the layout of torchvision's networks. Knows neither where weights come from nor what is
frozen: `TransferNetwork` only keeps the promise that `freezing.freeze` makes about train mode.

Shapes: N images, C classes, D features, c channels, h x w pixels.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import (
    mobilenet_v2,
    resnet18,
    resnet50,
)
from torchvision.models.efficientnet import (
    EfficientNet,
    MBConv,
    MBConvConfig,
)

from transfer.catalog import backbone_spec

# (expansion, kernel, stride, input channels, output channels, blocks) of each stage, from Google's
# EfficientNet-Lite: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
EFFICIENTNET_LITE0_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


class TransferNetwork(nn.Module):
    """The blocks of a backbone, global average pooling and a new head: dropout, one linear layer.

    The head takes pooled features_ND, so it also runs alone on features computed earlier. Its
    initial weights depend on torch's global seed at construction and on nothing else. The first
    `num_frozen_blocks` blocks stay in eval mode whatever `train` is told.
    """

    def __init__(
        self, blocks: nn.Sequential, num_features: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
        self.num_frozen_blocks = 0

    def forward(self, images_N3hw: Tensor) -> Tensor:
        logits_NC: Tensor = self.head(pool(self.blocks(images_N3hw)))
        return logits_NC

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # BatchNorm's running statistics move in train mode even with requires_grad=False.
        for block in self.blocks[: self.num_frozen_blocks]:
            block.eval()
        return self


def pool(activations_Nchw: Tensor) -> Tensor:
    """Return the mean of every channel over all pixels: features_ND."""
    return F.adaptive_avg_pool2d(activations_Nchw, 1).flatten(1)


def original_network(name: str) -> nn.Module:
    """Return the original network with its ImageNet classifier and random weights."""
    return _architecture(name).build()


def split_into_blocks(name: str, network: nn.Module) -> nn.Sequential:
    """Return the blocks of an original network, input side first, sharing its parameters."""
    return nn.Sequential(*_architecture(name).split(network))


def original_head(name: str, network: nn.Module) -> nn.Module:
    """Return what follows the blocks in an original network: pooling and its classifier."""
    classifier = network.get_submodule(_architecture(name).classifier)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), classifier)


def block_tensors(name: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of an original network's blocks, by their names in it.

    The tensors share memory with the network; the classifier's are left out.
    """
    classifier = _architecture(name).classifier + "."
    state: dict[str, Tensor] = network.state_dict()
    return {key: tensor for key, tensor in state.items() if not key.startswith(classifier)}


class _SamePaddedConv2d(nn.Conv2d):
    """A convolution of stride 2 and odd kernel that pads like TensorFlow's 'SAME'.

    For even sizes TensorFlow pads one pixel less at the top and at the left than torchvision, so
    every output pixel looks at a place shifted by one. For odd sizes the two agree.
    """

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        after = self.kernel_size[0] // 2
        left, top = after - 1 + width % 2, after - 1 + height % 2
        padded = F.pad(input, (left, after, top, after))
        return F.conv2d(padded, self.weight, self.bias, stride=self.stride, groups=self.groups)


def _efficientnet_lite0() -> nn.Module:
    """Build EfficientNet-Lite0: B0 without squeeze-and-excitation, with ReLU6 for SiLU.

    The weights were trained in TensorFlow and want its padding: with torchvision's, at 224 x 224,
    the pooled features differ by 42 % and ImageNet predictions get worse.
    """
    block = partial(MBConv, se_layer=lambda *args, **kwargs: nn.Identity())
    network: nn.Module = EfficientNet(
        [MBConvConfig(*stage, block=block) for stage in EFFICIENTNET_LITE0_STAGES],
        dropout=0.2,
        stochastic_depth_prob=0.0,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),
    )
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SiLU):
                setattr(parent, name, nn.ReLU6(inplace=True))
            elif isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                setattr(parent, name, _same_padded(child))
    return network


def _same_padded(conv: nn.Conv2d) -> _SamePaddedConv2d:
    """Return `conv` with TensorFlow's padding, sharing its weight."""
    channels, kernel_size = (conv.in_channels, conv.out_channels), conv.kernel_size[0]
    same = _SamePaddedConv2d(*channels, kernel_size, stride=2, groups=conv.groups, bias=False)
    same.weight = conv.weight
    return same


def _split_resnet(network: nn.Module) -> list[nn.Module]:
    stem, stages = ("conv1", "bn1", "relu", "maxpool"), ("layer1", "layer2", "layer3", "layer4")
    blocks: list[nn.Module] = [nn.Sequential(*(network.get_submodule(name) for name in stem))]
    for stage in stages:
        blocks.extend(network.get_submodule(stage).children())
    return blocks


def _split_mobilenet(network: nn.Module) -> list[nn.Module]:
    return list(network.get_submodule("features").children())


def _split_efficientnet(network: nn.Module) -> list[nn.Module]:
    stem, *stages, last = network.get_submodule("features").children()
    return [stem, *(block for stage in stages for block in stage.children()), last]


class _Architecture(NamedTuple):
    build: Callable[[], nn.Module]
    split: Callable[[nn.Module], list[nn.Module]]
    classifier: str


_ARCHITECTURES = {
    "efficientnet_lite0": _Architecture(_efficientnet_lite0, _split_efficientnet, "classifier"),
    "mobilenet_v2": _Architecture(mobilenet_v2, _split_mobilenet, "classifier"),
    "resnet18": _Architecture(resnet18, _split_resnet, "fc"),
    "resnet50": _Architecture(resnet50, _split_resnet, "fc"),
}


def _architecture(name: str) -> _Architecture:
    return _ARCHITECTURES[backbone_spec(name).name]
