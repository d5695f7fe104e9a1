"""Load a data set for a study: training and validation images; of the test split only hashes.

The test split stays sealed: its files are opened here to be validated and hashed, and neither a
pixel nor the label of one image leaves this module.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import Pixels
from transfer.data.groups import Splits, partition_lines, together
from transfer.data.items import Items, Source, SplitName, joined
from transfer.data.splits import split_off_test, stratified_split
from transfer.data.store import OnProgress, open_store, pixel_digests
from transfer.data.window import Window

GIVEN: tuple[SplitName, ...] = ("train", "val")


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

    ``pixels_fingerprint`` names the decoded images in their order, ``fingerprint`` their labels,
    given splits and groups, ``test_fingerprint`` the sealed test images and labels.

    For those who look at the data: ``window`` is the range of values that 16-bit images were
    mapped to 8 bits by; ``digests`` are hashes of the images' pixels in the data's order;
    ``made_splits`` names those of val and test that were made here; ``num_groups`` counts groups
    over all images, test images too, where groups are known; ``shapes`` ("WIDTHxHEIGHT") and
    ``modes`` (Pillow's names) count what training and validation images were before.
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
    window: Window | None = None
    digests: tuple[str, ...] = ()
    made_splits: tuple[str, ...] = ()
    num_groups: int | None = None
    shapes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

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
    parts = _with_test_split(source, cache_dir, on_progress)
    given = [parts[name] for name in GIVEN if name in parts]
    pool, test, num_train = joined(given), parts["test"], len(parts["train"])
    store = open_store(pool, image_size, cache_dir, on_progress, num_train=num_train)
    test_digests = pixel_digests(test, cache_dir, on_progress)
    rows = _order(store.digests, pool, num_train)
    ordered, digests = pool.subset(rows), tuple(store.digests[i] for i in rows)
    labels, is_val = ordered.labels_N, rows >= num_train
    if "val" in parts:
        train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    else:
        together_N = together(digests, ordered.groups)
        train, val = stratified_split(labels, seed, together_N=together_N, classes=source.classes)
    lines = _lines(source.classes, labels, digests, is_val)
    test_lines = _lines(source.classes, test.labels_N, test_digests, [False] * len(test))
    return ImageData(
        images_NHWC=store.images_NHWC,
        rows_N=rows,
        names=ordered.names,
        classes=source.classes,
        train=Split(positions_N=train, labels_N=labels[train]),
        val=Split(positions_N=val, labels_N=labels[val]),
        counts={
            "train": _counts(source.classes, labels[train]),
            "val": _counts(source.classes, labels[val]),
            "test": _counts(source.classes, test.labels_N),
        },
        pixels_fingerprint=_hash([*digests, *_window_line(store.window)]),
        fingerprint=_hash(lines + partition_lines(lines, ordered.groups)),
        test_fingerprint=_hash(sorted(test_lines)),
        window=store.window,
        digests=digests,
        made_splits=tuple(name for name in ("val", "test") if name not in source.splits),
        num_groups=_num_groups(source),
        shapes=store.shapes,
        modes=store.modes,
    )


def _with_test_split(source: Source, cache_dir: Path, on_progress: OnProgress) -> Splits:
    """The splits of the source; where it has none, the test images and the others."""
    if "all" not in source.splits:
        return source.splits
    everything = source.splits["all"]
    digests = pixel_digests(everything, cache_dir, on_progress)
    rows = _order(digests, everything, len(everything))
    ordered = everything.subset(rows)
    together_N = together([digests[i] for i in rows], ordered.groups)
    rest, test = split_off_test(ordered.labels_N, together_N, source.classes)
    return {"train": ordered.subset(rest), "test": ordered.subset(test)}


def _order(digests: Sequence[str], items: Items, num_train: int) -> NDArray[np.int64]:
    """Sort by pixels, so that split and batches don't depend on how files are named or packed."""

    def key(i: int) -> tuple[str, int, bool, str]:
        return digests[i], int(items.labels_N[i]), i >= num_train, items.names[i]

    return np.array(sorted(range(len(items)), key=key), dtype=np.int64)


def _num_groups(source: Source) -> int | None:
    groups = [items.groups for items in source.splits.values()]
    known = [names for names in groups if names is not None]
    return len(set().union(*known)) if known else None


def _counts(classes: tuple[str, ...], labels_N: NDArray[np.int64]) -> dict[str, int]:
    return {name: int((labels_N == i).sum()) for i, name in enumerate(classes)}


def _lines(
    classes: tuple[str, ...],
    labels_N: NDArray[np.int64],
    digests: Iterable[str],
    is_val: Iterable[bool],
) -> list[str]:
    rows = zip(digests, labels_N, is_val, strict=True)
    return [f"{digest} {classes[label]!r} {bool(val)}" for digest, label, val in rows]


def _window_line(window: Window | None) -> list[str]:
    """What else than native pixels decides on the pixels of 8 bits that a network sees."""
    return [] if window is None else [f"window {window[0]} {window[1]}"]


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
