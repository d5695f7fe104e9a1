"""Importance finds the hyperparameter that matters, within one strategy, and says how sure."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from studies.report.importance import FEWEST_TRIALS, importances

RANGES = {
    "learning_rate@fine_tuning": FloatDistribution(1e-6, 1e-3, log=True),
    "batch_size": CategoricalDistribution([8, 16, 32]),
    "strategy": CategoricalDistribution(["fine_tuning"]),
}


def trials(count, seed=0, sign=1.0):
    """Trials whose value follows the learning rate alone."""
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
        value = sign * np.log10(params["learning_rate@fine_tuning"])
        found.append(optuna.create_trial(value=value, params=params, distributions=ranges))
    return found


@pytest.mark.parametrize(("lower", "sign"), [(False, 1.0), (True, -1.0)])
def test_what_decides_comes_first_by_its_field_name(lower, sign):
    found = importances(trials(60, sign=sign), lower_is_better=lower)
    assert next(iter(found)) == "learning_rate"
    assert set(found) == {"learning_rate", "batch_size", "num_unfrozen_layers"}
    assert found["learning_rate"].value > 0.6
    assert all(each.low <= each.value <= each.high for each in found.values())


def test_it_is_the_same_whenever_it_is_asked():
    assert importances(trials(30), lower_is_better=False) == importances(
        trials(30), lower_is_better=False
    )


def test_few_trials_or_equal_ones_show_nothing():
    assert importances(trials(FEWEST_TRIALS - 1), lower_is_better=False) == {}
    same = [trials(1)[0]] * 20
    assert importances(same, lower_is_better=False) == {}
