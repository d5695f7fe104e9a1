"""Intervals: published values, bounds, and that they cover the truth as often as they promise."""

import numpy as np
import pytest

from studies.statistics.intervals import mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (340, 400, 0.812, 0.882),  # the coursework's fixed extractor
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_is_the_published_one(successes, n, low, high):
    digits = 5e-4 if n == 400 else 5e-5
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=digits)


@pytest.mark.parametrize("n", [1, 2, 7, 400])
def test_interval_lies_within_0_and_1_and_holds_the_proportion(n):
    for successes in range(n + 1):
        low, high = wilson_interval(successes, n)
        assert 0 <= low <= successes / n <= high <= 1
        assert low < high


def test_interval_mirrors_when_successes_and_failures_change_places():
    low, high = wilson_interval(13, 80)
    assert wilson_interval(67, 80) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_interval_covers_the_truth_as_often_as_it_promises(confidence):
    rng = np.random.default_rng(0)
    n, truths = 80, rng.uniform(0.05, 0.95, size=4000)
    intervals = [wilson_interval(k, n, confidence) for k in range(n + 1)]
    drawn = [intervals[k] for k in rng.binomial(n, truths)]
    covered = [low <= p <= high for (low, high), p in zip(drawn, truths, strict=True)]
    assert np.mean(covered) == pytest.approx(confidence, abs=0.02)


@pytest.mark.parametrize(("successes", "n"), [(-1, 4), (5, 4), (0, 0)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError):
        wilson_interval(successes, n)


def test_interval_of_a_mean_is_the_one_in_students_example():
    # Student 1908, section VIII: additional hours of sleep by D. hyoscyamine and L. hyoscyamine.
    more = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    low, high = mean_interval(more)
    assert (low + high) / 2 == pytest.approx(1.58)
    # t(0.975, 9) = 2.262 and the standard error 0.389 stand in every textbook.
    assert (high - low) / 2 == pytest.approx(2.262 * 0.389, abs=2e-3)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_interval_of_a_mean_covers_it_as_often_as_it_promises(n):
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(3.0, 2.0, size=n), 0.9) for _ in range(3000)]
    assert np.mean([low <= 3.0 <= high for low, high in intervals]) == pytest.approx(0.9, abs=0.02)


def test_interval_of_equal_values_is_that_value():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_a_mean_of_fewer_than_two_values_has_no_interval(values):
    with pytest.raises(ValueError, match="2 or more values"):
        mean_interval(values)
