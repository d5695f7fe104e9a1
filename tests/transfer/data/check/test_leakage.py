"""Look-alikes are told where they may mean something: rare, and of nobody knows whom."""

from dataclasses import replace

import numpy as np
import pytest

from transfer.data.check.leakage import copies_across, near_duplicates
from transfer.data.facts import ImageFacts
from transfer.data.opening import CheckedSplit


def hexadecimal(bits):
    return np.packbits(bits).tobytes().hex()


def random_split(rng, num_images):
    facts = [
        ImageFacts(
            content=str(i),
            pixels=str(rng.integers(2**62)),
            coarse=hexadecimal(rng.integers(0, 2, 64, dtype=np.uint8)),
            fine=hexadecimal(rng.integers(0, 2, 256, dtype=np.uint8)),
            width=8,
            height=8,
            mode="L",
            format="PNG",
            brightness=0.5,
        )
        for i in range(num_images)
    ]
    return CheckedSplit(
        names=tuple(f"{i}.png" for i in range(num_images)),
        labels_N=np.arange(num_images) % 2,
        facts=tuple(facts),
    )


@pytest.fixture
def splits():
    rng = np.random.default_rng(0)
    return {"train": random_split(rng, 400), "test": random_split(rng, 100)}


def look_alike(splits, count, **changes):
    """The first test images look like the first training images."""
    train, test = splits["train"], splits["test"]
    facts = [train.facts[i]._replace(**changes, pixels=f"other {i}") for i in range(count)]
    return {
        **splits,
        "test": CheckedSplit(
            names=test.names, labels_N=test.labels_N, facts=(*facts, *test.facts[count:])
        ),
    }


OTHER = {"fine": "0" * 64}


def within(splits, count):
    """So many training images look alike, and test images as often: as chance has it."""
    train = splits["train"]
    facts = [
        fact._replace(coarse=train.facts[0].coarse) if i < count else fact
        for i, fact in enumerate(train.facts)
    ]
    test = splits["test"]
    others = [
        fact._replace(coarse=train.facts[0].coarse) if i < count // 4 else fact
        for i, fact in enumerate(test.facts)
    ]
    return {
        "train": replace(train, facts=tuple(facts)),
        "test": replace(test, facts=tuple(others)),
    }


@pytest.mark.parametrize(
    ("count", "knows_groups", "is_told"),
    [(3, False, True), (3, True, False), (40, False, False)],
    ids=["rare", "known to be of others", "all look alike"],
)
def test_as_many_look_alikes_as_chance_makes_are_told_while_rare_and_unknown(
    splits, count, knows_groups, is_told
):
    changed = within(splits, count) if count > 3 else look_alike(splits, 1, **OTHER)
    findings = list(near_duplicates(changed, knows_groups=knows_groups))
    assert [finding.kind for finding in findings] == ["near_duplicates_across_splits"] * is_told
    if is_told:
        assert findings[0].values["same_picture"] == 0 and "none of them" in findings[0].text


@pytest.mark.parametrize("knows_groups", [True, False])
@pytest.mark.parametrize("num_images", [40, 400])
def test_more_pairs_across_splits_than_within_are_told_in_any_case(
    splits, num_images, knows_groups
):
    some = {name: split.subset(np.arange(num_images // 4)) for name, split in splits.items()}
    some["train"] = splits["train"].subset(np.arange(num_images))
    (finding,) = near_duplicates(look_alike(some, 10, **OTHER), knows_groups=knows_groups)
    assert (finding.values["count"], finding.values["same_picture"]) == (10, 0)


@pytest.mark.parametrize("count", [5, 50])
@pytest.mark.parametrize("knows_groups", [True, False])
def test_the_same_picture_is_told_in_any_case(splits, count, knows_groups):
    (finding,) = near_duplicates(look_alike(splits, count), knows_groups=knows_groups)
    assert finding.values["same_picture"] == finding.values["count"] == count


def test_flat_images_look_like_nothing(splits):
    flat = look_alike(splits, 50, coarse="", fine="")
    train = replace(
        splits["train"], facts=tuple(f._replace(coarse="", fine="") for f in splits["train"].facts)
    )
    assert list(near_duplicates({**flat, "train": train}, knows_groups=False)) == []


def test_thousands_of_copies_are_looked_at_once(splits):
    train = splits["train"]
    many = replace(train, facts=train.facts[:1] * len(train))
    assert list(near_duplicates({**splits, "train": many}, knows_groups=False)) == []


def test_in_a_small_set_the_same_picture_alone_is_told(splits):
    small = {name: split.subset(np.arange(20)) for name, split in splits.items()}
    assert list(near_duplicates(look_alike(small, 1, **OTHER), knows_groups=False)) == []
    (finding,) = near_duplicates(look_alike(small, 1), knows_groups=False)
    assert finding.values["distances"] == [[0, 0]]


def test_pixels_that_are_the_same_are_no_near_duplicates(splits):
    test = splits["test"]
    same = {
        **splits,
        "test": CheckedSplit(
            names=test.names,
            labels_N=test.labels_N,
            facts=(splits["train"].facts[0], *test.facts[1:]),
        ),
    }
    assert list(near_duplicates(same, knows_groups=False)) == []
    (finding,) = copies_across(same)
    assert (
        finding.text == "1 image stands in both train and test (the same pixels; 1 byte for byte)"
    )
    assert finding.values["other_class"] == 0


def test_copies_of_another_class_are_counted(splits):
    test = splits["test"]
    facts = (test.facts[0], *splits["train"].facts[:2], *test.facts[3:])
    swapped = {
        **splits,
        "test": CheckedSplit(names=test.names, labels_N=test.labels_N, facts=facts),
    }
    (finding,) = copies_across(swapped)
    assert finding.values["other_class"] == 2
    assert finding.text.endswith("; 2 of them with different classes")


def test_three_splits_are_held_against_each_other(splits):
    three = {
        "train": splits["train"],
        "val": splits["train"].subset(np.arange(3)),
        "test": splits["test"].subset(np.arange(9)),
    }
    three["test"] = three["val"].subset(np.arange(1))
    told = {tuple(f.values["splits"]): f.values["count"] for f in copies_across(three)}
    assert told == {("train", "val"): 3, ("train", "test"): 1, ("val", "test"): 1}
    # The copy in train stays, whichever two are held against each other.
    assert all("the copy in train alone" in f.remedy for f in copies_across(three))
    two = {**three, "train": splits["test"].subset(np.arange(5))}
    (finding,) = copies_across(two)
    assert "the copy in test alone" in finding.remedy


def test_copies_within_a_split_do_not_count_as_copies_across(splits):
    first = splits["train"].facts[0]
    train = replace(
        splits["train"].subset(np.arange(4)),
        facts=(first, first, *splits["train"].facts[2:4]),
        labels_N=np.array([0, 1, 0, 1]),
    )
    test = splits["test"].subset(np.arange(1))
    same = replace(test, facts=(first._replace(content="other bytes"),), labels_N=np.array([1]))
    (finding,) = copies_across({"train": train, "test": same})
    assert (finding.values["byte_identical"], finding.values["other_class"]) == (0, 0)
