"""Intervals of one model and over seeds cover the truth in 95 of 100 cases.

Shapes: S seeds, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from studies.scores import METRICS
from studies.statistics import bootstrap_over_seeds, stratified_bootstrap, wilson_interval

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


@pytest.mark.parametrize("spread", [0.0, 0.03])
def test_the_interval_over_seeds_covers_what_further_seeds_average_to(spread):
    labels_N, covered = np.arange(400) % 2, 0
    for seed in range(NUM_RUNS):
        rng = np.random.default_rng(seed)
        ease_N = rng.normal(size=400)
        runs = []
        for mean in np.clip(rng.normal(0.88, spread, 3), 0.6, 0.99):
            latent_N = (ease_N + rng.normal(size=400)) / 2**0.5
            runs.append(called(labels_N, latent_N < norm.ppf(mean)))
        found = bootstrap_over_seeds(
            METRICS["accuracy"], labels_N, np.stack(runs), num_resamples=200, seed=seed
        )
        covered += found.low <= 0.88 <= found.high
    assert covered >= binom.ppf(0.001, NUM_RUNS, 0.95)


def test_perfect_predictions_are_no_proof_of_perfection():
    labels_N = np.arange(80) % 2
    found = stratified_bootstrap(METRICS["accuracy"], labels_N, called(labels_N, labels_N >= 0))
    low, _ = wilson_interval(80, 80)
    assert (found.value, found.high) == (1.0, 1.0) and found.low == pytest.approx(low)
