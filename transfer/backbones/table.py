"""A backbone as a value, and how each network of the table falls into blocks.

Knows the layout of torchvision's networks. Knows neither where weights are found nor what is
frozen nor what a name stands for: `find.find_backbone` does.

Shapes: N images, D features, c channels, h x w pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models.convnext import CNBlock
from torchvision.models.efficientnet import (
    EfficientNet,
    MBConv,
    MBConvConfig,
)

from transfer.backbones.catalog import BACKBONES, BackboneSpec

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

Adapt = Callable[[Mapping[str, object], nn.Module], Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network and how it falls into blocks: all that is needed to build it and to load it.

    `build` gives the original network with random weights, `split` its blocks, input side first,
    and `head` what follows them; both share its parameters. `image_size` is one, in pixels, at
    which it is known to run, `native_size` the one its weights were trained at. `url` and `hub`
    (repository, file name) say where its weights can be had. `adapt` turns the tensors of a file
    into the network's names. `is_own` marks a network that brings its weights with it. `code`
    names what computes it, with its version: other code may give other numbers for equal weights.
    """

    spec: BackboneSpec
    build: Callable[[], nn.Module]
    split: Callable[[nn.Module], list[nn.Module]]
    head: Callable[[nn.Module], nn.Module]
    image_size: int = 64
    native_size: int = 224
    url: str | None = None
    hub: tuple[str, str] | None = None
    adapt: Adapt = lambda tensors, network: tensors
    is_own: bool = False
    code: str = f"torchvision {torchvision.__version__}"


def run_blocks(blocks: list[nn.Module], images_N3hw: Tensor) -> Tensor:
    """Return the last block's output, (N, D) or (N, D, h, w), and check what blocks promise.

    Raises ValueError with the reason if a block gives anything but one floating tensor of N
    rows, or writes into its input.
    """
    outputs: Tensor = images_N3hw
    for index, block in enumerate(blocks):
        inputs, before = outputs, outputs.clone()
        outputs = block(inputs)
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            raise ValueError(f"block {index} gives {type(outputs).__name__}, not one float tensor")
        if outputs.ndim < 2 or len(outputs) != len(images_N3hw):
            shape = tuple(outputs.shape)
            raise ValueError(f"block {index} gives shape {shape} for {len(images_N3hw)} images")
        if not inputs.is_meta and not torch.equal(inputs, before):
            raise ValueError(f"block {index} writes into its input")
    if outputs.ndim not in (2, 4):
        raise ValueError(f"the last block gives shape {tuple(outputs.shape)}, not ND or NDhw")
    return outputs


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network in eval mode without memory for its tensors: shapes alone."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                network = build()
        except Exception:  # a builder that reads values of its tensors can't do so there
            network = build().to("meta")
    return network.eval()


class SamePaddedConv2d(nn.Conv2d):
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


def _same_padded(conv: nn.Conv2d) -> SamePaddedConv2d:
    """Return `conv` with TensorFlow's padding, sharing its weight."""
    channels, kernel_size = (conv.in_channels, conv.out_channels), conv.kernel_size[0]
    same = SamePaddedConv2d(*channels, kernel_size, stride=2, groups=conv.groups, bias=False)
    same.weight = conv.weight
    return same


