"""The final test evaluation: forecast, entry in the ledger, one look at the test images, results.

The order is what makes it honest: the forecast is written before the seal is broken, the opening
before its result. Knows the order of things; metrics, networks and words are others' to know.

Legend: N test images, C classes, S seeds.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from studies.bundle import Bundle, read_bundle
from studies.bundle_config import CARD, MODEL
from studies.calibration import Floats, probabilities
from studies.control_rows import control_names
from studies.errors import UserError
from studies.evaluation import (
    confusion_json,
    confusion_over_seeds,
    evaluate_calls,
    evaluate_model,
    evaluate_seeds,
    metrics_json,
    values_by_seed,
)
from studies.final_words import card_paragraphs, forecast_sentence, refusal
from studies.finalists import Finalists, find_finalists, forecast_of, temperature_of
from studies.ledger import Opening, close_entry, open_entry, openings
from studies.model_card import with_test_section
from studies.opened import Said, get_ready, open_test_images, store
from studies.own_backbones import check_stored, run_module
from studies.progress import Progress
from studies.retraining import Places
from studies.scores import METRICS
from studies.storage import StudyStorage, open_existing, open_storage
from studies.strategies_compared import DEFAULT_MARGIN, FIRST, SECOND, compare_strategies
from studies.workers import hand_out_lock
from transfer.device import make_deterministic


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Which bundle, and why again. ``storage`` is the bundle's where it is None."""

    bundle: Path
    again: bool = False
    reason: str | None = None
    margin: float = DEFAULT_MARGIN
    storage: str | None = None
    backbone_module: Path | None = None
    places: Places = field(default_factory=Places)


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What came out; ``result`` is JSON and what the ledger keeps."""

    bundle: Path
    opening: Opening
    openings: list[Opening]

    @property
    def result(self) -> dict[str, Any]:
        assert self.opening.result is not None
        return self.opening.result

    def as_json(self) -> dict[str, Any]:
        """`evaluate --json`."""
        return {
            "bundle": str(self.bundle),
            **self.opening.as_json(),
            "predicted": self.opening.predicted,
            **self.result,
        }


def evaluate_bundle(options: EvaluateOptions, progress: Progress) -> Evaluated:
    """Open the test images of a bundle's study once and evaluate everything on them.

    Raises:
        UserError, ValueError: something is missing, is not the study's, or the test images were
            opened before and ``again`` with a ``reason`` was not asked for.
    """
    _check(options)
    bundle = read_bundle(
        options.bundle, backbone_module=options.backbone_module, progress=progress
    )
    url = options.storage or bundle.config.study.storage
    open_existing(url)  # A database that is not there is not created.
    storage = open_storage(url)
    found = find_finalists(storage, bundle.config)
    _refuse_again(storage, found, options)  # Before anything that takes time.
    _run_own(found, options, progress)
    make_deterministic(bundle.config.study.threads)
    progress.message(f"Evaluating {options.bundle}: forecast from the validation images first.")
    predicted = _predicted(storage, found)
    progress.message(forecast_sentence(found.metric, predicted))
    ready = get_ready(found, options.places, progress)
    entry, written = _recorded(storage, found, options, predicted)
    said = open_test_images(storage, bundle, found, ready, progress)
    result = evaluated(storage, bundle, found, said, options.margin, written)
    result["artifacts"] = store(storage, found, ready, said)
    close_entry(storage, entry, result)
    every = openings(storage, found.bundle.data.test_fingerprint)
    _write_card(options.bundle, card_paragraphs(every, bundle.config.files[MODEL]), progress)
    opening = next(o for o in every if o.id == entry)
    return Evaluated(bundle=options.bundle, opening=opening, openings=every)


def _check(options: EvaluateOptions) -> None:
    if options.again != bool(options.reason and options.reason.strip()):
        raise UserError(
            '--again and --reason "..." belong together: a second look at test images is recorded '
            "with its reason."
        )


def _run_own(found: Finalists, options: EvaluateOptions, progress: Progress) -> None:
    """Run the file of backbones that finalists other than the bundle's come from."""
    stored = found.study.identity.get("backbone_module")
    if stored is None or found.bundle.backbone_module is not None:
        return
    check_stored(stored, options.backbone_module, found.name)
    assert options.backbone_module is not None
    run_module(options.backbone_module, progress)


