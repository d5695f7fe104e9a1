"""Which images are the same picture: by pixels, or nearly so by perceptual hashes.

Knows hashes and splits; nothing of files, classes or messages.

Legend: N images, P pairs.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Bits of 64 that may differ where two images look alike.
COARSE_DISTANCE = 4
# Bits of 256 that may differ in the same picture, saved anew. Of 100 X-rays (256 px) and 100
# phantoms (96 px), saved as JPEG at qualities 95 to 30, halved, or made brighter, 14 at the most;
# at 28 px from quality 75 on 16. Of different pictures at least 46 (2,400 X-rays), 52 (5,856 of
# 28 px) and 18 (60 phantoms of 700 to 1,400 images, drawn alike).
FINE_DISTANCE = 16
ROWS = 1024


class Place(NamedTuple):
    """An image: its split, and its place there."""

    split: str
    number: int


class Pair(NamedTuple):
    """Two images that look alike, and in how many bits their hashes differ."""

    first: Place
    second: Place
    coarse: int
    fine: int

    @property
    def is_same(self) -> bool:
        """Whether they are the same picture at the finer look as well."""
        return self.fine <= FINE_DISTANCE


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
    places: Sequence[Place], coarse_N: Sequence[str], fine_N: Sequence[str]
) -> Iterator[Pair]:
    """Pairs whose 64-bit hashes differ in at most 4 bits, both hashes hexadecimal.

    Memory grows with N, not with its square: some rows of the table of distances at a time.
    """
    coarse, fine = _signs(coarse_N), _signs(fine_N)
    for start in range(0, len(places), ROWS):
        # Of vectors of +1 and -1: bits that agree less bits that differ.
        agreement = coarse[start : start + ROWS] @ coarse[start:].T
        near = agreement >= coarse.shape[1] - 2 * COARSE_DISTANCE
        for i, j in np.argwhere(np.triu(near, k=1)) + start:
            yield Pair(
                places[i], places[j], _distance(coarse[i], coarse[j]), _distance(fine[i], fine[j])
            )


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    return int((a != b).sum())


def _signs(hashes_N: Sequence[str]) -> NDArray[np.float32]:
    """Bits as +1 and -1, (N, bits)."""
    octets = np.frombuffer(bytes.fromhex("".join(hashes_N)), dtype=np.uint8)
    bits = np.unpackbits(octets.reshape(len(hashes_N), -1), axis=1)
    return 2 * bits.astype(np.float32) - 1