class _Dense(nn.Module):
    """One layer of a DenseNet: its new channels behind those it was given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs_Nchw: Tensor) -> Tensor:
        return torch.cat([inputs_Nchw, self.layer(inputs_Nchw)], dim=1)


def _parts(network: nn.Module, names: str) -> list[nn.Module]:
    return [network.get_submodule(name) for name in names.split()]


def _split_resnet(network: nn.Module) -> list[nn.Module]:
    stem = nn.Sequential(*_parts(network, "conv1 bn1 relu maxpool"))
    stages = _parts(network, "layer1 layer2 layer3 layer4")
    return [stem, *(block for stage in stages for block in stage.children())]


def _split_mobilenet_v2(network: nn.Module) -> list[nn.Module]:
    return list(network.get_submodule("features").children())


def _split_mobilenet_v3(network: nn.Module) -> list[nn.Module]:
    """Its hidden linear layer is pretrained and belongs to the last block, pooled features too."""
    *blocks, last = network.get_submodule("features").children()
    avgpool, linear, hardswish = _parts(network, "avgpool classifier.0 classifier.1")
    return [*blocks, nn.Sequential(last, avgpool, nn.Flatten(1), linear, hardswish)]


def _split_efficientnet(network: nn.Module) -> list[nn.Module]:
    stem, *stages, last = network.get_submodule("features").children()
    return [stem, *(block for stage in stages for block in stage.children()), last]


def _split_densenet(network: nn.Module) -> list[nn.Module]:
    *stem, norm5 = network.get_submodule("features").named_children()
    blocks: list[nn.Module] = [nn.Sequential(*(module for _, module in stem[:4]))]
    for name, stage in stem[4:]:
        is_dense = name.startswith("denseblock")
        blocks.extend(map(_Dense, stage.children()) if is_dense else [stage])
    return [*blocks, nn.Sequential(norm5[1], nn.ReLU(inplace=True))]


def _split_convnext(network: nn.Module) -> list[nn.Module]:
    """Downsampling belongs to the block that follows, the LayerNorm of the head to the last."""
    stem, *stages = network.get_submodule("features").children()
    flat: list[nn.Module] = []
    for stage in stages:
        first, *_ = stage.children()
        flat.extend(stage.children() if isinstance(first, CNBlock) else [stage])
    *blocks, last = _joined(flat, nn.Sequential)
    pooling = _parts(network, "avgpool classifier.0 classifier.1")
    return [stem, *blocks, nn.Sequential(last, *pooling)]


def _split_squeezenet(network: nn.Module) -> list[nn.Module]:
    """Pooling belongs to the stem, and later on to the Fire module that follows."""
    conv, relu, pooling, *rest = network.get_submodule("features").children()
    return [nn.Sequential(conv, relu, pooling), *_joined(rest, nn.MaxPool2d)]


def _joined(modules: list[nn.Module], opening: type[nn.Module]) -> list[nn.Module]:
    """Return the modules, each one of type `opening` made one with the module behind it."""
    blocks: list[nn.Module] = []
    opened: list[nn.Module] = []
    for module in modules:
        if isinstance(module, opening):
            opened.append(module)
        else:
            blocks.append(nn.Sequential(*opened, module) if opened else module)
            opened = []
    return blocks


def _pooled_head(network: nn.Module, names: str) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *_parts(network, names))


def _flat_head(network: nn.Module, names: str) -> nn.Module:
    return nn.Sequential(*_parts(network, names))


def _squeezenet_head(network: nn.Module) -> nn.Module:
    """Its classifier is a convolution, which the transfer head replaces."""
    return nn.Sequential(network.get_submodule("classifier"), nn.Flatten(1))


Split = Callable[[nn.Module], list[nn.Module]]
Head = Callable[[nn.Module], nn.Module]


def _row(name: str, split: Split, head: Head) -> Backbone:
    """Return a network of torchvision with its IMAGENET1K_V1 weights."""
    url: str = get_model_weights(name).IMAGENET1K_V1.url
    build = get_model_builder(name)
    return Backbone(spec=BACKBONES[name], build=build, split=split, head=head, url=url)


_FC = partial(_pooled_head, names="fc")
_CLASSIFIER = partial(_pooled_head, names="classifier")
_V3_CLASSIFIER = partial(_flat_head, names="classifier.2 classifier.3")
_CONVNEXT_CLASSIFIER = partial(_flat_head, names="classifier.2")

TABLE: dict[str, Backbone] = {
    "efficientnet_lite0": Backbone(
        spec=BACKBONES["efficientnet_lite0"],
        build=_efficientnet_lite0,
        split=_split_efficientnet,
        head=_CLASSIFIER,
    ),
    "resnet18": _row("resnet18", _split_resnet, _FC),
    "resnet34": _row("resnet34", _split_resnet, _FC),
    "resnet50": _row("resnet50", _split_resnet, _FC),
    "mobilenet_v2": _row("mobilenet_v2", _split_mobilenet_v2, _CLASSIFIER),
    "mobilenet_v3_small": _row("mobilenet_v3_small", _split_mobilenet_v3, _V3_CLASSIFIER),
    "mobilenet_v3_large": _row("mobilenet_v3_large", _split_mobilenet_v3, _V3_CLASSIFIER),
    "efficientnet_b0": _row("efficientnet_b0", _split_efficientnet, _CLASSIFIER),
    "densenet121": _row("densenet121", _split_densenet, _CLASSIFIER),
    "convnext_tiny": _row("convnext_tiny", _split_convnext, _CONVNEXT_CLASSIFIER),
    "squeezenet1_1": _row("squeezenet1_1", _split_squeezenet, _squeezenet_head),
}
