"""Differences are told where they are sure and large; never from a test image's brightness.

Shapes: N images.
"""

import numpy as np
import pytest
from scipy.stats import norm

from transfer.data.check.balance import (
    MIN_CLASS_AUROC,
    aspect_ratios,
    class_balance,
    other_splits,
    rare_classes,
    shortcuts,
    small_splits,
)
from transfer.data.facts import ImageFacts
from transfer.data.opening import CheckedSplit

CLASSES = ("a", "b")


def split(labels_N, brightness_N=None, widths_N=None, **given):
    labels_N = np.asarray(labels_N)
    size = len(labels_N)
    brightness_N = [0.5] * size if brightness_N is None else brightness_N
    widths_N = [64] * size if widths_N is None else widths_N
    return CheckedSplit(
        names=tuple(map(str, range(size))),
        labels_N=labels_N,
        facts=tuple(
            ImageFacts("", "", "", "", int(width), 64, "L", "PNG", bright)
            for width, bright in zip(widths_N, brightness_N, strict=True)
        ),
        **given,
    )


def labels(*counts):
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize(("auroc", "is_told"), [(0.80, False), (0.93, True), (0.07, True)])
def test_a_class_is_told_by_brightness_from_its_auroc_on(auroc, is_told):
    rng = np.random.default_rng(0)
    brightness_N = rng.normal(size=2000)
    # Two normal distributions of that AUROC are so far apart.
    brightness_N[1000:] += norm.ppf(auroc) * 2**0.5
    findings = list(shortcuts(split(labels(1000, 1000), brightness_N), CLASSES))
    assert [finding.kind for finding in findings] == ["shortcut"] * is_told
    if is_told:
        (finding,) = findings
        assert finding.values["auroc"] == pytest.approx(max(auroc, 1 - auroc), abs=0.02)
        assert ("higher" if auroc > 0.5 else "lower") in finding.text
    assert MIN_CLASS_AUROC == 0.85


def test_in_few_images_chance_is_no_shortcut():
    told = 0
    for seed in range(200):
        brightness_N = np.random.default_rng(seed).normal(size=10)
        told += len(list(shortcuts(split(labels(5, 5), brightness_N), CLASSES)))
    assert told == 0


def test_of_several_classes_each_is_held_against_the_others():
    brightness_N = np.random.default_rng(0).normal(size=300) + np.repeat([0, 0, 9], 100)
    (finding,) = shortcuts(split(labels(100, 100, 100), brightness_N), ("a", "b", "c"))
    assert finding.values["class"] == "c"


def of_proportions(ratios_N):
    """Training images of 64 pixels' height with these ratios of width to height."""
    widths_N = np.rint(64 * np.asarray(ratios_N))
    return {"train": split(labels(len(widths_N)), widths_N=widths_N)}


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "ratios_N",
    [
        np.ones(200),
        np.full(200, 4 / 3),
        np.exp(RNG.normal(0, 0.03, 200)),
        np.repeat([4 / 3, 3 / 4], [198, 2]),
    ],
    ids=["squares", "all of one shape", "cropped a little otherwise", "two of another shape"],
)
def test_proportions_that_hardly_differ_are_not_told(ratios_N):
    assert list(aspect_ratios(of_proportions(ratios_N), "squeeze")) == []


@pytest.mark.parametrize(
    "ratios_N",
    [
        np.repeat([4 / 3, 3 / 4], [170, 30]),
        np.repeat([1, 1.25], 100),
        RNG.uniform(1.2, 1.8, 200),
    ],
    ids=["some upright", "two devices", "as films were"],
)
def test_mixed_proportions_are_told_with_the_way_to_keep_them(ratios_N):
    splits = of_proportions(ratios_N)
    (finding,) = aspect_ratios(splits, "squeeze")
    assert (finding.kind, finding.level) == ("aspect_ratios", "warning")
    assert finding.values["stretch"] == finding.values["high"] / finding.values["low"] > 1.2
    assert "--resize pad" in finding.remedy
    # Who has chosen another way is not told again.
    assert not [*aspect_ratios(splits, "pad"), *aspect_ratios(splits, "crop")]


def test_the_size_that_tells_best_is_named():
    widths_N = np.repeat([64, 80], 50)
    (finding,) = shortcuts(split(labels(50, 50), widths_N=widths_N), CLASSES)
    assert (finding.values["by"], finding.values["auroc"]) == ("width", 1.0)


def test_a_validation_set_that_was_brought_is_compared_by_brightness_as_well():
    rng = np.random.default_rng(0)
    train, test = split(labels(100, 100), rng.normal(size=200)), split(labels(50, 50))
    for shift, is_told in ((0.0, False), (2.0, True)):
        val = split(labels(50, 50), rng.normal(size=100) + shift)
        findings = list(other_splits({"train": train, "val": val, "test": test}))
        assert [finding.values["split"] for finding in findings] == ["val"] * is_told


def test_of_test_images_sizes_are_compared_and_a_brightness_is_not_even_there():
    sealed = split(labels(50, 50), [None] * 100)
    train = split(labels(100, 100))
    assert list(other_splits({"train": train, "test": sealed})) == []
    wider = split(labels(50, 50), [None] * 100, widths_N=[80] * 100)
    (finding,) = other_splits({"train": train, "test": wider})
    assert (finding.values["split"], finding.values["by"]) == ("test", "width")


@pytest.mark.parametrize(
    ("test", "is_told"),
    [((50, 50), False), ((48, 52), False), ((90, 10), True), ((2, 1), False)],
    ids=["same", "nearly", "other", "too few to know"],
)
def test_another_share_of_a_class_is_told_where_it_is_sure(test, is_told):
    splits = {"train": split(labels(200, 200)), "test": split(labels(*test))}
    findings = list(class_balance(splits, CLASSES))
    assert len(findings) == is_told
    if is_told:
        assert findings[0].text == "class 'a' is 50.0% of train and 90.0% of test"


def test_a_test_set_that_was_drawn_here_is_not_compared():
    made = split(labels(90, 10), widths_N=[80] * 100, is_made=True)
    splits = {"train": split(labels(200, 200)), "test": made}
    assert list(class_balance(splits, CLASSES)) == list(other_splits(splits)) == []


def test_rare_classes_are_told_once_a_split():
    three = ("a", "b", "c")
    splits = {
        "train": split(labels(100, 9, 50)),
        "val": split(labels(10, 10, 10)),
        "test": split(labels(10, 3, 1)),
    }
    found = list(rare_classes(splits, three))
    assert [(f.values["split"], f.values["counts"]) for f in found] == [
        ("train", {"b": 9}),
        ("test", {"b": 3, "c": 1}),
    ]
    assert found[1].text == "2 classes have fewer than 10 images in test: b (3), c (1)"


def test_a_class_of_one_size_among_others_of_smaller_and_larger_ones_is_told():
    widths_N = np.concatenate([np.full(50, 48), np.tile([32, 64], 25)])
    (finding,) = shortcuts(split(labels(50, 50), widths_N=widths_N), CLASSES)
    assert (finding.values["family"], finding.values["auroc"]) == ("size", 1.0)
    assert "size 48 x 64" in finding.text


@pytest.mark.parametrize(("num_images", "is_told"), [(70, False), (50, True)])
def test_a_small_split_is_told_with_its_interval(num_images, is_told):
    half = split(labels(num_images - num_images // 2, num_images // 2))
    findings = list(small_splits({"val": half, "test": split(labels(100, 100))}))
    assert [finding.values["split"] for finding in findings] == ["val"] * is_told
    if is_told:
        assert f"{100 * findings[0].values['width']:.0f} points wide" in findings[0].text
