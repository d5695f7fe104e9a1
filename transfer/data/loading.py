"""Load a data set for a study: training and validation images; of the test split only facts.

The test split stays sealed: its files are opened here to be validated and hashed, and no pixel of
them leaves this module.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfer.data.check.duplicates import copies_to_drop
from transfer.data.decoding import Interpolation, Pixels, Resize, Resizing, Window
from transfer.data.opening import (
    GIVEN,
    CheckedSplit,
    Opened,
    in_order,
    joined_splits,
    open_images,
    require_classes,
)
from transfer.data.sources.items import Items, OnProgress, Source
from transfer.data.splits import (
    Positions,
    group_codes,
    partition_lines,
    stratified_split,
    together,
)

SPLITS = ("train", "val", "test")
# The pixels that views are made from, and how many times the images' size they have: `views`
# halves them.
LARGE: Literal["large"] = "large"
ENLARGED = 2


@dataclass(frozen=True, kw_only=True)
class Split:
    """Some of the images: ``positions_N`` in the data set, and their labels in [0, C).

    ``groups_N`` are numbers, equal where images are of one group (a subject, say); None where
    nobody knows whose pictures they are.
    """

    positions_N: Positions
    labels_N: NDArray[np.int64]
    groups_N: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.positions_N)


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Training and validation images at one size, in an order that depends on their pixels alone.

    ``pixels_fingerprint`` names the decoded images in their order, ``fingerprint`` their labels,
    given splits and groups, ``test_fingerprint`` the sealed test images and labels.

    ``resized`` has them by each interpolation that a backbone wants, ``large_NHWC`` at twice the
    size, for views of them; ``resize`` says how they became squares.

    For those who look at the data: ``window`` is the range of values that 16-bit images were
    mapped to 8 bits by; ``digests`` are hashes of the images' pixels in the data's order;
    ``made_splits`` names those of val and test that were made here; ``num_groups`` counts groups
    over all images, test images too, where groups are known; ``shapes`` ("WIDTHxHEIGHT") and
    ``modes`` (Pillow's names) count what training and validation images were before;
    ``checked`` has the splits as the data check sees them, copies that were dropped included,
    and ``kept`` without those; ``unreadable`` (names and reasons) and ``dropped`` (names) are what
    was left out, by split; ``sealed`` are the test images, for `unsealing` alone to open.
    """

    resized: Mapping[Interpolation, Pixels]
    rows_N: Positions
    names: tuple[str, ...]
    classes: tuple[str, ...]
    train: Split
    val: Split
    counts: dict[str, dict[str, int]]
    pixels_fingerprint: str
    fingerprint: str
    test_fingerprint: str
    resize: Resize = "squeeze"
    large_NHWC: Pixels | None = None
    window: Window | None = None
    digests: tuple[str, ...] = ()
    made_splits: tuple[str, ...] = ()
    num_groups: int | None = None
    shapes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    checked: dict[str, CheckedSplit] = field(default_factory=dict)
    kept: dict[str, CheckedSplit] = field(default_factory=dict)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sealed: Items | None = field(default=None, repr=False)

    @property
    def subjects(self) -> dict[str, int] | None:
        """How many groups each split has images of; None where none are known."""
        if self.num_groups is None:
            return None
        return {name: len(set(part.groups or ())) for name, part in self.kept.items()}

    @property
    def images_NHWC(self) -> Pixels:
        """The images by the first interpolation that was asked for: to be looked at."""
        return next(iter(self.resized.values()))

    @property
    def image_size(self) -> int:
        return int(self.images_NHWC.shape[1])

    def __len__(self) -> int:
        return len(self.rows_N)

    def images(self, positions: Positions) -> Pixels:
        """The images at ``positions``: (B, H, W, C), uint8."""
        return np.asarray(self.images_NHWC[self.rows_N[positions]])

    def pixels(self, which: Interpolation | Literal["large"]) -> Pixels:
        """All images, resized by an interpolation or enlarged, in the order of the rows.

        Raises:
            ValueError: the data were loaded without them.
        """
        if which == LARGE:
            return self.require_views()
        if which not in self.resized:
            raise ValueError(
                f"The images were resized by {', '.join(self.resized)}, but a backbone wants "
                f"{which}; name it in load_data(interpolations=...)."
            )
        return self.resized[which]

    def require_views(self) -> Pixels:
        """The pixels that views are made from.

        Raises:
            ValueError: the data were loaded without them.
        """
        if self.large_NHWC is None:
            raise ValueError(
                "Views are made from larger images, without which these data were loaded; "
                "ask for them by load_data(with_views=True)."
            )
        return self.large_NHWC


