"""A finding of the data check, and the words and numbers that findings share.

Knows splits by name; no check of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scipy.stats import binomtest

from transfer.data.check.duplicates import Place
from transfer.data.opening import CheckedSplit
from transfer.messages import printable

Splits = Mapping[str, CheckedSplit]
# A pair, copies of one picture, a subject's images, or one file: ``{split, name}`` for each image.
Images = tuple[tuple[dict[str, str], ...], ...]

EXPECTED_ACCURACY = 0.9
MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    ``images`` has all that it is about. ``allowed_by`` are the flags with which a study goes on
    all the same; a warning has none.
    """

    kind: str
    level: Literal["error", "warning"]
    text: str
    remedy: str
    images: Images = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    allowed_by: tuple[str, ...] = ()


def image_at(splits: Splits, place: Place) -> dict[str, str]:
    """The split and the name of an image."""
    return {"split": place.split, "name": splits[place.split].names[place.number]}


def named(texts: Iterable[str]) -> str:
    """The first few, and that there are more."""
    every = [printable(text) for text in texts]
    return ", ".join(every[:MOST_NAMED]) + (", ..." if len(every) > MOST_NAMED else "")


def stands(count: int, thing: str = "image") -> str:
    """`1 image stands`, `8 images stand`."""
    return f"1 {thing} stands" if count == 1 else f"{count:,} {thing}s stand"


def pairs_of(count: int) -> str:
    """`1 pair`, `8 pairs`."""
    return "1 pair" if count == 1 else f"{count:,} pairs"


def interval_width(num_images: int) -> float:
    """The width of Wilson's 95 % interval at 90 % accuracy."""
    interval = binomtest(round(EXPECTED_ACCURACY * num_images), max(num_images, 1)).proportion_ci(
        method="wilson"
    )
    return float(interval.high - interval.low)
