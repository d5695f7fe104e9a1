"""The two strategies' choices against each other on the images that chose them.

Knows stored validation predictions. Never imports torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from studies.database.artifacts import read_predictions
from studies.database.storage import StudyStorage
from studies.database.trials import TrialRecord
from studies.errors import UserError
from studies.results.choice import Candidate, Confirmed
from studies.results.forecasts import forecast_of_candidate
from studies.results.strategies_compared import (
    FIRST,
    SECOND,
    Choice,
    Comparison,
    compare_strategies,
)
from studies.statistics.calibration import Floats, probabilities
from studies.statistics.forecast import Forecast


def compare_on_validation(
    storage: StudyStorage,
    confirmed: Confirmed,
    trials: Sequence[TrialRecord],
    forecasts: Mapping[str, Forecast] | None = None,
) -> Comparison | None:
    """Fine-tuning against feature extraction over seeds, on validation images.

    These have chosen epochs and configurations of both: the verdict allows for what each one's
    forecast takes off. None where one of them is not confirmed or lacks a seed, predictions are
    gone, or every seed had validation images of its own: what is not paired is left to the test
    images.

    Args:
        trials: those of the search.
        forecasts: of the choices, by strategy, where they are at hand.
    """
    chosen = confirmed.chosen
    if confirmed.resplit or not {FIRST, SECOND} <= set(chosen):
        return None
    if chosen[FIRST].missing or chosen[SECOND].missing:
        return None  # Of those that are left the mean is too good: what fails has no part in it.
    try:
        stored = read_predictions(storage, chosen[FIRST].runs[0])
        first_SNC, second_SNC = (_of_seeds(storage, chosen[name]) for name in (FIRST, SECOND))
    except UserError:
        return None
    return compare_strategies(
        confirmed.metric,
        stored.labels_N,
        first_SNC,
        second_SNC,
        margin=confirmed.margin,
        choices=choices_of(confirmed, trials),
        images="validation image",
        groups_N=stored.groups_N,
        optimism=(
            _optimism(storage, confirmed, trials, FIRST, forecasts),
            _optimism(storage, confirmed, trials, SECOND, forecasts),
        ),
    )


def _optimism(
    storage: StudyStorage,
    confirmed: Confirmed,
    trials: Sequence[TrialRecord],
    strategy: str,
    forecasts: Mapping[str, Forecast] | None,
) -> float:
    """By how much a choice looks too good at most; infinite where nobody knows."""
    if forecasts is not None:
        found = forecasts.get(strategy)
    else:
        candidate = confirmed.chosen[strategy]
        try:
            found = forecast_of_candidate(
                storage, trials, candidate, metric=confirmed.metric, num_test=1
            )
        except (UserError, ValueError):
            found = None
    return float("inf") if found is None else max(0.0, found.optimism)


def choices_of(confirmed: Confirmed, trials: Sequence[TrialRecord]) -> tuple[Choice, Choice]:
    """Where both confirmed choices come from; ``trials`` are those of the search."""

    def choice(strategy: str) -> Choice:
        return Choice(
            trial=confirmed.chosen[strategy].number,
            num_trials=sum(t.counts and t.strategy == strategy for t in trials),
        )

    return choice(FIRST), choice(SECOND)


def _of_seeds(storage: StudyStorage, candidate: Candidate) -> Floats:
    """Probabilities (S, N, C) at the best epoch of every seed."""
    found = []
    for run in candidate.runs:
        assert run.best_epoch is not None
        logits_NC = read_predictions(storage, run).logits_ENC[run.best_epoch - 1]
        found.append(probabilities(logits_NC, 1.0))
    return np.stack(found)
