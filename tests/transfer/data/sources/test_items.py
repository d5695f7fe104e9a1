"""Images of a source can be chosen and joined without being read; what a source must hold."""

import numpy as np
import pytest

from transfer.data.decoding import decode_array, encode_array
from transfer.data.sources.items import Items, Source, joined, refuse_pattern, short_name


def items(first, count, groups=None):
    """Items whose image i is full of the number first + i, with labels in turn."""
    return Items(
        names=tuple(f"{first + i}" for i in range(count)),
        labels_N=np.arange(count) % 2,
        read=lambda i: encode_array(np.full((2, 2), first + i, np.uint8)),
        decode=decode_array,
        groups=groups,
    )


def numbers(some):
    return [int(some.decode(some.read(i)).pixels[0, 0]) for i in range(len(some))]


def test_a_subset_has_the_chosen_images_in_the_order_asked_for():
    some = items(10, 5, groups=tuple("abcde")).subset(np.array([4, 0, 2]))
    assert (numbers(some), some.names, some.groups) == (
        [14, 10, 12],
        ("14", "10", "12"),
        ("e", "a", "c"),
    )
    assert some.labels_N.tolist() == [0, 0, 0]
    assert numbers(some.subset(np.array([1]))) == [10]


def test_joined_items_stand_one_split_after_the_other():
    both = joined([items(0, 3, groups=("a", "a", "b")), items(10, 2, groups=("b", "c"))])
    assert numbers(both) == [0, 1, 2, 10, 11]
    assert both.labels_N.tolist() == [0, 1, 0, 0, 1]
    assert both.groups == ("a", "a", "b", "b", "c")
    assert joined([items(0, 1), items(1, 1)]).groups is None


def source(classes=("A", "B"), **splits):
    given = splits or {"train": items(0, 4), "test": items(4, 2)}
    return Source(text="there", name="there", classes=classes, splits=given)


def test_a_source_counts_its_classes_in_every_split():
    assert source().counts() == {"train": {"A": 2, "B": 2}, "test": {"A": 1, "B": 1}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": ()}, "there must hold images of 2 or more classes, has none"),
        ({"classes": ("A",)}, "has only 'A'"),
        ({"classes": ("A", "B", "C")}, "Class 'C' has no image in train of there"),
        ({"classes": ("A", "B\x1b")}, "characters that can't be shown"),
        ({"train": items(0, 4), "test": items(4, 1)}, "Class 'B' has no image in test"),
    ],
)
def test_a_source_that_lacks_something_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        source(**given)


@pytest.mark.parametrize(
    ("name", "short"),
    [("my images", "my_images"), ("..", "study"), ("\xe9t\xe9.v2", "\xe9t\xe9.v2")],
)
def test_a_short_name_can_be_a_studys(name, short):
    assert short_name(name) == short


def test_a_pattern_is_refused_where_there_are_no_file_names():
    refuse_pattern(None, "phantom")
    with pytest.raises(ValueError, match="Group pattern 'x' needs file names"):
        refuse_pattern("x", "phantom")
