"""Which images are the same picture, and which copy stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.duplicates import (
    COARSE_DISTANCE,
    FINE_DISTANCE,
    ROWS,
    Place,
    copies_to_drop,
    look_alikes,
    same_pixels,
)


def test_images_that_share_their_pixels_stand_together_over_all_splits():
    digests = {"train": ["a", "b", "a"], "val": ["c", "b"], "test": ["d"]}
    assert same_pixels(digests) == [
        [Place("train", 0), Place("train", 2)],
        [Place("train", 1), Place("val", 1)],
    ]


@pytest.mark.parametrize(
    ("digests", "dropped"),
    [
        ({"train": "ab", "val": "bc", "test": "d"}, {"val": [0]}),
        ({"train": "ab", "val": "c", "test": "ad"}, {"test": [0]}),
        # The test set changes only where it must.
        ({"train": "a", "val": "bc", "test": "cd"}, {"val": [1]}),
        ({"train": "a", "val": "ab", "test": "ca"}, {"val": [0], "test": [1]}),
        ({"train": "aa", "val": "bb", "test": "cc"}, {}),
        ({"train": "ab", "test": "bb"}, {"test": [0, 1]}),
    ],
)
def test_the_copy_that_is_trained_on_stays(digests, dropped):
    assert copies_to_drop(digests) == dropped


LETTERS = st.lists(st.sampled_from("abcdefg"), max_size=6)


@given(train=LETTERS, val=LETTERS, test=LETTERS)
def test_behind_the_drop_no_pixels_stand_in_two_splits_and_train_is_whole(train, val, test):
    digests = {"train": train, "val": val, "test": test}
    dropped = copies_to_drop(digests)
    assert "train" not in dropped
    left = [
        {d for i, d in enumerate(names) if i not in dropped.get(split, [])}
        for split, names in digests.items()
    ]
    assert sum(map(len, left)) == len(set().union(*left))
    assert set().union(*left) == {*train, *val, *test}


def hashes(bits_NB):
    return [np.packbits(row).tobytes().hex() for row in bits_NB]


def test_pairs_up_to_the_distance_are_found_and_no_others():
    bits_NB = np.zeros((8, 64), np.uint8)
    for i in range(8):
        bits_NB[i, :i] = 1  # Image i differs from image j in |i - j| bits.
    fine_NB = np.zeros((8, 256), np.uint8)
    fine_NB[1, : FINE_DISTANCE + 1] = 1
    places = [Place("train", i) for i in range(8)]
    pairs = list(look_alikes(places, hashes(bits_NB), hashes(fine_NB)))
    found = {(p.first.number, p.second.number): p.coarse for p in pairs}
    assert found == {
        (i, j): j - i for i in range(8) for j in range(i + 1, 8) if j - i <= COARSE_DISTANCE
    }
    assert {p.is_same for p in pairs if 1 in (p.first.number, p.second.number)} == {False}
    assert {p.is_same for p in pairs if 1 not in (p.first.number, p.second.number)} == {True}


def test_pairs_are_found_wherever_they_stand_among_many():
    rng = np.random.default_rng(0)
    bits_NB = rng.integers(0, 2, (2 * ROWS + 7, 64), dtype=np.uint8)
    planted = {(3, 5), (10, ROWS + 1), (ROWS - 1, ROWS), (2, 2 * ROWS + 6)}
    for first, second in planted:
        bits_NB[second] = bits_NB[first]
    places = [Place("train", i) for i in range(len(bits_NB))]
    found = look_alikes(places, hashes(bits_NB), ["00" * 32] * len(places))
    assert {(p.first.number, p.second.number) for p in found if p.coarse == 0} == planted
