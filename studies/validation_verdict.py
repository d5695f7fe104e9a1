"""The two strategies' choices against each other on the images that chose them.

Knows stored validation predictions. Never imports torch.
"""

from collections.abc import Sequence

import numpy as np

from studies.artifacts import read_predictions
from studies.calibration import Floats, probabilities
from studies.confirm import Candidate, Confirmed
from studies.errors import UserError
from studies.records import TrialRecord
from studies.storage import StudyStorage
from studies.strategies_compared import (
    FIRST,
    SECOND,
    Choice,
    Comparison,
    compare_strategies,
)


def compare_on_validation(
    storage: StudyStorage, confirmed: Confirmed, trials: Sequence[TrialRecord]
) -> Comparison | None:
    """Fine-tuning against feature extraction over seeds, on validation images.

    None where one of them is not confirmed, predictions are gone, or every seed had validation
    images of its own: what is not paired is left to the test images.

    Args:
        trials: those of the search.
    """
    chosen = confirmed.chosen
    if confirmed.resplit or not {FIRST, SECOND} <= set(chosen):
        return None
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
    )


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