def load_data(
    source: Source,
    *,
    image_size: int,
    seed: int,
    cache_dir: Path,
    resize: Resize = "squeeze",
    interpolations: Sequence[Interpolation] = ("bilinear",),
    with_views: bool = False,
    skip_unreadable: bool = False,
    drop_duplicates: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> ImageData:
    """Decode (or find decoded) the training and validation images and check the test images.

    Args:
        resize: how images become squares.
        interpolations: those of the backbones that will look at them.
        with_views: whether views will be asked for, which are made from images of twice the size.
        skip_unreadable: leave out what can't be read instead of refusing it.
        drop_duplicates: where the same pixels stand in two of the given splits, keep the copy in
            train, else the one in test.

    Raises:
        ValueError: unreadable images, or a class too small to be split.
    """
    kinds = [Resizing(resize, name) for name in dict.fromkeys(interpolations)]
    large = [Resizing(resize, "lanczos", ENLARGED)] if with_views else []
    opened = open_images(source, image_size, cache_dir, on_progress, resizings=[*kinds, *large])
    images = opened.store.images
    if opened.unreadable and not skip_unreadable:
        _refuse(opened)
    digests = {name: split.digests for name, split in opened.splits.items()}
    copies = copies_to_drop(digests) if drop_duplicates else {}
    kept = {
        name: np.delete(np.arange(len(split)), copies.get(name, []))
        for name, split in opened.splits.items()
    }
    parts = {name: split.subset(kept[name]) for name, split in opened.splits.items()}
    require_classes(source.classes, parts, opened.unreadable)
    pool = _pooled(parts, {name: rows[kept[name]] for name, rows in opened.rows.items()})
    test, checked = parts["test"], dict(opened.splits)
    if "val" in checked:
        train, val = np.flatnonzero(~pool.is_val), np.flatnonzero(pool.is_val)
    else:
        train, val = stratified_split(
            pool.images.labels_N,
            seed,
            together_N=together(pool.images.digests, pool.images.groups),
            classes=source.classes,
        )
        parts["train"] = checked["train"] = pool.images.subset(train)
        parts["val"] = checked["val"] = replace(pool.images.subset(val), is_made=True)
    labels = {"train": pool.images.labels_N[train], "val": pool.images.labels_N[val]}
    codes_N = group_codes(pool.images.groups)

    def split(name: str, positions_N: Positions) -> Split:
        groups_N = None if codes_N is None else codes_N[positions_N]
        return Split(positions_N=positions_N, labels_N=labels[name], groups_N=groups_N)

    lines = _lines(source.classes, pool.images, pool.is_val)
    test_lines = _lines(source.classes, test, [False] * len(test))
    facts = pool.images.facts
    return ImageData(
        resized={kind.interpolation: images[kind] for kind in kinds},
        large_NHWC=images[large[0]] if large else None,
        resize=resize,
        rows_N=pool.rows_N,
        names=pool.images.names,
        classes=source.classes,
        train=split("train", train),
        val=split("val", val),
        counts={
            name: count_labels(source.classes, labels_N)
            for name, labels_N in {**labels, "test": test.labels_N}.items()
        },
        pixels_fingerprint=hash_lines([*pool.images.digests, *_window_line(opened.store.window)]),
        fingerprint=hash_lines(lines + partition_lines(lines, pool.images.groups)),
        test_fingerprint=hash_lines(sorted(test_lines)),
        window=opened.store.window,
        digests=pool.images.digests,
        made_splits=tuple(name for name in ("val", "test") if name not in source.splits),
        num_groups=_num_groups(source),
        shapes=dict(Counter(f"{fact.width}x{fact.height}" for fact in facts)),
        modes=dict(Counter(fact.mode for fact in facts)),
        checked={name: checked[name] for name in SPLITS},
        kept={name: parts[name] for name in SPLITS},
        unreadable=opened.unreadable,
        dropped={
            name: tuple(opened.splits[name].names[i] for i in places)
            for name, places in copies.items()
        },
        sealed=opened.test.subset(kept["test"]),
    )


class _Pool(NamedTuple):
    """The images to train and validate on, in the data's order, and their rows in the store."""

    images: CheckedSplit
    rows_N: Positions
    is_val: NDArray[np.bool_]


def _pooled(parts: Mapping[str, CheckedSplit], rows: Mapping[str, Positions]) -> _Pool:
    given = [name for name in GIVEN if name in parts]
    images = joined_splits([parts[name] for name in given])
    rows_N = np.concatenate([rows[name] for name in given])
    is_val = np.repeat([name == "val" for name in given], [len(parts[name]) for name in given])
    order = in_order(images, is_val)
    return _Pool(images.subset(order), rows_N[order], is_val[order])


def _refuse(opened: Opened) -> None:
    bad = [
        f"{name} ({why})" for found in opened.unreadable.values() for name, why in found.items()
    ]
    shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
    total = len(bad) + sum(len(split) for split in opened.splits.values())
    raise ValueError(
        f"{len(bad)} of {total} images can't be read: {shown}; replace or remove them."
    )


def _num_groups(source: Source) -> int | None:
    groups = [items.groups for items in source.splits.values()]
    known = [names for names in groups if names is not None]
    return len(set().union(*known)) if known else None


def count_labels(classes: tuple[str, ...], labels_N: NDArray[np.int64]) -> dict[str, int]:
    """Images by class."""
    return {name: int((labels_N == i).sum()) for i, name in enumerate(classes)}


def _lines(classes: tuple[str, ...], part: CheckedSplit, is_val: Iterable[bool]) -> list[str]:
    rows = zip(part.digests, part.labels_N, is_val, strict=True)
    return [f"{digest} {classes[label]!r} {bool(val)}" for digest, label, val in rows]


def _window_line(window: Window | None) -> list[str]:
    """What else than native pixels decides on the pixels of 8 bits that a network sees."""
    return [] if window is None else [f"window {window[0]} {window[1]}"]


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
