"""Tests of two models: DeLong by its components, McNemar by its binomial, Holm by its steps."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from studies.paired_tests import delong, delong_interval, holm, mcnemar_exact


def scores(seed=0, num_images=60):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % 2
    return labels_N, rng.normal(size=num_images) + labels_N, rng.normal(size=num_images) + labels_N


def placements(labels_N, scores_N):
    """DeLong's structural components, pair by pair."""
    ones, zeros = scores_N[labels_N == 1], scores_N[labels_N == 0]
    table = (ones[:, None] > zeros) + 0.5 * (ones[:, None] == zeros)
    return table.mean(), table.mean(axis=1), table.mean(axis=0)


def test_delong_is_what_its_components_give_pair_by_pair():
    labels_N, a_N, b_N = scores()
    a, b = placements(labels_N, a_N), placements(labels_N, b_N)
    variance = sum((x - y).var(ddof=1) / len(x) for x, y in zip(a[1:], b[1:], strict=True))
    difference, p = delong(labels_N, a_N, b_N)
    assert difference == pytest.approx(a[0] - b[0])
    assert p == pytest.approx(2 * norm.sf(abs(difference) / variance**0.5))
    found = delong_interval(labels_N, a_N)
    assert found.value == pytest.approx(a[0]) and found.low < found.value < found.high


def test_delong_of_a_model_with_itself_finds_nothing():
    labels_N, a_N, _ = scores()
    assert delong(labels_N, a_N, a_N) == (0.0, 1.0)


def test_mcnemar_looks_at_images_on_which_one_alone_is_right():
    labels_N = np.zeros(20, np.int64)
    a_N, b_N = labels_N.copy(), labels_N.copy()
    a_N[:1], b_N[1:9] = 1, 1  # b is wrong alone on 8 images, a on one.
    assert mcnemar_exact(labels_N, a_N, b_N) == pytest.approx(binomtest(1, 9).pvalue)
    assert mcnemar_exact(labels_N, a_N, a_N) == 1.0


def test_holm_multiplies_the_smallest_by_their_number_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_delong_knows_nothing_of_a_class_of_one_image():
    labels_N, a_N, b_N = np.array([0, 0, 0, 1]), np.arange(4.0), -np.arange(4.0)
    assert delong(labels_N, a_N, b_N) == (1.0, 1.0)
    found = delong_interval(labels_N, a_N)
    assert found.value == found.high == 1.0 and found.low < 0.6


def test_delong_of_perfect_and_constant_scores_is_no_surer_than_their_images_allow():
    labels_N = np.array([0, 0, 1, 1])
    difference, p = delong(labels_N, labels_N.astype(float), np.zeros(4))
    # One of six ways to hand out two ones is as extreme, and another on the other side.
    assert difference == 0.5 and p == pytest.approx(2 / 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_delong_refuses_scores_that_are_not_finite_and_labels_of_one_class(bad):
    with pytest.raises(ValueError, match="must be finite"):
        delong(np.array([0, 1]), np.array([0.0, bad]), np.zeros(2))
    with pytest.raises(ValueError, match="both and no other"):
        delong(np.zeros(3, np.int64), np.zeros(3), np.zeros(3))


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


def test_mcnemar_refuses_models_of_different_images():
    with pytest.raises(ValueError, match="as long as one another"):
        mcnemar_exact(np.zeros(3, np.int64), np.zeros(2, np.int64), np.zeros(3, np.int64))
