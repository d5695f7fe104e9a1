"""The split keeps every image once and every class on both sides, and follows the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.splits import VAL_SHARE, stratified_split

# Two to forty images of each of one to five classes, in any order.
LABELS = st.lists(st.integers(2, 40), min_size=1, max_size=5).flatmap(
    lambda counts: st.permutations([c for c, count in enumerate(counts) for _ in range(count)])
)
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=SEEDS)
def test_every_image_is_on_exactly_one_side_and_in_order(labels, seed):
    train, val = stratified_split(np.array(labels), seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert train.tolist() == sorted(train) and val.tolist() == sorted(val)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=SEEDS, val_share=st.floats(0.05, 0.95))
def test_every_class_gives_its_share_and_is_on_both_sides(labels, seed, val_share):
    labels_N = np.array(labels)
    train, val = stratified_split(labels_N, seed, val_share)
    for label in np.unique(labels_N):
        total, in_val = (labels_N == label).sum(), (labels_N[val] == label).sum()
        assert 1 <= in_val <= total - 1
        assert abs(in_val - val_share * total) <= 1
        assert (labels_N[train] == label).sum() == total - in_val


@settings(max_examples=20, deadline=None)
@given(labels=LABELS, seed=SEEDS)
def test_the_same_seed_gives_the_same_split(labels, seed):
    first, again = (stratified_split(np.array(labels), seed) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_seed_gives_another_split():
    labels_N = np.arange(100) % 2
    vals = {tuple(stratified_split(labels_N, seed)[1]) for seed in range(20)}
    assert len(vals) == 20


def test_classes_of_one_size_are_not_split_alike():
    labels_N = np.repeat([0, 1], 50)
    _, val = stratified_split(labels_N, 0)
    assert set(val[val < 50]) != set(val[val >= 50] - 50)


def test_one_class_is_split_the_same_whatever_the_others_hold():
    few, many = np.repeat([0, 1], [30, 10]), np.repeat([0, 1], [30, 90])
    first, second = (stratified_split(labels_N, 3)[1] for labels_N in (few, many))
    assert first[first < 30].tolist() == second[second < 30].tolist()


def test_a_fifth_is_for_validation_when_nothing_else_is_asked():
    _, val = stratified_split(np.arange(200) % 2, 0)
    assert len(val) == 200 * VAL_SHARE == 40


def test_a_class_of_one_image_is_refused():
    with pytest.raises(ValueError, match="at least 2 training images"):
        stratified_split(np.array([0, 0, 0, 1]), 0)
