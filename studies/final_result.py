"""Everything that is measured on opened test images, as the JSON that the ledger keeps.

Knows what every finalist said, and metrics; opens nothing.

Legend: N test images, C classes, S seeds.
"""

from typing import Any

import numpy as np

from studies.bundle import Bundle
from studies.calibration import Floats, probabilities, uncalibrated
from studies.control_rows import control_names
from studies.evaluation import (
    as_json,
    confusion_json,
    confusion_over_seeds,
    evaluate_calls,
    evaluate_model,
    evaluate_seeds,
    metrics_json,
    of_model,
    over_seeds,
    values_by_seed,
)
from studies.finalists import Finalists, temperature_of
from studies.opened import Said
from studies.progress import Progress
from studies.records import SEED
from studies.scores import METRICS
from studies.storage import StudyStorage
from studies.strategies_compared import FIRST, SECOND, compare_strategies


def evaluated(
    storage: StudyStorage,
    bundle: Bundle,
    found: Finalists,
    said: Said,
    margin: float,
    progress: Progress,
) -> dict[str, Any]:
    """Everything that is measured on the test images, as JSON.

    ``metrics`` are of the bundle's one model with its temperature, by the most probable class, as
    in the search; ``at_threshold`` of what it calls by its threshold. ``as_forecast`` is the
    metric before temperature, as validation had it and the forecast is of it.
    """
    labels_N, classes = said.labels_N, bundle.classes
    of_bundle_NC = bundle.probabilities(said.bundle_NC)
    called_N = bundle.called(of_bundle_NC)
    seeds = {name: _calibrated(storage, found, said, name) for name in found.candidates}
    compared = None
    if FIRST in seeds and SECOND in seeds:
        compared = compare_strategies(
            found.metric,
            labels_N,
            seeds[FIRST],
            seeds[SECOND],
            margin=margin,
            pair=_same_seed(found),
        )
    progress.message("Computing intervals.")
    plain = {name: uncalibrated(said.by_strategy[name]) for name in found.candidates}
    return {
        "metric": found.metric,
        "n": len(labels_N),
        "classes": list(classes),
        "counts": {name: int((labels_N == i).sum()) for i, name in enumerate(classes)},
        "metrics": metrics_json(evaluate_model(labels_N, of_bundle_NC, classes)),
        "as_forecast": as_json(of_model(found.metric, labels_N, uncalibrated(said.bundle_NC))),
        "confusion": confusion_json(labels_N, of_bundle_NC.argmax(axis=1), len(classes)),
        "at_threshold": {
            "threshold": bundle.config.threshold,
            "metrics": metrics_json(evaluate_calls(labels_N, called_N, classes)),
            "confusion": confusion_json(labels_N, called_N, len(classes)),
        },
        "by_strategy": {
            name: {
                "trial": found.candidates[name].number,
                "configuration": dict(found.candidates[name].configuration),
                "seeds": [int(run.params["seed"]) for run in found.candidates[name].runs],
                "num_failed": len(found.confirmed.seeds) - len(found.candidates[name].runs),
                "values": values_by_seed(METRICS[found.metric], labels_N, plain[name]),
                "as_forecast": as_json(over_seeds(found.metric, labels_N, plain[name])),
                "metrics": metrics_json(evaluate_seeds(labels_N, given_SNC, classes)),
                "confusion": confusion_over_seeds(labels_N, given_SNC),
            }
            for name, given_SNC in seeds.items()
        },
        "controls": _controls(found, said, classes),
        "difference": None if compared is None else compared.as_json(),
    }


def _same_seed(found: Finalists) -> tuple[int, int]:
    """Places of the first seed that both strategies have, else of the first of each."""
    seeds = [[run.params[SEED] for run in found.candidates[n].runs] for n in (FIRST, SECOND)]
    shared = [seed for seed in seeds[0] if seed in seeds[1]]
    return (seeds[0].index(shared[0]), seeds[1].index(shared[0])) if shared else (0, 0)


def _calibrated(storage: StudyStorage, found: Finalists, said: Said, strategy: str) -> Floats:
    """Probabilities (S, N, C) of a strategy's trainings, each with its own temperature."""
    runs = found.candidates[strategy].runs
    pairs = zip(runs, said.by_strategy[strategy], strict=True)
    return np.stack(
        [probabilities(logits_NC, temperature_of(storage, run)) for run, logits_NC in pairs]
    )


def _controls(found: Finalists, said: Said, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for run in found.controls:
        given_NC = uncalibrated(said.controls[run.number])
        metrics = evaluate_model(said.labels_N, given_NC, classes)
        rows.append({"trial": run.number, **control_names(run), "metrics": metrics_json(metrics)})
    return rows
