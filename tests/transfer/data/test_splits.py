"""The split keeps every image once and every class on both sides, and follows the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.splits import VAL_SHARE, split_off_test, stratified_split

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


def earlier_split(labels_N, seed, val_share):
    """The split of before there were groups, which stored studies were made with."""
    train, val = [], []
    for label in np.unique(labels_N):
        positions = np.flatnonzero(labels_N == label)
        shuffled = np.random.default_rng([seed, int(label)]).permutation(positions)
        num_val = min(max(1, round(val_share * len(positions))), len(positions) - 1)
        val.append(shuffled[:num_val])
        train.append(shuffled[num_val:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


@settings(max_examples=30, deadline=None)
@given(labels=LABELS, seed=SEEDS, val_share=st.floats(0.05, 0.95))
def test_images_that_may_all_be_parted_are_split_as_ever(labels, seed, val_share):
    labels_N = np.array(labels)
    expected = earlier_split(labels_N, seed, val_share)
    for together_N in (None, np.arange(len(labels)), np.arange(len(labels))[::-1]):
        found = stratified_split(labels_N, seed, val_share, together_N)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# Labels of two or three classes, and groups of one to some images, whose classes may differ.
GROUPED = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 25)), min_size=20, max_size=120
).map(lambda pairs: np.array(pairs).T)
NAMES = ("benign", "malignant", "unclear")


@settings(max_examples=60, deadline=None)
@given(grouped=GROUPED, seed=SEEDS)
def test_groups_are_never_parted_and_every_class_is_on_both_sides(grouped, seed):
    labels_N, together_N = grouped
    try:
        train, val = stratified_split(labels_N, seed, together_N=together_N, classes=NAMES)
    except ValueError as error:
        assert "\n" not in str(error) and any(f"'{name}'" in str(error) for name in NAMES)
        assert min(len(set(together_N[labels_N == label])) for label in set(labels_N)) < 6
        return
    assert sorted([*train, *val]) == list(range(len(labels_N)))
    assert set(together_N[train]).isdisjoint(together_N[val])
    assert set(labels_N[train]) == set(labels_N[val]) == set(labels_N)
    assert train.tolist() == sorted(train) and val.tolist() == sorted(val)


@pytest.mark.parametrize("seed", range(20))
def test_subjects_of_several_images_are_split_near_the_share_asked_for(seed):
    rng = np.random.default_rng(seed)
    together_N = np.sort(rng.integers(0, 60, 300))
    labels_N = rng.integers(0, 2, 60)[together_N]
    train, val = stratified_split(labels_N, seed, together_N=together_N)
    assert set(together_N[train]).isdisjoint(together_N[val])
    for label in (0, 1):
        share = (labels_N[val] == label).sum() / (labels_N == label).sum()
        assert 0.12 < share < 0.28


def test_with_groups_the_seed_fixes_the_split_and_another_moves_it():
    labels_N, together_N = np.arange(200) // 2 % 2, np.arange(200) // 2
    vals = [tuple(stratified_split(labels_N, seed, together_N=together_N)[1]) for seed in range(9)]
    assert len(set(vals)) == 9
    assert tuple(stratified_split(labels_N, 3, together_N=together_N)[1]) == vals[3]


def test_the_numbers_of_the_groups_do_not_matter():
    labels_N, together_N = np.arange(100) % 2, np.arange(100) % 37
    other_N = np.random.default_rng(0).permutation(1000)[together_N]
    first, second = (stratified_split(labels_N, 5, together_N=n) for n in (together_N, other_N))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("num_groups", [2, 3, 4, 5])
def test_few_groups_give_a_larger_part_rather_than_a_missing_class(num_groups):
    labels_N = np.repeat([0, 1], 12)
    together_N = np.concatenate([np.arange(12) % num_groups, 50 + np.arange(12) % num_groups])
    for seed in range(20):
        train, val = stratified_split(labels_N, seed, together_N=together_N)
        assert set(labels_N[train]) == set(labels_N[val]) == {0, 1}


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ("001", "abc", "at least 2 training images, one each for train and val, but class 'malig"),
        ("0011", "abcc", "of at least 2 groups (subjects, or pictures with other pixels)"),
        ("00112", "abcde", "but class 'unclear' has 1; add images or leave the class out."),
        ("010212", "aabbcc", "no split was found that keeps groups"),
    ],
)
def test_too_little_to_split_is_refused_by_the_name_of_the_class(labels, groups, message):
    labels_N = np.array([int(label) for label in labels])
    together_N = np.array([ord(group) for group in groups])
    with pytest.raises(ValueError) as error:
        stratified_split(labels_N, 0, together_N=together_N, classes=NAMES)
    assert message in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=4))
def test_the_test_split_leaves_every_class_enough_for_train_and_val(counts):
    labels_N = np.repeat(np.arange(len(counts)), counts)
    rest, test = split_off_test(labels_N, np.arange(len(labels_N)), NAMES + NAMES)
    assert set(labels_N[test]) == set(labels_N)
    stratified_split(labels_N[rest], 0)


@pytest.mark.parametrize(
    ("together", "message"),
    [
        ([0, 1, 2, 3, 4], "Every class needs at least 3 images, one each for train, val and test"),
        ([0, 1, 2, 3, 4, 4], "Every class needs images of at least 3 groups"),
    ],
)
def test_a_class_too_small_for_three_splits_is_refused_by_name(together, message):
    labels_N = np.array([0, 0, 0, 1, 1, 1])[: len(together)]
    with pytest.raises(ValueError, match="but class 'malignant' has 2") as error:
        split_off_test(labels_N, np.array(together), NAMES)
    assert message in str(error.value)
