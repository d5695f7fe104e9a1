"""What to expect of a confirmed candidate, and its calibration, from stored predictions."""

from collections.abc import Sequence

import numpy as np

from studies.database.artifacts import read_predictions
from studies.database.storage import StudyStorage
from studies.database.trials import TrialRecord, best_trials
from studies.results.choice import Candidate
from studies.statistics.calibration import Calibration, find_calibration, probabilities
from studies.statistics.forecast import Forecast, Predicted, forecast
from studies.statistics.metrics import CALIBRATED_LOSS, METRICS

# Of the best of a strategy: so many are looked at for how much choosing among them adds.
MOST_TRIALS = 100


def forecast_of_candidate(
    storage: StudyStorage,
    trials: Sequence[TrialRecord],
    candidate: Candidate,
    *,
    metric: str,
    num_test: int,
    num_models: int | None = None,
) -> Forecast:
    """What to expect of a confirmed candidate; ``trials`` are those of the search.

    Raises:
        UserError: predictions are missing.
    """
    # A trial of somebody else's may be complete without anything that one of ours has.
    ours = [t for t in trials if t.best is not None and t.strategy == candidate.strategy]
    of_strategy = best_trials(ours, metric)
    return forecast(
        # The rest is far from being the best, in any resample.
        [_predicted(storage, trial) for trial in of_strategy[:MOST_TRIALS]],
        [_predicted(storage, run) for run in candidate.runs],
        METRICS[metric],
        num_test=num_test,
        num_models=num_models or len(candidate.runs),
        chosen_by=CALIBRATED_LOSS if candidate.runs[0].chosen_by else None,
    )


def _predicted(storage: StudyStorage, run: TrialRecord) -> Predicted:
    stored = read_predictions(storage, run)
    by_epoch = [probabilities(logits_NC, 1.0) for logits_NC in stored.logits_ENC]
    return Predicted(stored.labels_N, np.stack(by_epoch), stored.groups_N)


def calibration_of(storage: StudyStorage, run: TrialRecord) -> Calibration:
    """The calibration of a training, found as the bundle's: on its validation images.

    Raises:
        UserError: its predictions are missing.
    """
    assert run.best_epoch is not None
    stored = read_predictions(storage, run)
    return find_calibration(stored.logits_ENC[run.best_epoch - 1], stored.labels_N)
