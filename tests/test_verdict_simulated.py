"""Twins are seldom called different, and a planted difference is found with the stated power.

Models are simulated by what they get right. Images have difficulties of their own, shared by all
models; a seed moves a model's accuracy by the spread. Shapes: S seeds, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from studies.paired_tests import mcnemar_exact
from studies.scores import METRICS
from studies.verdict import difference_over_seeds, images_needed

NUM_IMAGES = 400


def models(rng, labels_N, ease_N, accuracy, spread, num_seeds):
    """Probabilities (S, N, C) of one strategy's seeds: right where an image is easy enough."""
    found = []
    for mean in np.clip(rng.normal(accuracy, spread, num_seeds), 0.55, 0.995):
        # Half of what decides is the image, half the model's own: errors of models correlate.
        latent_N = (ease_N + rng.normal(size=len(labels_N))) / 2**0.5
        is_right_N = latent_N < norm.ppf(mean)
        called_N = np.where(is_right_N, labels_N, 1 - labels_N)
        found.append(np.where(np.arange(2) == called_N[:, None], 0.9, 0.1))
    return np.stack(found)


def pair(seed, accuracies, spread, num_seeds):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(NUM_IMAGES) % 2
    ease_N = rng.normal(size=NUM_IMAGES)
    return labels_N, *(
        models(rng, labels_N, ease_N, accuracy, spread, num_seeds) for accuracy in accuracies
    )


def share_called_different(accuracies, spread, num_seeds, num_pairs):
    differing = 0
    for seed in range(num_pairs):
        labels_N, a_SNC, b_SNC = pair(seed, accuracies, spread, num_seeds)
        found = difference_over_seeds(
            METRICS["accuracy"], labels_N, a_SNC, b_SNC, num_resamples=200, seed=seed
        )
        differing += found.verdict != "not distinguishable"
    return differing


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.01, 0.02, 0.03])
def test_twins_are_called_different_in_at_most_five_in_a_hundred(spread, num_seeds):
    differing = share_called_different((0.88, 0.88), spread, num_seeds, num_pairs=300)
    assert differing <= binom.ppf(0.999, 300, 0.05)


def test_one_model_each_would_call_twins_different_far_more_often():
    differing = 0
    for seed in range(300):
        labels_N, a_SNC, b_SNC = pair(seed, (0.88, 0.88), 0.03, num_seeds=1)
        called = (p_SNC[0].argmax(axis=1) for p_SNC in (a_SNC, b_SNC))
        differing += mcnemar_exact(labels_N, *called) < 0.05
    assert differing > binom.ppf(0.999, 300, 0.10)


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_a_planted_difference_is_found_nearly_as_often_as_planned(spread):
    num_seeds, variances = 5, []
    for seed in range(20):
        labels_N, a_SNC, b_SNC = pair(seed, (0.89, 0.89), spread, num_seeds)
        found = difference_over_seeds(
            METRICS["accuracy"], labels_N, a_SNC, b_SNC, num_resamples=200, seed=seed
        )
        variances.append(found.image_variance)
    plan = {
        "image_variance": float(np.mean(variances)),
        "seed_variance": 2 * spread**2 / num_seeds,
        "num_seeds": num_seeds,
    }
    # The margin that needs as many images as there are, at a power of 80 %.
    needed = {
        margin: images_needed(margin, **plan).images or 10**9
        for margin in np.linspace(0.015, 0.14, 126)
    }
    margin = min(needed, key=lambda m: abs(needed[m] - NUM_IMAGES))
    accuracies = (0.89 + margin / 2, 0.89 - margin / 2)
    differing = share_called_different(accuracies, spread, num_seeds, num_pairs=200)
    # Its seeds' variance is estimated and not known, which costs some of it.
    assert binom.ppf(0.001, 200, 0.75) <= differing <= binom.ppf(0.999, 200, 0.85)


def test_the_interval_covers_the_true_difference():
    covered = 0
    for seed in range(300):
        labels_N, a_SNC, b_SNC = pair(seed, (0.92, 0.88), 0.02, num_seeds=3)
        found = difference_over_seeds(
            METRICS["accuracy"], labels_N, a_SNC, b_SNC, num_resamples=200, seed=seed
        )
        covered += found.low <= 0.04 <= found.high
    assert covered >= binom.ppf(0.001, 300, 0.95)
