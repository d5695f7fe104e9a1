"""What each hyperparameter did within one strategy: whether it goes with the metric, and how much.

Over both strategies the parameters of the losing one would come out as 0 by construction.

Legend: T trials, B permutations, P parameters.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial
from scipy.stats import kruskal, spearmanr

from studies.statistics.paired import holm

# Before that nothing goes with anything; before the second the best tenth is a trial or two.
FEWEST_TRIALS, FEWEST_FOR_IMPORTANCE = 10, 30
MOST_TRIALS = 100
PERMUTATIONS = 149
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Association:
    """Whether a hyperparameter goes with the metric: a rank test, and its p by Holm.

    ``correlation`` is Spearman's where values are numbers, None where they are choices
    (Kruskal-Wallis).
    """

    correlation: float | None
    p: float
    p_holm: float

    @property
    def is_shown(self) -> bool:
        return self.p_holm < LEVEL


@dataclass(frozen=True, kw_only=True)
class Importance:
    """PED-ANOVA's importance, and what it reaches in one of twenty cases where nothing matters.

    ``by_chance`` holds for all hyperparameters together: in one of twenty sets of permuted values
    the importance of at least one of them is above its own.
    """

    value: float
    by_chance: float

    @property
    def is_shown(self) -> bool:
        return self.value > self.by_chance


def associations(trials: Sequence[FrozenTrial]) -> dict[str, Association]:
    """Of every hyperparameter with the metric in complete trials of one strategy, by field name.

    Spearman's correlation for numbers, Kruskal and Wallis' test for choices, each alone; p values
    corrected by Holm. Empty with fewer than ten trials, or where only one value was tried.
    """
    names = _varied(trials)
    if len(trials) < FEWEST_TRIALS:
        return {}
    value_T = _values(trials)
    if not names or np.ptp(value_T) == 0:
        return {}
    found: dict[str, tuple[float | None, float]] = {}
    for name in names:
        given = [trial.params[name] for trial in trials]
        if isinstance(trials[0].distributions[name], optuna.distributions.CategoricalDistribution):
            groups = [value_T[[g == choice for g in given]] for choice in dict.fromkeys(given)]
            found[name] = (None, float(kruskal(*groups).pvalue))
        else:
            result = spearmanr(given, value_T)
            found[name] = (float(result.statistic), float(result.pvalue))
    corrected = holm([p for _, p in found.values()])
    told = {
        name.partition("@")[0]: Association(correlation=r, p=p, p_holm=p_holm)
        for (name, (r, p)), p_holm in zip(found.items(), corrected, strict=True)
    }
    return dict(sorted(told.items(), key=lambda item: item[1].p))


def importances(
    trials: Sequence[FrozenTrial], *, lower_is_better: bool, seed: int = 0
) -> dict[str, Importance]:
    """Importance of every hyperparameter among complete trials of one strategy, by field name.

    How much the best tenth differs from all (PED-ANOVA), not made to sum to 1: shares would do so
    where nothing matters too. Beside it what permuted values of the metric give. Empty with fewer
    than thirty trials, or where only one value was tried.

    Sources: S. Watanabe, A. Bansal, F. Hutter, "PED-ANOVA: efficiently quantifying hyperparameter
    importance in arbitrary subspaces", IJCAI 2023; P. H. Westfall, S. S. Young, "Resampling-based
    multiple testing", 1993: the smallest p of all hyperparameters in each permutation.
    """
    names = _varied(trials)
    if len(trials) < FEWEST_FOR_IMPORTANCE or not names:
        return {}
    rng = np.random.default_rng(seed)
    if len(trials) > MOST_TRIALS:
        trials = [trials[i] for i in rng.choice(len(trials), MOST_TRIALS, replace=False)]
    value_T = _values(trials) * (1 if lower_is_better else -1)
    rows_BT = np.array([value_T, *(rng.permutation(value_T) for _ in range(PERMUTATIONS))])
    value_BP = _importance(trials, names, rows_BT)
    by_chance_P = _by_chance(value_BP[1:])
    found = {
        name.partition("@")[0]: Importance(value=float(value), by_chance=float(chance))
        for name, value, chance in zip(names, value_BP[0], by_chance_P, strict=True)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def _by_chance(drawn_BP: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each parameter reaches where at least one of all is above its own in 5 % of draws."""
    # Ranks from 0, the largest: how rare a draw's importance is among those of its parameter.
    rank_BP = np.argsort(np.argsort(-drawn_BP, axis=0), axis=0)
    allowed = int(np.sort(rank_BP.min(axis=1))[int(LEVEL * len(drawn_BP))])
    by_chance_P: NDArray[np.float64] = np.sort(drawn_BP, axis=0)[::-1][allowed]
    return by_chance_P


def _values(trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
    return np.array([trial.value for trial in trials], np.float64)


def _varied(trials: Sequence[FrozenTrial]) -> list[str]:
    """Hyperparameters that all of them have and not all alike."""
    if not trials:
        return []
    shared = set.intersection(*(set(trial.params) for trial in trials))
    return sorted(name for name in shared if len({trial.params[name] for trial in trials}) > 1)


def _importance(
    trials: Sequence[FrozenTrial], names: Sequence[str], value_BT: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Importance (B, P) by each row of values, of which smaller ones are better."""
    study = optuna.create_study()
    # One range for all: the number of layers has that of its backbone, and would be left out.
    ranges = {name: _range([trial.distributions[name] for trial in trials]) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for trial in trials:
            study.add_trial(
                optuna.create_trial(
                    value=trial.value,
                    params={name: trial.params[name] for name in names},
                    distributions=ranges,
                )
            )
        rows = [_by_values(study, names, row_T) for row_T in value_BT]
    return np.array([[np.nan_to_num(row.get(name, 0.0)) for name in names] for row in rows])


def _by_values(
    study: optuna.Study, names: Sequence[str], value_T: NDArray[np.float64]
) -> dict[str, float]:
    return get_param_importances(
        study,
        evaluator=PedAnovaImportanceEvaluator(),
        params=list(names),
        target=lambda trial: float(value_T[trial.number]),
        normalize=False,
    )


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
