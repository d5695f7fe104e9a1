"""What is worth keeping: which freeze boundary saves most, and what has to go for it.

Pure arithmetic on seconds and bytes. Knows neither networks nor files. Boundary b lies behind the
first b layers; 0 stands for the images.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from transfer.activations.frozen import BlockCost

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


def plan(
    layers: Sequence[BlockCost],
    start: int,
    boundary: int,
    *,
    num_rows: int,
    num_uses: int,
    others: Collection[int],
    free_bytes: int,
    occupants: Sequence[Occupant],
) -> list[int]:
    """Boundaries to keep for a run, in the order in which they are computed: two at most.

    The last one serves the run, at ``boundary`` or below it. One on the way there is kept as well
    where the next run is likely to start from it and nothing has to go for it.

    Args:
        start: the boundary from which everything is computed.
        num_rows: how many rows are computed where a boundary is kept.
        num_uses: how many rows this run and those like it ask for in all.
        others: the boundaries that other runs may ask for, each as likely as the next.
        free_bytes, occupants: as for `choose`.
    """
    best = choose(
        [
            _candidate(layers, start, end, num_rows, num_uses)
            for end in range(start + 1, boundary + 1)
        ],
        free_bytes,
        occupants,
    )
    if best is None:
        return []
    left_bytes = free_bytes - best.num_bytes
    later = [end for end in others if end > start and end != best.boundary]
    on_the_way = []
    for end in sorted(end for end in later if end < best.boundary):
        share = sum(other >= end for other in later) / len(later)
        # The next run's rows, as many as it is likely to start from here.
        on_the_way.append(_candidate(layers, start, end, num_rows, num_rows * (1 + share)))
    waypoint = choose(on_the_way, left_bytes, occupants=())
    return [best.boundary] if waypoint is None else [waypoint.boundary, best.boundary]


def _candidate(
    layers: Sequence[BlockCost], start: int, end: int, num_rows: int, num_uses: float
) -> Candidate:
    start_bytes = layers[start - 1].num_bytes if start else 0
    return Candidate(
        boundary=end,
        num_bytes=num_rows * layers[end - 1].num_bytes,
        seconds_saved=seconds_saved(
            seconds=sum(layer.seconds for layer in layers[start:end]),
            num_bytes=max(0, layers[end - 1].num_bytes - start_bytes),
            num_rows=num_rows,
            num_uses=num_uses,
        ),
    )


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


def seconds_saved(*, seconds: float, num_bytes: int, num_rows: int, num_uses: float) -> float:
    """Seconds that keeping saves over computing anew for every use.

    Args:
        seconds, num_bytes: what one row costs to compute, and its size beyond that of the row it
            is computed from.
        num_rows: how many are computed if they are kept.
        num_uses: how many are asked for in all.
    """
    moved = num_bytes * (num_rows + num_uses) / BYTES_PER_SECOND
    return seconds * (num_uses - num_rows) - moved
