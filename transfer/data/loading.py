"""Load a data set for a study: training and validation images; of the test split only hashes.

The test split stays sealed: its files are opened here to be validated and hashed, and neither a
pixel nor the label of one image leaves this module.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import Pixels
from transfer.data.sources import Items, Source
from transfer.data.splits import stratified_split
from transfer.data.store import OnProgress, open_store, pixel_digests


@dataclass(frozen=True, kw_only=True)
class Split:
    """Some of the images: ``positions_N`` in the data set, and their labels in [0, C)."""

    positions_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions_N)


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Training and validation images at one size, in an order that depends on their pixels alone.

    ``pixels_fingerprint`` names the images in their order, ``fingerprint`` also their labels and
    given splits, ``test_fingerprint`` the sealed test images and labels.
    """

    images_NHWC: Pixels
    rows_N: NDArray[np.int64]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    train: Split
    val: Split
    counts: dict[str, dict[str, int]]
    pixels_fingerprint: str
    fingerprint: str
    test_fingerprint: str

    @property
    def image_size(self) -> int:
        return int(self.images_NHWC.shape[1])

    def __len__(self) -> int:
        return len(self.rows_N)

    def images(self, positions: NDArray[np.int64]) -> Pixels:
        """The images at ``positions``: (B, H, W, C), uint8."""
        return np.asarray(self.images_NHWC[self.rows_N[positions]])


def load_data(
    source: Source,
    *,
    image_size: int,
    seed: int,
    cache_dir: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> ImageData:
    """Decode (or find decoded) the training and validation images and check the test images.

    Raises:
        ValueError: unreadable images, or a class too small to be split.
    """
    pool = _joined([source.splits[name] for name in ("train", "val") if name in source.splits])
    store = open_store(pool, image_size, cache_dir, on_progress)
    test = source.splits["test"]
    test_digests = pixel_digests(test, cache_dir, on_progress)
    # Sorting by pixels makes split and batches the same however the files are named or packed.
    rows = np.array(
        sorted(range(len(pool)), key=lambda i: (store.digests[i], pool.labels_N[i], pool.names[i]))
    )
    labels = pool.labels_N[rows]
    if "val" in source.splits:
        is_val = rows >= len(source.splits["train"])
        train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    else:
        train, val = stratified_split(labels, seed)
        is_val = np.zeros(len(rows), dtype=bool)
    digests = [store.digests[i] for i in rows]
    return ImageData(
        images_NHWC=store.images_NHWC,
        rows_N=rows,
        names=tuple(pool.names[i] for i in rows),
        classes=source.classes,
        train=Split(positions_N=train, labels_N=labels[train]),
        val=Split(positions_N=val, labels_N=labels[val]),
        counts=_counts(source, labels, train, val),
        pixels_fingerprint=_hash(digests),
        fingerprint=_hash(_lines(source.classes, labels, digests, is_val)),
        test_fingerprint=_hash(
            sorted(_lines(source.classes, test.labels_N, test_digests, [False] * len(test)))
        ),
    )


def _joined(parts: list[Items]) -> Items:
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def read(i: int) -> bytes:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return parts[part].read(i - int(starts[part]))

    return Items(
        names=tuple(name for part in parts for name in part.names),
        labels_N=np.concatenate([part.labels_N for part in parts]),
        read=read,
        decode=parts[0].decode,
    )


def _counts(
    source: Source,
    labels_N: NDArray[np.int64],
    train: NDArray[np.int64],
    val: NDArray[np.int64],
) -> dict[str, dict[str, int]]:
    def count(labels: NDArray[np.int64]) -> dict[str, int]:
        return {name: int((labels == i).sum()) for i, name in enumerate(source.classes)}

    return {
        "train": count(labels_N[train]),
        "val": count(labels_N[val]),
        "test": source.counts()["test"],
    }


def _lines(
    classes: tuple[str, ...],
    labels_N: NDArray[np.int64],
    digests: Iterable[str],
    is_val: Iterable[bool],
) -> list[str]:
    rows = zip(digests, labels_N, is_val, strict=True)
    return [f"{digest} {classes[label]!r} {bool(val)}" for digest, label, val in rows]


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
