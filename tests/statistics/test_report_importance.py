"""Which hyperparameters matter is shown where they do, and where none does nothing is shown.

Of 300 studies of noise each with 10, 15 and 29 trials 2 to 3 % show an association; with a
correlation of 0.8 93 % of 15 trials do. Of 60 studies of noise with 30 trials 2 % show importance.
"""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import binom

from studies.statistics.importance import (
    FEWEST_FOR_IMPORTANCE,
    FEWEST_TRIALS,
    associations,
    importances,
)

RANGES = {
    "learning_rate@fine_tuning": FloatDistribution(1e-6, 1e-3, log=True),
    "batch_size": CategoricalDistribution([8, 16, 32]),
    "strategy": CategoricalDistribution(["fine_tuning"]),
}


def trials(count, seed=0, effect=4.0, sign=1.0):
    """Trials whose value follows the learning rate, and chance: alone, where ``effect`` is 0."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        layers = int(rng.integers(1, 5 + number % 3))
        params = {
            "learning_rate@fine_tuning": float(10 ** rng.uniform(-6, -3)),
            "batch_size": int(rng.choice([8, 16, 32])),
            "strategy": "fine_tuning",
            "num_unfrozen_layers": layers,
        }
        ranges = {**RANGES, "num_unfrozen_layers": IntDistribution(1, 5 + number % 3)}
        logarithm = np.log10(params["learning_rate@fine_tuning"]) + 4.5
        value = sign * (effect * logarithm + rng.normal())
        found.append(optuna.create_trial(value=value, params=params, distributions=ranges))
    return found


def shown(found):
    return {name for name, each in found.items() if each.is_shown}


@pytest.mark.parametrize(("lower", "sign"), [(False, 1.0), (True, -1.0)])
def test_what_decides_comes_first_by_its_field_name(lower, sign):
    found = importances(trials(60, sign=sign), lower_is_better=lower)
    assert next(iter(found)) == "learning_rate" and shown(found) == {"learning_rate"}
    assert set(found) == {"learning_rate", "batch_size", "num_unfrozen_layers"}


def test_importance_is_the_same_whenever_it_is_asked():
    assert importances(trials(30), lower_is_better=False) == importances(
        trials(30), lower_is_better=False
    )


@pytest.mark.slow
def test_of_noise_importance_is_seldom_shown():
    """As shares of 1 the first of them had two thirds."""
    found = [importances(trials(30, s, effect=0), lower_is_better=False) for s in range(12)]
    assert sum(bool(shown(each)) for each in found) <= binom.ppf(0.999, 12, 0.05)
    assert all(sum(each.value for each in one.values()) < 0.5 for one in found)


@pytest.mark.parametrize("count", [10, 29])
def test_of_noise_an_association_is_seldom_shown(count):
    found = [associations(trials(count, seed, effect=0)) for seed in range(150)]
    assert sum(bool(shown(each)) for each in found) <= binom.ppf(0.999, 150, 0.05)


@pytest.mark.parametrize("count", [10, 29])
def test_a_strong_association_is_shown_and_has_its_sign(count):
    found = associations(trials(count, effect=-4.0))
    assert next(iter(found)) == "learning_rate" and "learning_rate" in shown(found)
    assert found["learning_rate"].correlation < -0.8
    assert found["batch_size"].correlation is None


def test_p_values_are_corrected_for_their_number():
    found = associations(trials(20, effect=0.5))
    first = next(iter(found.values()))
    assert first.p_holm == pytest.approx(3 * first.p)


def test_few_trials_or_equal_ones_show_nothing():
    assert associations(trials(FEWEST_TRIALS - 1)) == {}
    assert importances(trials(FEWEST_FOR_IMPORTANCE - 1), lower_is_better=False) == {}
    same = [trials(1)[0]] * 40
    assert importances(same, lower_is_better=False) == associations(same) == {}
