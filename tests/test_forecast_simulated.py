"""Forecasts of simulated studies are right on average, and their intervals hold the results.

Shapes: E epochs, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from studies.forecast import Predicted, forecast
from studies.scores import METRICS

NUM_TRIALS, NUM_EPOCHS, NUM_TEST, TOP = 30, 20, 400, 2
ACCURACY = METRICS["accuracy"]


def simulated(
    seed, *, num_val=78, num_seeds=3, shared=0.3, own=0.3, of_seed=0.2, spread=0.0, seed_spread=0.0
):
    """A study to its end: forecast, the configuration's true accuracy, the test set's.

    Args:
        shared: of what decides on an image the part that is the image's ease.
        own: the part that all trainings of a configuration share.
        of_seed: the part that all epochs of a training share. The rest lasts by 0.8 an epoch.
        spread: of the true accuracies of configurations.
        seed_spread: of those of one configuration's trainings.
    """
    rng = np.random.default_rng(seed)
    labels_N, ease_N = np.arange(num_val) % 2, rng.normal(size=num_val)
    weights = np.sqrt([shared, own, of_seed, 1 - shared - own - of_seed])

    def training(own_N, accuracy):
        rest_EN = rng.normal(size=(NUM_EPOCHS, num_val))
        for epoch in range(1, NUM_EPOCHS):
            rest_EN[epoch] = 0.6 * rest_EN[epoch] + 0.8 * rest_EN[epoch - 1]
        parts = [ease_N, own_N, rng.normal(size=num_val), rest_EN]
        latent_EN = sum(w * part for w, part in zip(weights, parts, strict=True))
        called_EN = np.where(latent_EN < norm.ppf(accuracy), labels_N, 1 - labels_N)
        sure_EN = rng.uniform(0.6, 0.95, called_EN.shape)[..., None]
        is_called = np.arange(2) == called_EN[..., None]
        return Predicted(labels_N, np.where(is_called, sure_EN, 1 - sure_EN))

    def best(found):
        return max(ACCURACY(labels_N, row_NC) for row_NC in found.probabilities_ENC)

    def with_seed(accuracy):
        return float(np.clip(accuracy + seed_spread * rng.normal(), 0.3, 0.995))

    accuracies = np.clip(0.8 + spread * rng.normal(size=NUM_TRIALS), 0.5, 0.99)
    owns = [rng.normal(size=num_val) for _ in accuracies]
    trials = [training(own, with_seed(a)) for own, a in zip(owns, accuracies, strict=True)]
    candidates = np.argsort([-best(trial) for trial in trials])[:TOP]
    trained = {}
    for i in candidates:
        of_seeds = [with_seed(accuracies[i]) for _ in range(num_seeds)]
        trained[i] = of_seeds, [training(owns[i], a) for a in of_seeds]
    chosen = max(candidates, key=lambda i: np.mean([best(run) for run in trained[i][1]]))
    of_seeds, runs = trained[chosen]
    found = forecast(
        trials, runs, ACCURACY, num_test=NUM_TEST, num_models=1, num_resamples=100, seed=seed
    )
    result = rng.binomial(NUM_TEST, of_seeds[0]) / NUM_TEST
    return found, accuracies[chosen], result


def check(num_studies, **given):
    studies = [simulated(seed, **given) for seed in range(num_studies)]
    naive = float(np.mean([found.naive - truth for found, truth, _ in studies]))
    off = float(np.mean([found.value - truth for found, truth, _ in studies]))
    assert naive > 0.02
    assert abs(off) < 0.02 and abs(off) < 0.5 * naive
    held = sum(found.holds(result) for found, _, result in studies)
    assert held >= binom.ppf(0.001, num_studies, 0.93)


SCENARIOS = {
    "equal": {},
    "seeds differ": {"seed_spread": 0.02},
    "nothing lasts": {"shared": 0.5, "own": 0.0, "of_seed": 0.0},
    "more images": {"num_val": 300},
    "configurations differ": {"spread": 0.05},
    "both differ": {"num_val": 300, "spread": 0.05, "seed_spread": 0.02},
    "two seeds": {"num_seeds": 2, "seed_spread": 0.02},
    "one seed": {"num_seeds": 1},
}


@pytest.mark.parametrize("scenario", ["equal", "both differ"])
def test_a_forecast_is_right_to_two_points_and_holds(scenario):
    check(25, **SCENARIOS[scenario])


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_forecasts_of_a_hundred_studies_are_right_to_two_points_and_hold(scenario):
    check(100, **SCENARIOS[scenario])
