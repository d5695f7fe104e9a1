"""Read a weight file as data only and copy it into a network, every tensor checked.

Knows the names of tensors in weight files; not where files come from.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from transfer.backbones.find import block_tensors, find_backbone
from transfer.backbones.table import EFFICIENTNET_LITE0_STAGES
from transfer.messages import one_line

_CLASSIFIERS = ("fc.", "classifier.", "head.")
# Names in files of torchvision's server that are older than the network's.
_OLDER_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\."), r"\1\2."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def copy_weights(
    path: Path, backbone: str, network: nn.Module, *, names_fit: bool = False
) -> None:
    """Copy the tensors of a file into the blocks of an original network, every one checked.

    Tensors of the network that are in none of its blocks, its classifier's say, may be missing
    or of any shape. With `names_fit` the file's names are the network's own, to be taken as they
    are. Raises ValueError that names the file and the reason.
    """
    loaded = _read(path) if names_fit else _adapted(path, backbone, network)
    expected = block_tensors(backbone, network)
    # Files older than 2018 lack BatchNorm's step counter, which nothing reads.
    missing = {key for key in expected if not key.endswith("num_batches_tracked")} - set(loaded)
    unknown = {key for key in loaded if not key.startswith(_CLASSIFIERS)}
    unknown -= set(network.state_dict())
    reasons = [f"key {key!r} is missing" for key in sorted(missing)]
    reasons += [f"key {key!r} is unknown" for key in sorted(unknown)]
    for key, tensor in expected.items():
        if key in loaded and (reason := _copy(loaded[key], tensor)) is not None:
            reasons.append(f"key {key!r} {reason}")
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ValueError(
            f"Weights file {path} does not fit backbone {backbone!r}: {reasons[0]}{more}; "
            "replace it, or rename it to the backbone it belongs to."
        )


def _adapted(path: Path, backbone: str, network: nn.Module) -> Mapping[str, object]:
    """Return what a file holds by the names of the network's tensors."""
    lite_names = _lite_names()
    renamed = {_current_name(key, lite_names): value for key, value in _read(path).items()}
    try:
        return find_backbone(backbone).adapt(renamed, network)
    except Exception as error:  # the library's own code, which may meet anything here
        raise ValueError(
            f"Weights file {path} does not fit backbone {backbone!r} ({one_line(error)}); "
            "replace it, or rename it to the backbone it belongs to."
        ) from error


def _copy(loaded: object, expected: Tensor) -> str | None:
    """Copy `loaded` into `expected`, or return the reason why it can't be."""
    if not isinstance(loaded, Tensor):
        return f"holds a {type(loaded).__name__}, not a tensor"
    if loaded.layout != torch.strided or loaded.is_nested or loaded.is_meta:
        return "is not a plain dense tensor"
    if loaded.shape != expected.shape:
        return f"has shape {tuple(loaded.shape)}, expected {tuple(expected.shape)}"
    if loaded.is_floating_point() != expected.is_floating_point():
        return f"has type {loaded.dtype}, expected {expected.dtype}"
    expected.copy_(loaded)
    return None if torch.isfinite(expected).all() else "holds values that are not finite"


def _read(path: Path) -> Mapping[str, object]:
    """Read a file of tensors by name as data: nothing in it can run."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path, device="cpu")
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(
            f"Weights file {path} can't be read as data ({one_line(error)}); replace or delete it."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"Weights file {path} holds no tensors by name; save a state_dict in it.")
    return content


def _lite_names() -> dict[str, str]:
    """Return torchvision's name for each layer in EfficientNet-Lite's own files.

    In a block torchvision counts expansion (0), depthwise convolution (1), squeeze-and-excitation
    (2, which the Lite networks go without) and projection (3), and in each of them convolution (0)
    and BatchNorm (1). The very first block doesn't expand, so its layers count one less.
    """
    names = {"_conv_stem": "features.0.0", "_bn0": "features.0.1"}
    blocks = [
        f"features.{stage}.{block}.block"
        for stage, (*_, num_blocks) in enumerate(EFFICIENTNET_LITE0_STAGES, start=1)
        for block in range(num_blocks)
    ]
    layers = {"_expand_conv": 0, "_depthwise_conv": 1, "_project_conv": 3}
    for index, block in enumerate(blocks):
        for norm, (layer, position) in enumerate(layers.items()):
            place = f"{block}.{position - (index == 0)}"
            names[f"_blocks.{index}.{layer}"] = f"{place}.0"
            names[f"_blocks.{index}._bn{norm}"] = f"{place}.1"
    last = f"features.{len(EFFICIENTNET_LITE0_STAGES) + 1}"
    return names | {"_conv_head": f"{last}.0", "_bn1": f"{last}.1", "_fc": "classifier.1"}


def _current_name(key: str, lite_names: Mapping[str, str]) -> str:
    """Return the name that a network of today has for a tensor."""
    for older, current in _OLDER_NAMES:
        key = older.sub(current, key)
    layer, _, tensor = key.rpartition(".")
    return f"{lite_names[layer]}.{tensor}" if layer in lite_names else key
