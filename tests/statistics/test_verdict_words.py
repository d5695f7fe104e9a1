"""What is said follows from the interval and the margin, and says what it is about."""

import numpy as np
import pytest

from studies.statistics.intervals import Interval
from studies.statistics.metrics import METRICS
from studies.statistics.paired import Difference
from studies.statistics.sample_size import ImagesNeeded
from studies.statistics.verdict_words import (
    default_margin,
    is_beyond,
    is_within,
    two_digits,
    verdict_of,
    verdict_sentence,
)

MARGIN = 0.02


def interval(low, high):
    return Interval(value=(low + high) / 2, low=low, high=high)


def difference(low, high, **changes):
    fields = {
        "value": (low + high) / 2,
        "low": low,
        "high": high,
        "p": 0.5,
        "verdict": "undecided",
        "num_images": 400,
        "num_seeds": 3,
        "seeds_known": True,
        "image_variance": 0.1,
        "own_variance": 0.05,
        "seed_variance": 1e-5,
    }
    return Difference(**{**fields, **changes})


CASES = [
    # low, high, verdict, shown to be beyond the margin, shown to be within it
    (0.025, 0.06, "better", True, False),
    (0.001, 0.06, "better", False, False),
    (0.001, 0.015, "better", False, True),
    (-0.06, -0.025, "worse", True, False),
    (-0.06, -0.001, "worse", False, False),
    (-0.015, -0.001, "worse", False, True),
    (-0.015, 0.015, "as good as", False, True),
    (-0.015, 0.03, "not worse", False, False),
    (-0.03, 0.015, "not better", False, False),
    (-0.03, 0.03, "undecided", False, False),
    (-0.02, 0.02, "undecided", False, False),  # On the margin nothing is shown.
    (0.0, 0.01, "as good as", False, True),
    (-0.0015, 0.0114, "as good as", False, True),
]


@pytest.mark.parametrize(("low", "high", "verdict", "beyond", "within"), CASES)
def test_the_verdict_is_what_interval_and_margin_allow(low, high, verdict, beyond, within):
    found = interval(low, high)
    assert verdict_of(found, MARGIN) == verdict
    assert is_beyond(found, MARGIN) is beyond and is_within(found, MARGIN) is within


@pytest.mark.parametrize(("low", "high", "verdict", "beyond", "within"), CASES)
def test_of_a_loss_the_same_holds_for_what_is_gained(low, high, verdict, beyond, within):
    found = interval(-high, -low)
    assert verdict_of(found, MARGIN, larger_is_better=False) == verdict
    assert is_beyond(found, MARGIN) is beyond and is_within(found, MARGIN) is within


def test_without_a_declared_margin_zero_alone_decides():
    assert verdict_of(interval(-0.001, 0.001), None) == "undecided"
    assert verdict_of(interval(0.001, 0.01), None) == "better"


def test_the_margin_of_a_loss_is_a_share_of_what_can_be_learned():
    assert default_margin(METRICS["accuracy"], [30, 10]) == 0.02
    balanced = default_margin(METRICS["loss"], [10, 10])
    assert balanced == pytest.approx(0.02 * np.log(2), rel=0.03)
    assert default_margin(METRICS["loss"], [10, 10, 0]) == balanced
    assert default_margin(METRICS["loss"], [190, 10]) < balanced / 3


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, 1), (9, 9), (10, 10), (99, 99), (101, 110), (1999, 2000), (1948, 2000), (20001, 21000)],
)
def test_planned_numbers_are_rounded_up_to_two_digits(count, shown):
    assert two_digits(count) == shown


def said(low, high, *, metric="accuracy", margin=MARGIN, needed=None, **changes):
    return verdict_sentence(
        difference(low, high, **changes),
        metric,
        first="the tuned one",
        second="the frozen one",
        margin=margin,
        needed=needed,
    )


BASIS = "for further seeds on further images, trained on these training images"
OF_THREE = "(400 test images, taken as independent, 3 seeds of each)."


@pytest.mark.parametrize(
    ("bounds", "start"),
    [
        (
            (0.025, 0.055),
            "The tuned one is better than the frozen one by 4.0 points of accuracy [2.5, 5.5] and "
            "so by more than 2 points, ",
        ),
        (
            (-0.015, -0.005),
            "The tuned one is worse than the frozen one by 1.0 points of accuracy [0.5, 1.5], but "
            "by less than 2 points, ",
        ),
        (
            (-0.01, 0.015),
            "The tuned one is as good as the frozen one within 2 points of accuracy: a difference "
            "of +0.2 points of accuracy [-1.0, +1.5], ",
        ),
        (
            (-0.01, 0.05),
            "The tuned one is not worse than the frozen one by more than 2 points of accuracy: ",
        ),
        (
            (-0.05, 0.01),
            "The tuned one is not better than the frozen one by more than 2 points of accuracy: ",
        ),
    ],
)
def test_every_verdict_has_its_sentence_and_says_what_it_is_for(bounds, start):
    text = said(*bounds)
    assert text.startswith(start) and text.endswith(f"{BASIS} {OF_THREE}")


def test_what_is_undecided_says_what_it_would_take_and_nothing_else_does():
    needed = ImagesNeeded(images=1948, seeds=3, images_with_seeds=1948)
    text = said(-0.03, 0.04, needed=needed)
    assert text.startswith("Whether the tuned one is better or worse than the frozen one is undec")
    assert text.endswith("; to show 2 points would take about 2,000 test images.")
    assert said(-0.03, 0.04).endswith("to show 2 points would take more than could be had.")
    for bounds in ((0.01, 0.03), (-0.01, 0.01), (-0.01, 0.04)):
        assert "would take" not in said(*bounds)


def test_where_seeds_hide_the_margin_more_of_them_are_asked_for():
    hidden = ImagesNeeded(images=None, seeds=7, images_with_seeds=1234)
    text = said(-0.1, 0.1, needed=hidden)
    assert text.endswith(
        "about 1,300 test images and 7 seeds of each: with 3 seeds no number of images is enough."
    )
    either = ImagesNeeded(images=9000, seeds=7, images_with_seeds=1234)
    assert "about 9,000 test images, or about 1,300 test images and 7" in said(
        -0.1, 0.1, needed=either
    )


def test_with_one_seed_it_is_about_these_two_models_alone():
    text = said(0.03, 0.05, num_seeds=1, seeds_known=False)
    assert "for these two models alone on further images, as how much seeds matter is" in text
    assert "1 seed of each" in text and "further seeds" not in text


def test_a_difference_of_loss_is_in_its_own_unit_and_less_is_better():
    text = said(-0.2, -0.1, metric="loss", margin=0.014)
    assert text.startswith("The tuned one is better than the frozen one by 0.150 of loss [0.100,")
    assert "and so by more than 0.014" in text and "point" not in text


def test_without_a_margin_nothing_is_said_of_it():
    assert "would take" not in said(-0.03, 0.04, margin=None)
    assert "more than" not in said(0.03, 0.05, margin=None)


def test_seeds_that_differ_in_number_are_told():
    text = verdict_sentence(
        difference(-0.1, 0.1),
        "accuracy",
        first="a",
        second="b",
        margin=None,
        needed=None,
        seeds_of_each=(2, 3),
    )
    assert "400 test images, taken as independent, 2 against 3 seeds" in text
