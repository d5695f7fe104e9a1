"""Look-alikes are told where they may mean something: rare, and of nobody knows whom."""

import numpy as np
import pytest

from transfer.data import leakage
from transfer.data.facts import ImageFacts
from transfer.data.leakage import copies_across, near_duplicates
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


@pytest.mark.parametrize(
    ("count", "knows_groups", "is_told"),
    [(5, False, True), (5, True, False), (50, False, False)],
    ids=["rare", "known to be of others", "all look alike"],
)
def test_look_alikes_are_told_while_rare_and_unknown(splits, count, knows_groups, is_told):
    assert leakage.ONE_PAIR_IN == 10_000  # of 124,750 pairs 12 are allowed
    findings = list(near_duplicates(look_alike(splits, count, **OTHER), knows_groups=knows_groups))
    assert [finding.kind for finding in findings] == ["near_duplicates_across_splits"] * is_told
    if is_told:
        assert findings[0].values["same_picture"] == 0 and "none of them" in findings[0].text


@pytest.mark.parametrize("count", [5, 50])
@pytest.mark.parametrize("knows_groups", [True, False])
def test_the_same_picture_is_told_in_any_case(splits, count, knows_groups):
    (finding,) = near_duplicates(look_alike(splits, count), knows_groups=knows_groups)
    assert finding.values["same_picture"] == finding.values["count"] == count


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
    remedies = {tuple(f.values["splits"]): f.remedy for f in copies_across(three)}
    assert "the copy in test alone" in remedies["val", "test"]
    assert "the copy in train alone" in remedies["train", "test"]
