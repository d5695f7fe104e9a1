"""The best of many equal trials is corrected to what it is worth, and its interval covers that.

Shapes: E epochs, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from studies.optimism import selection_optimism
from studies.scores import METRICS

NUM_TRIALS, NUM_EPOCHS, NUM_IMAGES = 30, 20, 78
ACCURACY = 0.8


def study(seed, *, shared=0.0, accuracies=None):
    """A study whose epochs are right independently, or share errors by images of their own ease.

    Args:
        shared: the correlation of what decides between any two epochs.
    """
    rng = np.random.default_rng(seed)
    labels_N = np.arange(NUM_IMAGES) % 2
    accuracies = [ACCURACY] * NUM_TRIALS if accuracies is None else accuracies
    ease_N = rng.normal(size=NUM_IMAGES)
    trials = []
    for accuracy in accuracies:
        noise_EN = rng.normal(size=(NUM_EPOCHS, NUM_IMAGES))
        latent_EN = shared**0.5 * ease_N + (1 - shared) ** 0.5 * noise_EN
        is_right_EN = latent_EN < norm.ppf(accuracy)
        called_EN = np.where(is_right_EN, labels_N, 1 - labels_N)
        confidence_EN = rng.uniform(0.6, 0.95, called_EN.shape)
        is_called_ENC = np.arange(2) == called_EN[..., None]
        trials.append(
            np.where(is_called_ENC, confidence_EN[..., None], 1 - confidence_EN[..., None])
        )
    return labels_N, trials


def corrected(seeds, **given):
    metric = METRICS["accuracy"]
    return [
        selection_optimism(*study(seed, **given), metric, num_resamples=100, seed=seed)
        for seed in seeds
    ]


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_best_of_equal_trials_is_corrected_to_a_point_on_average(shared):
    found = corrected(range(60), shared=shared)
    naive = float(np.mean([f.naive for f in found]))
    value = float(np.mean([f.corrected.value for f in found]))
    # Shared errors move all trials of a study alike: that noise is in the mean as well.
    noise = 3 * (ACCURACY * (1 - ACCURACY) / NUM_IMAGES / len(found)) ** 0.5
    assert naive > ACCURACY + (0.08 if shared == 0 else 0.03)
    assert abs(value - ACCURACY) < 0.01 + (noise if shared else 0.0)
    covered = sum(f.corrected.low <= ACCURACY <= f.corrected.high for f in found)
    assert covered >= binom.ppf(0.001, len(found), 0.95)


def test_a_trial_that_is_truly_better_is_not_corrected_down_to_the_others():
    found = corrected(range(30), accuracies=[0.7] * 9 + [0.9])
    value = float(np.mean([f.corrected.value for f in found]))
    assert abs(value - 0.9) < 0.02
    assert sum(f.trial == 9 for f in found) >= 28


@pytest.mark.slow
def test_two_hundred_null_studies_are_right_to_a_point():
    found = corrected(range(200))
    assert np.mean([f.naive for f in found]) > ACCURACY + 0.09
    assert abs(np.mean([f.corrected.value for f in found]) - ACCURACY) < 0.01
    covered = sum(f.corrected.low <= ACCURACY <= f.corrected.high for f in found)
    assert covered >= binom.ppf(0.001, 200, 0.95)
