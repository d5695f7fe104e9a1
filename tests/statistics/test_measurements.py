"""Ratios of costs, harm of training on, differences of intervals: what claims rest on.

Shapes: E epochs, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom

from studies.statistics.intervals import Interval
from studies.statistics.paired import (
    Measurement,
    as_gain,
    difference_of,
    gap_interval,
    ratio_over_seeds,
    training_harm,
)


def interval(low, high, **changes):
    return Measurement(value=(low + high) / 2, low=low, high=high, **changes)


def test_a_ratio_of_equal_costs_is_covered_and_wide_with_few_seeds():
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second = (np.exp(rng.normal(0, 0.5, 6)) * k for k in (3.0, 1.0))
        found = ratio_over_seeds(first, second)
        covered += found.low <= 3.0 <= found.high
        assert (found.p < 0.05) == (found.low > 1 or found.high < 1)
    assert covered >= binom.ppf(0.001, 200, 0.95)
    assert ratio_over_seeds([1.0], [2.0, 3.0]) is None


@pytest.mark.parametrize(("first", "ratio", "p"), [([2.0, 2.0], 2.0, 0.0), ([1.0, 1.0], 1.0, 1.0)])
def test_costs_that_never_vary_have_an_exact_ratio(first, ratio, p):
    found = ratio_over_seeds(first, [1.0, 1.0])
    assert found == Measurement(value=ratio, low=ratio, high=ratio, p=p)


def trainings(labels_N, nats_SE, seed=0):
    """Probabilities (E, N, 2) of each seed whose mean loss at every epoch is about this."""
    rng = np.random.default_rng(seed)
    found = []
    for nats_E in nats_SE:
        right_EN = np.exp(
            -rng.gamma(4.0, np.array(nats_E)[:, None] / 4.0, (len(nats_E), len(labels_N)))
        )
        right_EN = np.clip(right_EN, 1e-6, 1 - 1e-6)
        is_right = np.arange(2) == labels_N[:, None]
        found.append(np.where(is_right, right_EN[..., None], 1 - right_EN[..., None]))
    return found


LABELS_N = np.arange(200) % 2


def test_training_that_goes_on_to_lose_does_harm():
    found = training_harm(LABELS_N, trainings(LABELS_N, [[0.6, 0.3, 0.5, 0.8]] * 3))
    assert found.value == pytest.approx(0.5, abs=0.1) and found.low > 0 and found.p < 0.05


def test_training_that_ends_at_its_best_epoch_does_none():
    found = training_harm(LABELS_N, trainings(LABELS_N, [[0.8, 0.5, 0.2]] * 3))
    assert found.value == 0 and found.low <= 0 <= found.high


def test_choosing_among_equal_epochs_finds_no_harm():
    # On the images that choose, the last of 15 equal epochs always loses to the best.
    shown = 0
    for seed in range(100):
        found = training_harm(LABELS_N, trainings(LABELS_N, [[0.4] * 15] * 3, seed), seed=seed)
        shown += found.low > 0
    assert shown <= binom.ppf(0.999, 100, 0.025)


def test_images_of_a_group_choose_together_or_are_measured_together():
    # Each subject has an epoch of its own that suits all of its images and no other's.
    groups_N = np.repeat(np.arange(20), 10)
    labels_N = np.repeat(np.arange(20) % 2, 10)
    right_EN = np.where(np.arange(20)[:, None] == groups_N, 0.99, 0.5)
    is_right = np.arange(2) == labels_N[:, None]
    given_ENC = np.where(is_right, right_EN[..., None], 1 - right_EN[..., None])
    given_ENC = np.concatenate([given_ENC, np.full((1, *given_ENC.shape[1:]), 0.5)])
    whole = training_harm(labels_N, [given_ENC] * 2, groups_N=groups_N)
    torn = training_harm(labels_N, [given_ENC] * 2)
    assert whole.value == pytest.approx(0.0) and torn.value > 0.01


def test_images_that_cant_be_halved_tell_no_harm():
    assert training_harm(np.array([0, 1]), trainings(np.array([0, 1]), [[0.5, 0.4]])) is None


def test_the_difference_of_two_intervals_is_as_wide_as_both_together():
    found = difference_of(interval(0.2, 0.4), interval(0.1, 0.2))
    assert found.value == pytest.approx(0.15)
    assert found.high - found.value == pytest.approx((0.1**2 + 0.05**2) ** 0.5)
    assert found.low > 0 and found.p < 0.05
    touching = difference_of(interval(0.0, 0.2), interval(0.0, 0.0))
    assert touching.low == pytest.approx(0.0) and touching.p == pytest.approx(0.05)
    assert difference_of(None, interval(0, 1)) is None
    assert difference_of(interval(0, 0), interval(0, 0)).p == 1.0


def test_a_gap_is_as_unsure_as_the_validation_accuracy():
    gap = gap_interval(0.95, Interval(value=0.9, low=0.85, high=0.93))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.05, 0.02, 0.10))


def test_a_loss_that_falls_is_a_gain():
    found = as_gain(interval(-0.3, -0.1, optimism=(0.05, 0.0)), larger_is_better=False)
    assert (found.low, found.high, found.optimism) == (0.1, 0.3, (0.05, 0.0))
    assert as_gain(found, larger_is_better=True) is found
