"""What each hyperparameter did within one strategy: its importance, with an interval.

Over both strategies the parameters of the losing one would come out as 0 by construction.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from studies.statistics import Interval

FEWEST_TRIALS = 10
MOST_TRIALS = 200
RESAMPLES = 20


def importances(
    trials: Sequence[FrozenTrial], *, lower_is_better: bool, seed: int = 0
) -> dict[str, Interval]:
    """Importance of every hyperparameter among complete trials of one strategy, by field name.

    Shares of 1, of the best tenth against all (PED-ANOVA); the interval is the middle 95 % over
    resampled trials. Empty with fewer than ten trials, or where only one value was tried.

    Source: S. Watanabe, A. Bansal, F. Hutter, "PED-ANOVA: efficiently quantifying hyperparameter
    importance in arbitrary subspaces", IJCAI 2023.
    """
    names = _varied(trials)
    if len(trials) < FEWEST_TRIALS or not names:
        return {}
    rng = np.random.default_rng(seed)
    if len(trials) > MOST_TRIALS:
        trials = [trials[i] for i in rng.choice(len(trials), MOST_TRIALS, replace=False)]
    whole = _importance(trials, names, lower_is_better)
    draws = [
        _importance(
            [trials[i] for i in rng.integers(len(trials), size=len(trials))],
            names,
            lower_is_better,
        )
        for _ in range(RESAMPLES)
    ]
    found = {}
    for name in names:
        low, high = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        value = whole[name]
        found[name.partition("@")[0]] = Interval(
            value=value, low=min(float(low), value), high=max(float(high), value)
        )
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def _varied(trials: Sequence[FrozenTrial]) -> list[str]:
    """Hyperparameters that all of them have and not all alike."""
    if not trials:
        return []
    shared = set.intersection(*(set(trial.params) for trial in trials))
    return sorted(name for name in shared if len({trial.params[name] for trial in trials}) > 1)


def _importance(
    trials: Sequence[FrozenTrial], names: Sequence[str], lower_is_better: bool
) -> dict[str, float]:
    study = optuna.create_study(direction="minimize" if lower_is_better else "maximize")
    # One range for all: the number of layers has that of its backbone, and would be left out.
    ranges = {name: _range([trial.distributions[name] for trial in trials]) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for trial in trials:
            study.add_trial(
                optuna.create_trial(
                    value=trial.value,
                    params={name: trial.params[name] for name in names},
                    distributions=ranges,
                )
            )
        try:
            told = get_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), params=list(names)
            )
        except (ValueError, RuntimeError, ZeroDivisionError):
            told = {}
    return {name: float(np.nan_to_num(told.get(name, 0.0))) for name in names}


def _range(given: Sequence[BaseDistribution]) -> BaseDistribution:
    widest = given[0]
    for other in given[1:]:
        if isinstance(widest, optuna.distributions.IntDistribution) and isinstance(
            other, optuna.distributions.IntDistribution
        ):
            widest = optuna.distributions.IntDistribution(
                min(widest.low, other.low), max(widest.high, other.high), log=widest.log
            )
    return widest
