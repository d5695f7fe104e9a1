"""DeLong's interval by its components, Holm by its steps."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from studies.statistics.intervals import score_interval
from studies.statistics.paired import delong_interval, holm


def scores(seed=0, num_images=60):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % 2
    return labels_N, rng.normal(size=num_images) + labels_N


def placements(labels_N, scores_N):
    """DeLong's structural components, pair by pair."""
    ones, zeros = scores_N[labels_N == 1], scores_N[labels_N == 0]
    table = (ones[:, None] > zeros) + 0.5 * (ones[:, None] == zeros)
    return table.mean(), table.mean(axis=1), table.mean(axis=0)


def test_delongs_interval_has_the_variance_of_its_components_pair_by_pair():
    labels_N, scores_N = scores()
    value, ones, zeros = placements(labels_N, scores_N)
    variance = ones.var(ddof=1) / len(ones) + zeros.var(ddof=1) / len(zeros)
    found = delong_interval(labels_N, scores_N)
    images = value * (1 - value) / variance
    assert found.value == pytest.approx(value)
    wilson = score_interval(float(value), float(images), float(norm.ppf(0.975)))
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))


def test_holm_multiplies_the_smallest_by_their_number_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_delong_knows_nothing_of_a_class_of_one_image():
    found = delong_interval(np.array([0, 0, 0, 1]), np.arange(4.0))
    assert found.value == found.high == 1.0 and found.low < 0.6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_delong_refuses_scores_that_are_not_finite_and_labels_of_one_class(bad):
    with pytest.raises(ValueError, match="must be finite"):
        delong_interval(np.array([0, 1]), np.array([0.0, bad]))
    with pytest.raises(ValueError, match="both and no other"):
        delong_interval(np.zeros(3, np.int64), np.zeros(3))


@pytest.mark.parametrize("auroc", [0.8, 0.95])
def test_delongs_interval_covers(auroc):
    labels_N, covered = (np.arange(80) % 4 == 0).astype(np.int64), 0
    shift = norm.ppf(auroc) * 2**0.5
    for seed in range(400):
        score_N = np.random.default_rng(seed).normal(size=80) + shift * labels_N
        found = delong_interval(labels_N, score_N)
        covered += found.low <= auroc <= found.high
    assert covered >= binom.ppf(0.001, 400, 0.95)


@pytest.mark.parametrize("p_values", [[0.1, float("nan")], [-0.1], [1.1]])
def test_holm_refuses_what_is_no_p_value(p_values):
    with pytest.raises(ValueError, match="0 <= p <= 1"):
        holm(p_values)
