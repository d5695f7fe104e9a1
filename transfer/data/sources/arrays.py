"""Arrays of images: an .npz file with MedMNIST's keys, or a folder of .npy files, one a class.

Reads headers and labels; pixels when they are asked for. Never unpickles anything.

N images of H x W pixels, of uint8 or uint16: (N, H, W), or (N, H, W, 3) in colour.
"""

import functools
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import decode_array, encode_array
from transfer.data.sources.items import Items, Kind, Labels, Source, SplitName, short_name

ASSUMED_MEMORY_BYTES = 8 * 2**30
TEST_PREFIX = "test_"
KEYS = tuple(f"{split}_{x}" for split in ("train", "val", "test") for x in ("images", "labels"))
# RuntimeError: encrypted, or packed in a way that zipfile does not know.
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Header(NamedTuple):
    """What an array says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def array_items(
    split: str, images: NDArray[Any] | Callable[[], NDArray[Any]], labels_N: Labels
) -> Items:
    """The images of an array, or of one that is loaded when the first image is asked for."""
    load = images if callable(images) else lambda: images
    return Items(
        names=tuple(f"{split}/{i:05d}" for i in range(len(labels_N))),
        labels_N=labels_N,
        read=lambda i: encode_array(load()[i]),
        decode=decode_array,
    )


def open_npz(
    path: Path,
    *,
    text: str | None = None,
    name: str | None = None,
    kind: Kind = "npz",
    class_names: Sequence[str] | None = None,
) -> Source:
    """The source of an .npz file. Without ``class_names`` the labels' numbers are the names.

    Raises:
        ValueError: damaged, too large for the memory, keys missing, or arrays of another kind.
    """
    headers = _headers(path)
    splits: dict[SplitName, Items] = {}
    labels = {split: _labels(path, headers, split) for split in _given_splits(path, headers)}
    numbers = sorted(set(np.concatenate(list(labels.values())).tolist()))
    if class_names is not None and not set(numbers) <= set(range(len(class_names))):
        raise ValueError(
            f"{path} has labels {numbers[0]} to {numbers[-1]}, but its {len(class_names)} classes "
            f"are numbered 0 to {len(class_names) - 1}."
        )
    numbers = numbers if class_names is None else list(range(len(class_names)))
    for split, labels_N in labels.items():
        images = functools.cache(functools.partial(_load, path, f"{split}_images"))
        split_name: SplitName = split if "test" in labels else "all"
        splits[split_name] = array_items(split, images, np.searchsorted(numbers, labels_N))
    return Source(
        text=text or str(path.resolve()),
        name=name or short_name(path.stem),
        kind=kind,
        classes=tuple(class_names or map(str, numbers)),
        splits=splits,
    )


def _headers(path: Path) -> dict[str, Header]:
    """The header of every array in the file; refuses what would not fit into the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            num_bytes, limit = sum(m.file_size for m in members), available_memory_bytes() // 2
            if num_bytes > limit:
                raise _TooLargeError(
                    f"{path} unpacks to {num_bytes / 1e6:,.0f} MB, but at most half of the "
                    f"available memory, {limit / 1e6:,.0f} MB, may be used; use a machine with "
                    "more, or a folder of .npy files, which stay on the disk."
                )
            arrays = {m.filename.removesuffix(".npy"): m for m in members}
            return {key: _header(archive, arrays[key]) for key in KEYS if key in arrays}
    except _TooLargeError as error:
        raise ValueError(str(error)) from None
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged or no .npz file ({_reason(error)}).") from None


class _TooLargeError(Exception):
    """Unpacked, the file would not fit into the memory."""


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        if not dtype.hasobject and stream.tell() + _num_bytes(shape, dtype) != member.file_size:
            raise ValueError(f"{member.filename} has another length than its header says")
    return Header(shape, dtype)


