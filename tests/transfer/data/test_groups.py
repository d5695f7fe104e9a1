"""What is linked by a group or by pixels stays together; the names of groups don't matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.decoding import decode_image
from transfer.data.sources.items import Items
from transfer.data.splits import (
    find_groups,
    first_seen,
    group_codes,
    partition_lines,
    together,
)

IMAGES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), min_size=1)


def items(*names):
    labels_N = np.zeros(len(names), dtype=np.int64)
    return Items(names=names, labels_N=labels_N, read=lambda i: b"", decode=decode_image)


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"p\d", ("p1", "p1", "p2", "/x/none.png")),
        (r"p(\d)", ("1", "1", "2", "/x/none.png")),
        (r"p(\d)_(\d)", ("1", "1", "2", "/x/none.png")),
        (r"_(\d)|none", ("1", "2", "1", "/x/none.png")),
        (r"png$", ("png",) * 4),
    ],
)
def test_the_group_is_the_first_group_or_the_whole_match_or_the_file_alone(pattern, groups):
    splits = {"train": items("x/p1_1.png", "y/p1_2.png", "p9/p2_1.png", "x/none.png")}
    grouped, num_matched = find_groups(splits, pattern)
    assert grouped["train"].groups == groups
    assert num_matched == sum(not group.startswith("/") for group in groups)


def test_files_of_all_splits_are_searched_and_counted():
    grouped, num_matched = find_groups({"train": items("p1.png"), "test": items("p1.jpg")}, r"p\d")
    assert grouped["train"].groups == grouped["test"].groups == ("p1",)
    assert num_matched == 2


@pytest.mark.parametrize(
    ("digests", "groups", "expected"),
    [
        ("abc", None, [0, 1, 2]),
        ("aba", None, [0, 1, 0]),
        ("abc", "uuv", [0, 0, 1]),
        ("abca", "uuvv", [0, 0, 0, 0]),
        ("abcd", "uvvu", [0, 1, 1, 0]),
        ("aa", "uv", [0, 0]),
        ("ab", "ba", [0, 1]),
    ],
)
def test_images_are_linked_by_pixels_and_by_groups(digests, groups, expected):
    assert together(list(digests), groups and list(groups)).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(images=IMAGES)
def test_what_stays_together_is_the_finest_partition_that_parts_no_group_and_no_pixels(images):
    digests, groups = zip(*images, strict=True)
    numbers = together(digests, groups)
    reached = [{i} for i in range(len(images))]
    for _ in images:
        for i, (digest, group) in enumerate(images):
            for j, (other_digest, other_group) in enumerate(images):
                if digest == other_digest or group == other_group:
                    reached[i] |= reached[j]
    for i in range(len(images)):
        assert set(np.flatnonzero(numbers == numbers[i])) == reached[i]


@given(images=IMAGES)
def test_other_names_of_the_groups_give_the_same_numbers(images):
    digests, groups = zip(*images, strict=True)
    renamed = [f"subject {ord('z') - ord(group)}" for group in groups]
    assert np.array_equal(together(digests, groups), together(digests, renamed))


def test_numbers_are_given_in_the_order_of_appearance():
    assert first_seen(np.array([7, 7, 2, 9, 2])).tolist() == [0, 0, 1, 2, 1]


@given(images=IMAGES, seed=st.integers(0, 99))
def test_a_partition_is_named_whatever_the_order_and_the_names_of_its_parts(images, seed):
    lines, groups = zip(*images, strict=True)
    order = np.random.default_rng(seed).permutation(len(images))
    shuffled = [lines[i] for i in order], [f"other {groups[i]}" for i in order]
    assert partition_lines(lines, groups) == partition_lines(*shuffled)


def test_another_partition_has_another_name_and_none_has_none():
    names = [partition_lines("abc", groups) for groups in ("uuv", "uvv", "uvw", "uuu")]
    assert len(set(map(tuple, names))) == 4
    assert partition_lines("abc", None) == []


def test_codes_are_equal_where_groups_are_and_unknown_where_they_are():
    assert group_codes(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert group_codes(None) is None
