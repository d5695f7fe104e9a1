"""Intervals of one model cover the truth; those over seeds are `test_simulated_studies`'.

Shapes: S seeds, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from studies.statistics.intervals import (
    bootstrap_over_seeds,
    stratified_bootstrap,
    wilson_interval,
)
from studies.statistics.metrics import METRICS

NUM_RUNS = 300


def called(labels_N, is_right_N):
    called_N = np.where(is_right_N, labels_N, 1 - labels_N)
    return np.where(np.arange(2) == called_N[:, None], 0.9, 0.1)


@pytest.mark.parametrize("num_images", [80, 400])
@pytest.mark.parametrize("accuracy", [0.8, 0.9, 0.98])
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_the_interval_of_one_model_covers(name, accuracy, num_images):
    labels_N = np.arange(num_images) % 2
    covered = 0
    for seed in range(NUM_RUNS):
        is_right_N = np.random.default_rng(seed).random(num_images) < accuracy
        found = stratified_bootstrap(
            METRICS[name], labels_N, called(labels_N, is_right_N), num_resamples=200
        )
        covered += found.low <= accuracy <= found.high
    # Counts are whole: no interval covers at exactly 95 % of every accuracy.
    assert covered >= binom.ppf(0.001, NUM_RUNS, 0.93)


def test_the_interval_of_auroc_covers():
    labels_N, covered, shift = np.arange(200) % 2, 0, 1.5
    truth = float(norm.cdf(shift / 2**0.5))
    for seed in range(NUM_RUNS):
        score_N = np.random.default_rng(seed).normal(size=200) + shift * labels_N
        p_N = 1 / (1 + np.exp(-score_N))
        found = stratified_bootstrap(
            METRICS["auroc"], labels_N, np.stack([1 - p_N, p_N], axis=1), num_resamples=200
        )
        covered += found.low <= truth <= found.high
    assert covered >= binom.ppf(0.001, NUM_RUNS, 0.93)


def test_perfect_predictions_are_no_proof_of_perfection():
    labels_N = np.arange(80) % 2
    found = stratified_bootstrap(METRICS["accuracy"], labels_N, called(labels_N, labels_N >= 0))
    low, _ = wilson_interval(80, 80)
    assert (found.value, found.high) == (1.0, 1.0) and found.low == pytest.approx(low)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    "labels_N", [np.r_[np.zeros(40, np.int64), 1], np.r_[np.zeros(30, np.int64), [1] * 9, 2]]
)
def test_a_class_of_one_image_has_an_interval(name, labels_N):
    num_classes = labels_N.max() + 1
    rng = np.random.default_rng(0)
    p_NC = rng.dirichlet(np.ones(num_classes), len(labels_N)) / 2
    p_NC[np.arange(len(labels_N)), labels_N] += 0.5
    found = stratified_bootstrap(METRICS[name], labels_N, p_NC, num_resamples=100)
    assert 0 <= found.low <= found.value <= found.high
    seeds = bootstrap_over_seeds(METRICS[name], labels_N, p_NC[None], num_resamples=100)
    assert 0 <= seeds.low <= seeds.value <= seeds.high
    if METRICS[name].by_class:
        # A whole class rests on one image: half of two classes, a third of three.
        assert found.high - found.low > 1 / num_classes - 0.1


def test_a_metric_of_ones_own_has_an_interval():
    labels_N = np.arange(100) % 2
    p_NC = called(labels_N, np.arange(100) > 20)
    own = stratified_bootstrap(
        lambda labels, p: float((p.argmax(axis=1) == labels).mean()),
        labels_N,
        p_NC,
        num_resamples=500,
    )
    ours = stratified_bootstrap(METRICS["accuracy"], labels_N, p_NC, num_resamples=500)
    assert (own.low, own.high) == pytest.approx((ours.low, ours.high), abs=0.02)


def test_two_images_of_two_classes_have_no_interval():
    with pytest.raises(ValueError, match="some class has 2 or more images"):
        stratified_bootstrap(METRICS["accuracy"], np.array([0, 1]), np.full((2, 2), 0.5))


def test_the_loss_of_one_model_is_covered():
    shift, labels_N, covered = 1.5, np.arange(156) % 2, 0

    def loss_of(seed, num_images=156):
        score_N = np.random.default_rng(seed).normal(size=num_images) + shift * (
            np.arange(num_images) % 2
        )
        p_N = 1 / (1 + np.exp(-shift * (score_N - shift / 2)))
        return np.stack([1 - p_N, p_N], axis=1)

    truth = METRICS["loss"](np.arange(200_000) % 2, loss_of(10**6, 200_000))
    for seed in range(4 * NUM_RUNS):
        found = stratified_bootstrap(METRICS["loss"], labels_N, loss_of(seed), num_resamples=100)
        covered += found.low <= truth <= found.high
    assert covered >= binom.ppf(0.001, 4 * NUM_RUNS, 0.94)


def test_one_error_of_one_seed_is_no_proof_that_seeds_err_on_different_images():
    labels_N = np.arange(80) % 2
    runs = [called(labels_N, np.arange(80) >= wrong) for wrong in (1, 0, 0, 0, 0)]
    found = bootstrap_over_seeds(METRICS["accuracy"], labels_N, np.stack(runs))
    as_if_of_other_images, _ = wilson_interval(5 * 80 - 1, 5 * 80)
    assert found.low < as_if_of_other_images - 0.02
