"""Open a source: decode every image once, and draw its test split where it has none.

Of test images facts alone leave this module. Which images are left out, and how training and
validation images are parted, is decided elsewhere.

Legend: N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import Resizing
from transfer.data.facts import Facts, ImageFacts, Unreadable
from transfer.data.sources.items import Items, OnProgress, Source, SplitName, joined
from transfer.data.splits import Positions, split_off_test, together
from transfer.data.store import DecodedStore, open_store
from transfer.data.survey import survey

GIVEN: tuple[SplitName, ...] = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class CheckedSplit:
    """What the data check sees of a split, of the test split too: every readable image, no pixel.

    ``groups`` is None where nobody knows whose pictures they are; ``is_made`` says that the split
    was drawn here.
    """

    names: tuple[str, ...]
    labels_N: NDArray[np.int64]
    facts: tuple[ImageFacts, ...]
    groups: tuple[str, ...] | None = None
    is_made: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digests(self) -> tuple[str, ...]:
        """Of each image the digest of its pixels."""
        return tuple(fact.pixels for fact in self.facts)

    def subset(self, places: Positions) -> "CheckedSplit":
        """The images at these places, in that order."""
        chosen = places.tolist()
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            labels_N=self.labels_N[places],
            facts=tuple(self.facts[i] for i in chosen),
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source whose images were all decoded once, with its test split made if it had none.

    ``splits`` and ``unreadable`` are those of `ImageData`; ``rows`` are the places in the store of
    the readable images of train and val. ``test`` are those of the test split, sealed: bytes that
    nobody has looked at.
    """

    store: DecodedStore
    rows: Mapping[str, Positions]
    splits: Mapping[str, CheckedSplit]
    unreadable: dict[str, dict[str, str]]
    test: Items


def open_images(
    source: Source,
    image_size: int,
    cache_dir: Path,
    on_progress: OnProgress,
    *,
    resizings: Sequence[Resizing] = (Resizing(),),
) -> Opened:
    """Decode all images of a source.

    Raises:
        ValueError: a class too small to be in the test split that is drawn.
    """
    unreadable: dict[str, dict[str, str]] = {}

    def readable(name: str, items: Items, facts: Sequence[Facts]) -> Positions:
        bad = {i: fact.reason for i, fact in enumerate(facts) if isinstance(fact, Unreadable)}
        if bad:
            unreadable[name] = {items.names[i]: reason for i, reason in bad.items()}
        return np.delete(np.arange(len(items)), list(bad))

    if "all" in source.splits:
        everything = source.splits["all"]
        facts = survey(everything, cache_dir, on_progress)
        places = readable("all", everything, facts)
        split = _checked(everything, facts, places)
        order = in_order(split, np.zeros(len(split), dtype=bool))
        split, places = split.subset(order), places[order]
        require_classes(source.classes, {"all": split}, unreadable)
        together_N = together(split.digests, split.groups)
        rest, test = split_off_test(split.labels_N, together_N, source.classes)
        given: dict[SplitName, Items] = {"train": everything.subset(places[rest])}
        sealed = everything.subset(places[test])
        splits: dict[str, CheckedSplit] = {"test": replace(split.subset(test), is_made=True)}
    else:
        given = {name: source.splits[name] for name in GIVEN if name in source.splits}
        test_items = source.splits["test"]
        facts = survey(test_items, cache_dir, on_progress)
        places = readable("test", test_items, facts)
        splits = {"test": _checked(test_items, facts, places)}
        sealed = test_items.subset(places)
    pool = joined(list(given.values()))
    store = open_store(
        pool,
        image_size,
        cache_dir,
        on_progress,
        resizings=resizings,
        num_train=len(given["train"]),
    )
    rows: dict[str, Positions] = {}
    first = 0
    for name, items in given.items():
        facts = store.facts[first : first + len(items)]
        places = readable(name, items, facts)
        rows[name], splits[name] = first + places, _checked(items, facts, places)
        first += len(items)
    return Opened(store=store, rows=rows, splits=splits, unreadable=unreadable, test=sealed)


def _checked(items: Items, facts: Sequence[Facts], places: Positions) -> CheckedSplit:
    """The images at ``places``, which are readable."""
    part = items.subset(places)
    return CheckedSplit(
        names=part.names,
        labels_N=part.labels_N,
        facts=tuple(fact for i in places.tolist() if isinstance(fact := facts[i], ImageFacts)),
        groups=part.groups,
    )


class LostClassError(ValueError):
    """A split has lost all images of a class; ``unreadable`` names files and reasons by split."""

    def __init__(self, text: str, unreadable: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(text)
        self.unreadable = unreadable


def require_classes(
    classes: tuple[str, ...],
    parts: Mapping[str, CheckedSplit],
    unreadable: Mapping[str, Mapping[str, str]],
) -> None:
    """Refuse a split that has lost all images of a class.

    Raises:
        LostClassError: there is one.
    """
    for name, part in parts.items():
        missing = np.flatnonzero(np.bincount(part.labels_N, minlength=len(classes)) == 0)
        if len(missing):
            raise LostClassError(
                f"Class '{classes[missing[0]]}' has no image left in {name} without those that "
                "can't be read or are copies; every split must hold every class.",
                unreadable,
            )


def in_order(part: CheckedSplit, is_val: NDArray[np.bool_]) -> Positions:
    """Sort by pixels, so that split and batches don't depend on how files are named or packed."""
    digests = part.digests

    def key(i: int) -> tuple[str, int, bool, str]:
        return digests[i], int(part.labels_N[i]), bool(is_val[i]), part.names[i]

    return np.array(sorted(range(len(part)), key=key), dtype=np.int64)


def joined_splits(parts: Sequence[CheckedSplit]) -> CheckedSplit:
    """The images of several splits, one split after the other."""
    groups = tuple(group for part in parts for group in part.groups or ())
    return CheckedSplit(
        names=tuple(name for part in parts for name in part.names),
        labels_N=np.concatenate([part.labels_N for part in parts]),
        facts=tuple(fact for part in parts for fact in part.facts),
        groups=groups if parts[0].groups is not None else None,
    )
