"""Backbones that are not in the table: any classification network of torchvision or timm.

Knows how the two libraries name and build their networks and where they keep weights. The rule
that cuts a network into layers is in `tracing`.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights, list_models

from transfer.backbones.catalog import BackboneSpec, Interpolation
from transfer.backbones.table import Backbone, on_meta
from transfer.backbones.tracing import Layers, size_that_agrees, trace_layers
from transfer.messages import did_you_mean, one_line

TORCHVISION = "torchvision:"
TIMM = "timm:"

# What torchvision's builders change where they are given weights.
_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": True},
    "inception_v3": {"transform_input": True, "init_weights": True},
    "vit_h_14": {"image_size": 518},
}


class UnknownBackboneError(ValueError):
    """No backbone has this name."""


class RefusedBackboneError(ValueError):
    """The network exists, and the rule can't cut it into layers."""


def torchvision_backbone(name: str) -> Backbone:
    """Return the torchvision network behind `torchvision:NAME`, cut into layers.

    Raises UnknownBackboneError, or RefusedBackboneError with the reason.
    """
    network = name.removeprefix(TORCHVISION)
    choices = list_models(module=torchvision.models)
    if network in list_models() and network not in choices:
        raise _refused(name, "it is no network for the classification of images")
    if network not in choices:
        close = did_you_mean(network, choices)
        raise UnknownBackboneError(
            f"Unknown backbone {name!r}; choose from torchvision:NAME with NAME from "
            f"torchvision.models.list_models(module=torchvision.models).{close}"
        )
    kinds = get_model_weights(network).__members__
    weights: WeightsEnum = kinds.get("IMAGENET1K_V1", kinds["DEFAULT"])
    transforms = weights.transforms()
    return _split(
        name,
        partial(get_model_builder(network), **_WITH_WEIGHTS.get(network, {})),
        native_size=transforms.crop_size[0],
        trace=trace_layers,
        imagenet_accuracy=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        url=weights.url,
    )


def timm_backbone(name: str) -> Backbone:
    """Return the timm network behind `timm:NAME`, cut into layers.

    Raises UnknownBackboneError, RefusedBackboneError with the reason, or ValueError without timm.
    """
    if importlib.util.find_spec("timm") is None:
        raise ValueError(
            f"Backbone {name!r} needs timm; pip install 'transfer-studies[timm]', "
            "or choose another backbone."
        )
    timm = _timm()
    network = name.removeprefix(TIMM)
    if network not in timm.list_models() and network not in timm.list_models(pretrained=True):
        close = did_you_mean(network.partition(".")[0], timm.list_models())
        raise UnknownBackboneError(
            f"Unknown backbone {name!r}; choose from timm:NAME with NAME from "
            f"timm.list_models() or timm.list_models(pretrained=True).{close}"
        )
    build = partial(_build_timm, network)
    settings = _described_by_timm(name, build)
    return _split(
        name,
        build,
        native_size=settings["input_size"][-1],
        trace=partial(
            trace_layers,
            leaves=timm.models.get_notrace_modules(),
            functions=timm.models.get_notrace_functions(),
        ),
        imagenet_accuracy=None,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
        url=settings.get("url") or None,
        hub=_hub(settings),
        code=f"timm {timm.__version__}",
        adapt=_adapt_timm,
    )


def _timm() -> Any:
    return importlib.import_module("timm")


def _build_timm(name: str) -> nn.Module:
    network: Any = _timm().create_model(name, pretrained=False)
    if network.num_classes == 0:  # trained without labels: the trunk alone has weights
        network.reset_classifier(1000)
    assert isinstance(network, nn.Module)
    return network


def _described_by_timm(name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
    """Return timm's `pretrained_cfg`: image size, normalisation and where the weights are."""
    try:
        network: Any = on_meta(build)
    except Exception as error:  # some networks need libraries of their own
        raise _refused(name, f"timm can't build it ({one_line(error)})") from error
    return dict(network.pretrained_cfg)


def _hub(settings: Mapping[str, Any]) -> tuple[str, str] | None:
    if not settings.get("hf_hub_id"):
        return None
    return str(settings["hf_hub_id"]), settings.get("hf_hub_filename") or "model.safetensors"


def _adapt_timm(tensors: Mapping[str, object], network: nn.Module) -> Mapping[str, object]:
    """Return tensors by the names of timm's network, where the file has those of its authors."""
    module = sys.modules[type(network).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", None)
    if adapt is None or tensors.keys() >= network.state_dict().keys():
        return tensors
    adapted: Mapping[str, object] = adapt(dict(tensors), network)
    return adapted


def _split(
    name: str,
    build: Callable[[], nn.Module],
    *,
    native_size: int,
    trace: Callable[..., Layers],
    imagenet_accuracy: float | None,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    interpolation: Interpolation,
    **places: Any,
) -> Backbone:
    """Cut a network into layers, see that they compute what it computes, and describe it."""
    if interpolation not in get_args(Interpolation):
        raise _refused(name, f"its images are resized by '{interpolation}' interpolation")
    try:
        layers = trace(build, native_size)
        # Weights are drawn, and a look at a name must not move the numbers of a study.
        with torch.random.fork_rng(devices=[]):
            network = build()
        image_size = size_that_agrees(network, layers, (64, native_size))
    except ValueError as error:
        raise _refused(name, str(error)) from error
    spec = BackboneSpec(
        name=name,
        depth=len(layers.graphs),
        num_features=layers.num_features,
        num_parameters=_num_parameters(layers, network),
        gmacs=round(layers.gmacs, 3),
        imagenet_accuracy=imagenet_accuracy,
        mean=mean,
        std=std,
        interpolation=interpolation,
    )
    return Backbone(
        spec=spec,
        build=build,
        split=layers.blocks_of,
        head=layers.head_of,
        image_size=image_size,
        native_size=native_size,
        **places,
    )


def _num_parameters(layers: Layers, network: nn.Module) -> int:
    """Return how many numbers the layers and the head have; auxiliary classifiers don't count."""
    parts = nn.ModuleList([*layers.blocks_of(network), layers.head_of(network)])
    return sum(parameter.numel() for parameter in parts.parameters())


def _refused(name: str, reason: str) -> RefusedBackboneError:
    return RefusedBackboneError(
        f"Backbone {name!r} can't be cut into layers: {reason}; choose another backbone, "
        "or give its blocks in a file of your own (--backbone-module)."
    )
