"""Which images are the same picture, and which copy stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.check.duplicates import (
    COARSE_DISTANCE,
    FINE_DISTANCE,
    FINE_DISTANCE_OF_SMALL,
    MOST_PAIRS,
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


def alike(bits_NB, fine_NB=None, splits=None, is_small=False):
    size = len(bits_NB)
    fine_NB = np.zeros((size, 256), np.uint8) if fine_NB is None else fine_NB
    places = [Place(split, i) for i, split in enumerate(splits or ["train"] * size)]
    return look_alikes(places, hashes(bits_NB), hashes(fine_NB), [is_small] * size)


def numbers(pairs):
    return {(pair.first.number, pair.second.number) for pair in pairs}


def test_pairs_up_to_the_distance_are_found_and_no_others():
    bits_NB = np.zeros((8, 64), np.uint8)
    for i in range(8):
        bits_NB[i, :i] = 1  # Image i differs from image j in |i - j| bits.
    found = alike(bits_NB)
    distances = {(p.first.number, p.second.number): p.coarse for p in found.pairs}
    assert distances == {
        (i, j): j - i for i in range(8) for j in range(i + 1, 8) if j - i <= COARSE_DISTANCE
    }
    assert (found.num_within, found.num_across) == (len(distances), 0)
    assert (found.possible_within, found.possible_across) == (28, 0)


@pytest.mark.parametrize("is_small", [True, False])
def test_the_finer_look_tells_the_same_picture_and_is_laxer_for_small_ones(is_small):
    limit = FINE_DISTANCE_OF_SMALL if is_small else FINE_DISTANCE
    for bits, is_same in ((limit, True), (limit + 1, False)):
        fine_NB = np.zeros((2, 256), np.uint8)
        fine_NB[1, :bits] = 1
        (pair,) = alike(np.zeros((2, 64), np.uint8), fine_NB, is_small=is_small).pairs
        assert (pair.fine, pair.is_same) == (bits, is_same)


def test_pairs_are_found_wherever_they_stand_among_many():
    rng = np.random.default_rng(0)
    bits_NB = rng.integers(0, 2, (2 * ROWS + 7, 64), dtype=np.uint8)
    planted = {(3, 5), (10, ROWS + 1), (ROWS - 1, ROWS), (2, 2 * ROWS + 6)}
    for first, second in planted:
        bits_NB[second] = bits_NB[first]
    splits = ["train"] * ROWS + ["test"] * (ROWS + 7)
    found = alike(bits_NB, splits=splits)
    assert numbers(pair for pair in found.pairs if pair.coarse == 0) == planted
    assert (found.num_within, found.num_across) == (1, 3)
    assert found.possible_across == ROWS * (ROWS + 7)


def test_of_too_many_pairs_the_most_alike_are_kept():
    """The last two are one picture in two splits; 10,000 other pairs come before them."""
    size = 300
    rng = np.random.default_rng(0)
    fine_NB = rng.integers(0, 2, (size, 256), dtype=np.uint8)
    fine_NB[-1] = fine_NB[-2]
    splits = ["train", "test"] * (size // 2)
    found = alike(np.zeros((size, 64), np.uint8), fine_NB, splits=splits)
    assert numbers(pair for pair in found.pairs if pair.is_same) == {(size - 2, size - 1)}


def test_of_too_many_pairs_all_are_counted_and_some_are_kept():
    size = 300
    found = alike(np.zeros((size, 64), np.uint8), splits=["train", "test"] * (size // 2))
    assert found.num_across == (size // 2) ** 2 == found.possible_across
    assert found.num_within == found.possible_within
    assert len(found.pairs) == 2 * MOST_PAIRS
