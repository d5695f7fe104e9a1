"""Tests of two models: DeLong by its components, McNemar by its binomial, Holm by its steps."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

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