def _num_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def available_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """What can be had without swapping; where nothing tells, all memory there is, or 8 GiB."""
    try:
        if meminfo.is_file():
            lines = meminfo.read_text(encoding="ascii").splitlines()
            return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, StopIteration):
        return ASSUMED_MEMORY_BYTES


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _given_splits(path: Path, headers: dict[str, Header]) -> list[SplitName]:
    """The splits in the file, complete and with as many labels as images."""
    names: tuple[SplitName, ...] = ("train", "val", "test")
    given = [s for s in names if f"{s}_images" in headers or f"{s}_labels" in headers]
    if "train" not in given or given == ["train", "val"]:
        raise ValueError(
            f"{path} must hold train_images and train_labels, and either test_images and "
            "test_labels (val_images and val_labels may be left out) or no other split, has "
            f"{', '.join(headers) or 'nothing'}."
        )
    for split in given:
        for key in (f"{split}_images", f"{split}_labels"):
            if key not in headers:
                raise ValueError(f"{path} has no {key}; each split needs images and labels.")
        _check_images(f"{path}: {split}_images", headers[f"{split}_images"])
        num_images, num_labels = (headers[f"{split}_{x}"].shape[0] for x in ("images", "labels"))
        if num_images != num_labels:
            raise ValueError(
                f"{path}: {split} has {num_images} images and {num_labels} labels; each image "
                "needs one label."
            )
    return given


def _check_images(what: str, header: Header) -> None:
    shape, dtype = header
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise ValueError(f"{what} must be of uint8 or uint16, but is of {dtype}; convert it.")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or 0 in shape:
        raise ValueError(
            f"{what} must have the shape (N, H, W) or (N, H, W, 3), none of them 0, "
            f"but has {shape}."
        )


def _labels(path: Path, headers: dict[str, Header], split: SplitName) -> Labels:
    """The labels of a split as they stand in the file, (N,)."""
    key = f"{split}_labels"
    shape, dtype = headers[key]
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"{path}: {key} has the shape {shape}, several labels for an image; a study needs "
            "one class for each image."
        )
    if dtype.kind not in "iu" or len(shape) not in (1, 2):
        raise ValueError(
            f"{path}: {key} must be integers of shape (N,) or (N, 1), but is {dtype} of {shape}."
        )
    return _load(path, key).reshape(-1).astype(np.int64)


def _load(path: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[key]
    except _DAMAGE as error:
        raise ValueError(f"{path}: {key} is damaged ({_reason(error)}).") from None
    return array


def open_npy_folder(folder: Path) -> Source:
    """The source of a folder of NAME.npy and, for all classes or for none, test_NAME.npy.

    Raises:
        ValueError: a file is missing, damaged, or of another kind.
    """
    files = {path.stem: path for path in folder.glob("*.npy") if not path.name.startswith(".")}
    test = {stem.removeprefix(TEST_PREFIX) for stem in files if stem.startswith(TEST_PREFIX)}
    classes = sorted(stem for stem in files if not stem.startswith(TEST_PREFIX))
    if test:
        missing = [f"{name}.npy" for name in sorted(test.difference(classes))]
        missing += [f"{TEST_PREFIX}{name}.npy" for name in classes if name not in test]
        if missing:
            raise ValueError(
                f"{folder} lacks {', '.join(missing)}; every class needs NAME.npy and "
                "test_NAME.npy, or none has a test_ file and the splits are made."
            )
    splits: dict[SplitName, Items] = {}
    splits["train" if test else "all"] = _npy_items([files[name] for name in classes], classes)
    if test:
        splits["test"] = _npy_items([files[TEST_PREFIX + name] for name in classes], classes)
    return Source(
        text=str(folder.resolve()),
        name=short_name(folder.resolve().name),
        kind="npy folder",
        classes=tuple(classes),
        splits=splits,
    )


def _npy_items(paths: Sequence[Path], classes: Sequence[str]) -> Items:
    arrays = [_memory_mapped(path) for path in paths]
    where = [(array, i) for array in arrays for i in range(len(array))]
    return Items(
        names=tuple(
            f"{path.name}/{i:05d}"
            for path, array in zip(paths, arrays, strict=True)
            for i in range(len(array))
        ),
        labels_N=np.repeat(
            np.arange(len(classes), dtype=np.int64), [len(array) for array in arrays]
        ),
        read=lambda i: encode_array(where[i][0][where[i][1]]),
        decode=decode_array,
    )


def _memory_mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged or no array ({_reason(error)}).") from None
    _check_images(str(path), Header(array.shape, array.dtype))
    return array
