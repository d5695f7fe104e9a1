"""What a source offers before anything is decoded: classes, splits, names, labels, groups, bytes.

The values that every kind of source gives, and the laws that hold for all of them. Knows neither
files nor pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import Decoded

Labels = NDArray[np.int64]
# Told what is done, how much of it, and of how much.
OnProgress = Callable[[str, int, int], None]
# "all": the source has no splits, so that they are made of all its images.
SplitName = Literal["train", "val", "test", "all"]
Kind = Literal[
    "folder", "class folders", "npz", "npy folder", "manifest", "medmnist", "phantom", "unknown"
]


@dataclass(frozen=True, kw_only=True)
class Items:
    """The images of one split: ``read`` gives an image's bytes, ``decode`` its pixels.

    The bytes fix the pixels: what is decoded is found again by them. ``groups`` says whose
    picture each is (a patient, a slide), where that is known.
    """

    names: tuple[str, ...]
    labels_N: Labels
    read: Callable[[int], bytes]
    decode: Callable[[bytes], Decoded]
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, positions: NDArray[np.int64]) -> "Items":
        """The images at ``positions``, in that order."""
        chosen = [int(i) for i in positions]
        return Items(
            names=tuple(self.names[i] for i in chosen),
            labels_N=self.labels_N[positions],
            read=lambda i: self.read(chosen[i]),
            decode=self.decode,
            groups=tuple(self.groups[i] for i in chosen) if self.groups is not None else None,
        )


def joined(parts: Sequence[Items]) -> Items:
    """The images of several splits of one source, one split after the other."""
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def read(i: int) -> bytes:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return parts[part].read(i - int(starts[part]))

    groups = tuple(group for part in parts for group in part.groups or ())
    return Items(
        names=tuple(name for part in parts for name in part.names),
        labels_N=np.concatenate([part.labels_N for part in parts]),
        read=read,
        decode=parts[0].decode,
        groups=groups if parts[0].groups is not None else None,
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: ``text`` is what the user wrote, ``name`` a short name made of it.

    ``splits`` holds train and test (and may hold val), or only "all". ``num_matched`` counts the
    files whose name the group pattern matched, ``ignored_columns`` names those of a manifest,
    ``passed_over`` files of a folder that are not named as images.
    """

    text: str
    name: str
    classes: tuple[str, ...]
    splits: dict[SplitName, Items]
    kind: Kind = "unknown"
    natural_size: int | None = None
    num_matched: int | None = None
    ignored_columns: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what holds for every kind of source; raises ValueError."""
        if len(self.classes) < 2:
            found = f"only '{self.classes[0]}'" if self.classes else "none"
            raise ValueError(f"{self.text} must hold images of 2 or more classes, has {found}.")
        for name in self.classes:
            if not name.isprintable():
                raise ValueError(f"Class name {name!r} has characters that can't be shown.")
        for split, counts in self.counts().items():
            for name, count in counts.items():
                if count == 0:
                    raise ValueError(
                        f"Class '{name}' has no image in {split} of {self.text}; "
                        "every split must hold every class."
                    )

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images of each class in each split."""
        return {
            split: {name: int((items.labels_N == i).sum()) for i, name in enumerate(self.classes)}
            for split, items in self.splits.items()
        }


def in_class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes in the order of their labels: numbers by value, else by the alphabet.

    The same whatever the images are packed in.
    """
    found = set(names)
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def short_name(name: str) -> str:
    """A name for a study, of letters, digits and ``-_.``."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip("._") or "study"


def refuse_pattern(group_pattern: str | None, text: str) -> None:
    """Refuse a group pattern where images have no file names.

    Raises:
        ValueError: a pattern is given.
    """
    if group_pattern is not None:
        raise ValueError(
            f"Group pattern '{group_pattern}' needs file names to search, but the images of "
            f"{text} have none; leave it out, or use a folder of images or a CSV manifest."
        )
