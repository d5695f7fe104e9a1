"""Which images are the same picture: by pixels, or nearly so by perceptual hashes.

Knows hashes and splits; nothing of files, classes or messages.

Legend: N images, P pairs.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Bits of 64 that may differ where two images look alike.
COARSE_DISTANCE = 4
# Bits of 256 that may differ in the same picture, saved anew. Of 100 X-rays (256 px) and 100
# phantoms (96 px), saved as JPEG at qualities 95 to 30, halved, or made brighter, 14 at the most.
# Of different pictures that look alike at least 46 (2,400 X-rays) and 18 (60 phantoms of 700 to
# 1,400 images, drawn alike).
FINE_DISTANCE = 16
# The same of pictures below 64 pixels, where JPEG changes more: at 32 pixels 30 at quality 50, and
# 40 of different ones (20 phantoms of 700 images).
SMALL, FINE_DISTANCE_OF_SMALL = 64, 30
# Pairs that are kept, the most alike ones; all are counted.
MOST_PAIRS = 10_000
ROWS = 1024


class Place(NamedTuple):
    """An image: its split, and its place there."""

    split: str
    number: int


class Pair(NamedTuple):
    """Two images that look alike, in how many bits their hashes differ, and if they are one."""

    first: Place
    second: Place
    coarse: int
    fine: int
    is_same: bool


class LookAlikes(NamedTuple):
    """The pairs that look alike, the most alike ones first, and how many there are.

    ``num_across`` and ``num_within`` count those in two splits and in one, out of
    ``possible_across`` and ``possible_within``.
    """

    pairs: list[Pair]
    num_across: int
    num_within: int
    possible_across: int
    possible_within: int


def same_pixels(digests: Mapping[str, Sequence[str | None]]) -> list[list[Place]]:
    """The images of all splits that share their pixels with another, a list for each picture."""
    places: dict[str, list[Place]] = defaultdict(list)
    for split, names in digests.items():
        for number, digest in enumerate(names):
            if digest is not None:
                places[digest].append(Place(split, number))
    return [same for same in places.values() if len(same) > 1]


def copies_to_drop(digests: Mapping[str, Sequence[str | None]]) -> dict[str, list[int]]:
    """The images to leave out, by split, so that no pixels stand in two splits.

    Of copies in val and test the one in test stays, so that the test set changes only where it
    must.
    """
    dropped: dict[str, list[int]] = {"val": [], "test": []}
    for same in same_pixels(digests):
        splits = {place.split for place in same}
        kept = kept_split(splits)
        for split, number in same:
            if len(splits) > 1 and split != kept:
                dropped[split].append(number)
    return {split: sorted(indices) for split, indices in dropped.items() if indices}


def kept_split(splits: Collection[str]) -> str:
    """The split whose copy stays: train, for that one is trained on, else test."""
    return "train" if "train" in splits else "test"


def look_alikes(
    places: Sequence[Place],
    coarse_N: Sequence[str],
    fine_N: Sequence[str],
    is_small_N: Sequence[bool],
) -> LookAlikes:
    """Pairs whose 64-bit hashes differ in at most 4 bits, both hashes hexadecimal.

    Memory grows with N, not with its square: some rows of the table of distances at a time.
    """
    coarse, fine = _signs(coarse_N), _signs(fine_N)
    splits_N = np.array([place.split for place in places])
    limits_N = np.where(is_small_N, FINE_DISTANCE_OF_SMALL, FINE_DISTANCE)
    found: list[NDArray[np.int64]] = []
    num_across = num_within = 0
    for start in range(0, len(places), ROWS):
        # Of vectors of +1 and -1: bits that agree less bits that differ.
        agreement = coarse[start : start + ROWS] @ coarse[start:].T
        near = agreement >= coarse.shape[1] - 2 * COARSE_DISTANCE
        i_P, j_P = np.nonzero(np.triu(near, k=1))
        distance_P = (coarse.shape[1] - agreement[i_P, j_P]).astype(np.int64) // 2
        if len(i_P) == 0:
            continue
        agreement = fine[start : start + ROWS] @ fine[start:].T
        fine_P = (fine.shape[1] - agreement[i_P, j_P]).astype(np.int64) // 2
        i_P, j_P = i_P + start, j_P + start
        across_P = splits_N[i_P] != splits_N[j_P]
        num_across += int(across_P.sum())
        num_within += int((~across_P).sum())
        is_other_P = fine_P > np.minimum(limits_N[i_P], limits_N[j_P])
        rows_P = np.stack([i_P, j_P, distance_P, fine_P], axis=1)
        for is_kind_P in (across_P, ~across_P):
            kind = np.flatnonzero(is_kind_P)
            order = np.lexsort((distance_P[kind], fine_P[kind], is_other_P[kind]))
            found.append(rows_P[kind[order[:MOST_PAIRS]]])
    rows = np.concatenate(found) if found else np.zeros((0, 4), np.int64)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 3]))]
    pairs = [
        Pair(places[i], places[j], c, f, bool(f <= min(limits_N[i], limits_N[j])))
        for i, j, c, f in rows.tolist()
    ]
    sizes = np.unique(splits_N, return_counts=True)[1]
    possible_within = int((sizes * (sizes - 1) // 2).sum())
    possible = len(places) * (len(places) - 1) // 2
    return LookAlikes(pairs, num_across, num_within, possible - possible_within, possible_within)


def _signs(hashes_N: Sequence[str]) -> NDArray[np.float32]:
    """Bits as +1 and -1, (N, bits)."""
    octets = np.frombuffer(bytes.fromhex("".join(hashes_N)), dtype=np.uint8)
    bits = np.unpackbits(octets.reshape(len(hashes_N), -1), axis=1)
    return 2 * bits.astype(np.float32) - 1
