"""What is worth keeping: which freeze boundary saves most, and what has to go for it.

Pure arithmetic on seconds and bytes. Knows neither networks nor files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Keeping costs a write and every use a read: bytes a second, a cautious guess for a page cache.
BYTES_PER_SECOND = 1e9


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A boundary that could be kept: its size, and the seconds of computing it would save."""

    boundary: int
    num_bytes: int
    seconds_saved: float


@dataclass(frozen=True, kw_only=True)
class Occupant:
    """What is kept already, and the seconds that computing it took."""

    num_bytes: int
    seconds: float


def choose(
    candidates: Sequence[Candidate], free_bytes: int, occupants: Sequence[Occupant]
) -> Candidate | None:
    """The candidate that saves the most seconds, or None where keeping none of them pays.

    Where it only fits if others go, the seconds those took count against it: bytes go to what
    saves most for them.

    Args:
        free_bytes: what may be filled without anything having to go; negative if too full.
        occupants: in the order in which they would go, least recently used first.
    """
    best, most = None, 0.0
    for candidate in candidates:
        net = candidate.seconds_saved - _seconds_lost(candidate.num_bytes, free_bytes, occupants)
        if net > most:
            best, most = candidate, net
    return best


def _seconds_lost(num_bytes: int, free: int, occupants: Sequence[Occupant]) -> float:
    """Seconds that those took which have to go for so many bytes; infinite if they can't fit."""
    lost = 0.0
    for occupant in occupants:
        if free >= num_bytes:
            break
        free += occupant.num_bytes
        lost += occupant.seconds
    return lost if free >= num_bytes else float("inf")


def seconds_saved(*, seconds: float, num_bytes: int, num_rows: int, num_uses: int) -> float:
    """Seconds that keeping saves over computing anew for every use.

    Args:
        seconds, num_bytes: what one row costs to compute, and its size beyond that of the row it
            is computed from.
        num_rows: how many are computed if they are kept.
        num_uses: how many are asked for in all.
    """
    moved = num_bytes * (num_rows + num_uses) / BYTES_PER_SECOND
    return seconds * (num_uses - num_rows) - moved
