"""Intervals: published values, bounds, and that they cover the truth as often as they promise."""

import numpy as np
import pytest

from studies.statistics import wilson_interval


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
