"""Sentences follow from the numbers, and say nothing that they don't."""

from dataclasses import replace

import pytest
from test_points_lost import explained

from studies.explanation.explanation import NAMES, REMEDIES, Level, sentences
from studies.statistics.intervals import Interval


@pytest.fixture(scope="module")
def shifted():
    return explained(shift=2.0, num_resamples=30)


def test_the_class_is_named_with_its_numbers(shifted):
    text = " ".join(sentences(shifted))
    path = shifted.leading_class
    assert "Most is lost to shift" in text and "Shift costs most in NORMAL" in text
    assert f"recall {path.validation:.3f} on validation, {path.test:.3f} on test images" in text
    assert "Within NORMAL, test images can be told from validation images: AUROC 0.9" in text
    assert sentences(shifted)[-1] == f"What helps: {REMEDIES['shift']}"


def test_the_sum_is_told_in_points(shifted):
    lost = 100 * (shifted.forecast.naive - shifted.test)
    assert f"on test images: {lost:.1f} points lost." in sentences(shifted)[0]


def test_a_loss_is_told_in_nats():
    found = explained(metric="loss", shift=2.0)
    assert "nats lost" in sentences(found)[0]
    assert " points" not in " ".join(sentences(found)[:2])


def test_a_gain_is_no_loss(shifted):
    better = replace(shifted, test=shifted.forecast.naive + 0.01)
    assert "1.0 points gained." in sentences(better)[0]


def test_a_step_that_loses_more_than_the_whole_is_no_part_of_it(shifted):
    better = replace(shifted, test=shifted.forecast.naive + 0.01)
    less = replace(shifted, test=shifted.forecast.naive - 0.001)
    for found in (better, less):
        assert sentences(found)[1].startswith("The step that loses most is shift")
        assert " of 1.0 points" not in sentences(found)[1]


def test_of_many_classes_one_that_chance_tells_apart_is_not_told_apart():
    level = Level(images="a", test=Interval(value=0.7, low=0.6, high=0.8), reference=None, p=0.03)
    assert level.is_told_apart
    assert not replace(level, adjusted_p=0.2).is_told_apart
    found = replace(explained(num_resamples=10), levels=(replace(level, adjusted_p=0.2),))
    (line,) = (line for line in sentences(found) if "Within a" in line)
    assert "are not shown to differ" in line
    assert "(permutation p = 0.03, by Holm's method 0.2)" in line


def test_without_a_cause_no_cause_is_named():
    found = explained(num_val=40, num_test=40, epochs=0.01)
    text = " ".join(sentences(found))
    assert "No cause is shown" in text
    assert "costs most" not in text and "What helps" not in text


def test_the_best_threshold_is_marked(shifted):
    (best,) = (line for line in sentences(shifted) if "best threshold" in line)
    assert "not attainable" in best


def test_without_anything_in_common_it_says_that_nothing_tells_shift_from_rest():
    text = " ".join(sentences(explained(shift=12.0)))
    assert "nothing tells shift from rest" in text


def test_every_cause_has_a_name_and_a_remedy():
    assert set(NAMES) == set(REMEDIES) - {"threshold"}