def _predicted(storage: StudyStorage, found: Finalists) -> dict[str, Any]:
    """The forecast of the bundle's one model, with those of both strategies' means over seeds."""
    strategy = str(found.bundle.config.strategy)
    return {
        **forecast_of(storage, found, strategy, num_models=1).as_json(),
        "metric": found.metric,
        "by_strategy": {
            name: forecast_of(storage, found, name).as_json() for name in found.candidates
        },
    }


def _refuse_again(
    storage: StudyStorage, found: Finalists, options: EvaluateOptions
) -> Opening | None:
    """The opening to go on with: of this bundle, begun, and nobody has seen a result of it.

    Raises:
        UserError: the test images were opened otherwise, and ``again`` was not asked for.
    """
    before = openings(storage, found.bundle.data.test_fingerprint)
    model = found.bundle.files[MODEL]
    begun = next((o for o in before if not o.is_finished and o.bundle == model), None)
    if begun is None and before and not options.again:
        raise UserError(refusal(found.name, before))
    return begun


def _recorded(
    storage: StudyStorage,
    found: Finalists,
    options: EvaluateOptions,
    predicted: Mapping[str, Any],
) -> tuple[int, Mapping[str, Any]]:
    """The entry of this opening in the ledger, with its forecast.

    Of two processes at once one is refused, or both go on with the same opening.
    """
    with hand_out_lock(storage):
        begun = _refuse_again(storage, found, options)
        if begun is not None:
            return begun.id, begun.predicted
        entry = open_entry(
            storage,
            test_fingerprint=found.bundle.data.test_fingerprint,
            study=found.name,
            bundle=found.bundle.files[MODEL],
            reason=options.reason,
            predicted=predicted,
        )
        return entry, predicted


def evaluated(
    storage: StudyStorage,
    bundle: Bundle,
    found: Finalists,
    said: Said,
    margin: float,
    predicted: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that is measured on the test images, as JSON.

    ``metrics`` are of the bundle's one model with its temperature, by the most probable class, as
    in the search; ``at_threshold`` of what it calls by its threshold.
    """
    labels_N, classes = said.labels_N, bundle.classes
    of_bundle_NC = bundle.probabilities(said.bundle_NC)
    called_N = bundle.called(of_bundle_NC)
    seeds = {name: _calibrated(storage, found, said, name) for name in found.candidates}
    compared = None
    if FIRST in seeds and SECOND in seeds:
        compared = compare_strategies(
            found.metric, labels_N, seeds[FIRST], seeds[SECOND], margin=margin
        )
    metrics = metrics_json(evaluate_model(labels_N, of_bundle_NC, classes))
    value = metrics[found.metric]["value"]
    return {
        "metric": found.metric,
        "n": len(labels_N),
        "counts": {name: int((labels_N == i).sum()) for i, name in enumerate(classes)},
        "metrics": metrics,
        "confusion": confusion_json(labels_N, of_bundle_NC.argmax(axis=1), len(classes)),
        "at_threshold": {
            "threshold": bundle.config.threshold,
            "metrics": metrics_json(evaluate_calls(labels_N, called_N, classes)),
            "confusion": confusion_json(labels_N, called_N, len(classes)),
        },
        "forecast_held": None
        if value is None
        else bool(predicted["low"] <= value <= predicted["high"]),
        "by_strategy": {
            name: {
                "trial": found.candidates[name].number,
                "configuration": dict(found.candidates[name].configuration),
                "seeds": [int(run.params["seed"]) for run in found.candidates[name].runs],
                "values": values_by_seed(METRICS[found.metric], labels_N, given_SNC),
                "metrics": metrics_json(evaluate_seeds(labels_N, given_SNC, classes)),
                "confusion": confusion_over_seeds(labels_N, given_SNC),
            }
            for name, given_SNC in seeds.items()
        },
        "controls": _controls(found, said, classes),
        "difference": None if compared is None else compared.as_json(),
    }


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
        given_NC = probabilities(said.controls[run.number], 1.0)
        metrics = evaluate_model(said.labels_N, given_NC, classes)
        rows.append({"trial": run.number, **control_names(run), "metrics": metrics_json(metrics)})
    return rows


def _write_card(folder: Path, test: list[str], progress: Progress) -> None:
    """Put the results into the bundle's card; what people wrote into it stays."""
    card = folder / CARD
    try:
        text = card.read_text(encoding="utf-8")
        card.write_text(with_test_section(text, test), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        progress.message(f"{shlex.quote(str(card))} could not be updated ({error}).")
