"""MedMNIST by name: medmnist:NAME[@SIZE], found in its folder or downloaded by its package.

Knows the package's table and file names. A file is believed only when its MD5 is the table's.
"""

import hashlib
import importlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer.data.sources.arrays import open_npz
from transfer.data.sources.items import Source

DEFAULT_SIZE = 28
Info = Mapping[str, Any]


def open_medmnist(text: str) -> Source:
    """The source ``medmnist:NAME[@SIZE]``.

    Raises:
        ValueError: package missing, unknown name or size, a set that is no classification of
            pictures, a file that can't be had or is not the one that MedMNIST published.
    """
    name, _, size_text = text.removeprefix("medmnist:").partition("@")
    package = _package()
    info = _info(package.INFO, name)
    suffix = _suffix(info, name, size_text)
    path = medmnist_folder() / f"{name}{suffix}.npz"
    if not path.is_file():
        _download(package, info, suffix, path)
    found, expected = _md5(path), info[f"MD5{suffix}"]
    if found != expected:
        raise ValueError(
            f"{path} is not the file that MedMNIST published (its MD5 is {found}, not {expected});"
            f" delete it to have it downloaded again, or use it as it is: --data {path}"
        )
    labels = sorted(info["label"], key=int)
    return open_npz(
        path,
        text=text,
        name=f"{name}{suffix}",
        kind="medmnist",
        class_names=[info["label"][label] for label in labels],
    )


def medmnist_folder() -> Path:
    """Where MedMNIST's files are: MEDMNIST_DIR, else the package's own choice, ~/.medmnist."""
    given = os.environ.get("MEDMNIST_DIR")
    return Path(given).expanduser() if given else Path.home() / ".medmnist"


def _package() -> Any:
    try:
        # Not at the top: it is an extra, and it loads torch.
        return importlib.import_module("medmnist")
    except ImportError:
        raise ValueError(
            "medmnist:NAME needs the package medmnist: pip install 'transfer-studies[medmnist]'"
        ) from None


def _info(infos: Mapping[str, Info], name: str) -> Info:
    """The table's entry of this name; refuses what is no classification of pictures."""
    usable = {key: info for key, info in infos.items() if not _obstacle(key, info)}
    choices = f"choose from {', '.join(sorted(usable))}."
    if name not in infos:
        raise ValueError(f"Unknown MedMNIST set '{name}'; {choices}")
    obstacle = _obstacle(name, infos[name])
    if obstacle:
        raise ValueError(f"medmnist:{name} can't be studied: {obstacle}; {choices}")
    return infos[name]


def _obstacle(name: str, info: Info) -> str:
    if name.endswith("3d"):
        return "it holds volumes (3-D), and the backbones take pictures"
    if "multi-label" in info["task"]:
        return "it is multi-label, and a study needs one class for each image"
    return ""


def _suffix(info: Info, name: str, size_text: str) -> str:
    """What the size adds to file names and keys: nothing at 28 pixels, else _SIZE."""
    suffixes = {"28": "", **{key[4:]: key[3:] for key in info if key.startswith("url_")}}
    if (size_text or str(DEFAULT_SIZE)) not in suffixes:
        raise ValueError(
            f"Unknown size '{size_text}' of medmnist:{name}; choose from {', '.join(suffixes)}."
        )
    return suffixes[size_text or str(DEFAULT_SIZE)]


def _download(package: Any, info: Info, suffix: str, path: Path) -> None:
    """Let the package download the file beside its place, and move it there when it is whole."""
    url = info[f"url{suffix}"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            fetch = getattr(package, info["python_class"])
            size = int(suffix.removeprefix("_") or DEFAULT_SIZE)
            fetch(split="train", download=True, root=folder, size=size)
            downloaded = Path(folder) / path.name
            if _md5(downloaded) != info[f"MD5{suffix}"]:
                raise OSError("what arrived has another MD5")
            os.replace(downloaded, path)
    except Exception as error:
        # The package catches everything, Ctrl-C too, and raises an essay.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise ValueError(
            f"{path} is not there and its download failed; get it from {url} and put it at {path}"
        ) from None


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
