"""Everything that is measured on opened test images, as the JSON that the ledger keeps.

Knows what every finalist said, and metrics; opens nothing.

Legend: N test images, C classes, S seeds.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from studies.bundle.bundle import Bundle
from studies.database.storage import StudyStorage
from studies.database.trials import CANDIDATE, SEED, TrialRecord
from studies.evaluation.images import Said
from studies.evaluation.setup import Finalists
from studies.results.comparison import FIRST, SECOND, choices_of, compare_strategies
from studies.results.controls import control_names
from studies.results.forecasts import calibration_of
from studies.statistics.calibration import Calibration, calibration_json, uncalibrated
from studies.statistics.clusters import num_subjects
from studies.statistics.estimates import (
    as_json,
    confusion_json,
    confusion_over_seeds,
    evaluate_calls,
    evaluate_model,
    evaluate_seeds,
    metrics_json,
    of_model,
    over_seeds,
    predictive_values,
    values_by_seed,
)
from studies.statistics.metrics import METRICS, Floats, Labels
from studies.watchers import Progress


def evaluated(
    storage: StudyStorage,
    bundle: Bundle,
    found: Finalists,
    said: Said,
    progress: Progress,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Everything that is measured on the test images, as JSON.

    ``metrics`` are of the bundle's one model, by the most probable class before calibration, as in
    the search; ``loss`` and ``brier`` of its calibrated probabilities, which are what is shipped.
    ``at_threshold`` is of what it calls, by its threshold, with the predictive values at
    ``prevalence``. ``as_forecast`` is the metric before
    calibration, as validation had it and the forecast is of it. ``n`` counts images, ``subjects``
    whose they are, None where nobody knows and images are taken as independent.
    """
    labels_N, classes, groups_N = said.labels_N, bundle.classes, said.groups_N
    of_bundle_NC = bundle.probabilities(said.bundle_NC)
    plain_NC, called_N = uncalibrated(said.bundle_NC), bundle.called(of_bundle_NC)
    calibrations = {
        name: [calibration_of(storage, run) for run in candidate.runs]
        for name, candidate in found.candidates.items()
    }
    plain = {name: uncalibrated(said.by_strategy[name]) for name in found.candidates}
    calibrated = {name: _calibrated(said, name, given) for name, given in calibrations.items()}
    compared = None
    if {FIRST, SECOND} <= set(plain):
        # Before calibration, as validation, forecasts and controls are.
        compared = compare_strategies(
            found.metric,
            labels_N,
            plain[FIRST],
            plain[SECOND],
            margin=found.confirmed.margin,
            choices=choices_of(found.confirmed, found.trials),
            groups_N=groups_N,
        )
    progress.message("Computing intervals.")
    return {
        "metric": found.metric,
        "n": len(labels_N),
        "subjects": num_subjects(groups_N),
        "classes": list(classes),
        "counts": {name: int((labels_N == i).sum()) for i, name in enumerate(classes)},
        "metrics": metrics_json(
            evaluate_model(labels_N, plain_NC, classes, groups_N, calibrated_NC=of_bundle_NC)
        ),
        "as_forecast": as_json(of_model(found.metric, labels_N, plain_NC, groups_N)),
        "calibration": calibration_json(
            labels_N, plain_NC[None], of_bundle_NC[None], classes, groups_N
        ),
        "confusion": confusion_json(labels_N, plain_NC.argmax(axis=1), len(classes), groups_N),
        "at_threshold": {
            "threshold": bundle.config.threshold,
            "metrics": metrics_json(evaluate_calls(labels_N, called_N, classes, groups_N)),
            "confusion": confusion_json(labels_N, called_N, len(classes), groups_N),
            "predictive_values": _predictive_values(said, called_N, classes, prevalence),
        },
        "by_strategy": {
            name: {
                "trial": found.candidates[name].number,
                "configuration": dict(found.candidates[name].configuration),
                "seeds": [int(run.params["seed"]) for run in found.candidates[name].runs],
                "num_failed": len(found.confirmed.seeds) - len(found.candidates[name].runs),
                "values": values_by_seed(METRICS[found.metric], labels_N, plain_SNC),
                "as_forecast": as_json(over_seeds(found.metric, labels_N, plain_SNC, groups_N)),
                "metrics": metrics_json(
                    evaluate_seeds(
                        labels_N, plain_SNC, classes, groups_N, calibrated_SNC=calibrated[name]
                    )
                ),
                "calibration": {
                    **calibration_json(labels_N, plain_SNC, calibrated[name], classes, groups_N),
                    "of_seeds": [asdict(calibration) for calibration in calibrations[name]],
                },
                "confusion": confusion_over_seeds(labels_N, plain_SNC, groups_N),
            }
            for name, plain_SNC in plain.items()
        },
        "controls": _controls(found, said, classes),
        "difference": None if compared is None else compared.as_json(),
    }


def _predictive_values(
    said: Said, called_N: Labels, classes: Sequence[str], prevalence: float | None
) -> dict[str, Any] | None:
    """How often a call of each class is right at a prevalence of the second one."""
    if prevalence is None:
        return None
    of_second, of_first = predictive_values(said.labels_N, called_N, prevalence, said.groups_N)
    return {
        "prevalence": prevalence,
        "of": classes[1],
        "values": {classes[1]: as_json(of_second), classes[0]: as_json(of_first)},
    }


def _calibrated(said: Said, strategy: str, calibrations: Sequence[Calibration]) -> Floats:
    """Probabilities (S, N, C) of a strategy's trainings, each with its own calibration."""
    pairs = zip(calibrations, said.by_strategy[strategy], strict=True)
    return np.stack([calibration.probabilities(logits_NC) for calibration, logits_NC in pairs])


def _controls(found: Finalists, said: Said, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row of each control; of a default recipe the mean over its seeds."""
    rows: list[dict[str, Any]] = []
    for run in found.on_features:
        given_NC = uncalibrated(said.controls[run.number])
        metrics = evaluate_model(said.labels_N, given_NC, classes, said.groups_N)
        rows.append({"trial": run.number, **control_names(run), "metrics": metrics_json(metrics)})
    by_recipe: dict[int, list[TrialRecord]] = {}
    for run in found.recipes:
        by_recipe.setdefault(int(run.keyed_params[CANDIDATE]), []).append(run)
    for runs in by_recipe.values():
        given_SNC = np.stack([uncalibrated(said.controls[run.number]) for run in runs])
        metrics = evaluate_seeds(said.labels_N, given_SNC, classes, said.groups_N)
        rows.append(
            {
                "trial": runs[0].number,
                "seeds": [int(run.params[SEED]) for run in runs],
                **control_names(runs[0]),
                "metrics": metrics_json(metrics),
            }
        )
    return rows
