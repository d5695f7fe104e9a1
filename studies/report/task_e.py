"""Task E: the test data. Sealed, with a forecast; or opened, with all that came out.

The most confident errors are shown as pictures, from stored thumbnails: no image is opened.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from studies.document.blocks import (
    Block,
    Cell,
    Listing,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
)
from studies.document.numbers import (
    NOTHING,
    difference_text,
    interval_cell,
    interval_text,
    number_cell,
    plain_interval,
)
from studies.report.appendix import source_of_candidate
from studies.report.explanation import explained
from studies.report.predictions_shown import confusions, curves
from studies.results import Opening
from studies.results.evaluation import (
    PRECISION_NOTE,
    calibration_error_text,
    forecast_result,
    images_text,
    predictive_sentence,
    shown_metrics,
)
from studies.results.study import StoredStudy
from studies.statistics.calibration import probabilities
from studies.statistics.metrics import METRICS, Floats, Labels
from transfer.config import TITLES

SHOWN = 12


def most_confident_errors(evidence: StoredStudy, opening: Opening) -> list[Block]:
    """The errors of the bundle's model that it was surest of, the surest first."""
    stored, images = evidence.test_predictions(opening), evidence.test_thumbnails(opening)
    if stored is None or images is None:
        return []
    given_NC, labels_N = probabilities(stored["bundle_NC"], 1.0), stored["labels_N"]
    worst = worst_first(given_NC, labels_N)
    classes = evidence.classes
    pictures = [
        Picture(
            png=to_png(images["images_NHWC"][i]),
            caption=f"{stored['names_N'][i]}: {classes[labels_N[i]]}, called "
            f"{classes[given_NC[i].argmax()]} ({given_NC[i].max():.2f})",
        )
        for i in worst[:SHOWN]
    ]
    if not pictures:
        return []
    caption = (
        f"The {len(pictures)} most confident of {len(worst)} errors of the bundle's model, with "
        "the probability before calibration"
    )
    return [Pictures(caption=caption, pictures=pictures)]


def worst_first(given_NC: Floats, labels_N: Labels) -> list[int]:
    """Images that are called wrong, the most confident first."""
    wrong = np.flatnonzero(given_NC.argmax(axis=1) != labels_N)
    return [int(i) for i in wrong[np.argsort(-given_NC[wrong].max(axis=1), kind="stable")]]


def to_png(image_HWC: Any) -> bytes:
    """An image of one or three channels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


MOST_CLASSES = 4
READ = (
    "A slope of 1 and intercepts of 0 are right. A slope below 1 says that probabilities are too "
    "near 0 and 1, an intercept below 0 that its class is foretold too often. The calibration "
    "error is what there is beyond that of a calibrated model on so many images."
)


def task_e(evidence: StoredStudy) -> list[Section]:
    """The section, and behind an evaluation the explanation."""
    opening = evidence.evaluation
    title = "Task E: test data"
    if opening is None:
        return [Section(id="task-e", title=title, blocks=_sealed(evidence))]
    source = (
        f"opening {opening.number} of {opening.opened:%Y-%m-%d %H:%M} UTC, test fingerprint "
        f"{opening.test_fingerprint[:12]}"
    )
    result = opening.result
    assert result is not None
    stored = evidence.test_predictions(opening)
    return [
        Section(
            id="task-e", title=title, blocks=_opened(evidence, opening, result, source, stored)
        ),
        Section(
            id="points-lost",
            title="Why: points lost between forecast and test result",
            level=3,
            blocks=[*explained(evidence, opening), *most_confident_errors(evidence, opening)],
        ),
        Section(
            id="points-missing",
            title="Why: points missing to what is attainable",
            level=3,
            blocks=[
                Paragraph(
                    content="Overfitting, hyperparameters, architecture, amount of training data: "
                    "each needs trainings of its own, which this study does not have.",
                    kind="note",
                )
            ],
        ),
    ]


def _sealed(evidence: StoredStudy) -> list[Block]:
    begun = [opening for opening in evidence.openings if not opening.is_finished]
    others = [opening for opening in evidence.openings if opening.is_finished]
    if others:
        lead = "These test images were opened by another study, not yet for this one."
    elif begun:
        lead = "An evaluation of these test images was begun and has no result."
    else:
        lead = "Sealed: no test pixel or label has reached a model, a metric or a choice."
    sign = "less" if METRICS[evidence.metric].larger_is_better else "plus"
    items: list[Words] = [
        [
            f"{TITLES[name]}: {evidence.metric} ",
            _forecast_cell(evidence, name),
            f" expected on {found.num_test} test images like the validation images: "
            f"{found.naive:.4f} there over {found.num_models} seeds, {sign} "
            f"{found.epoch_optimism:.4f} for the choice of epochs and {found.trial_optimism:.4f} "
            "for that of the configuration",
        ]
        for name, found in evidence.forecasts.items()
    ]
    blocks: list[Block] = [Paragraph(content=lead, kind="verdict")]
    if items:
        blocks += [Paragraph(content="Forecast:"), Listing(items=items)]
    else:
        blocks.append(Paragraph(content="No forecast: nothing is confirmed over seeds yet."))
    blocks.append(
        Paragraph(
            content="To open them, once: `python -m studies export`, then `python -m studies "
            "evaluate`."
        )
    )
    return blocks


def _forecast_cell(evidence: StoredStudy, strategy: str) -> Cell:
    candidate = evidence.candidate(strategy)
    assert candidate is not None
    return Cell(
        text=interval_text(evidence.metric, evidence.forecasts[strategy]),
        source=source_of_candidate(candidate, evidence.name),
        href=f"#confirm-{candidate.runs[0].number}",
    )


def _opened(
    evidence: StoredStudy,
    opening: Opening,
    result: Mapping[str, Any],
    source: str,
    stored: Mapping[str, Any] | None,
) -> list[Block]:
    blocks: list[Block] = [
        Paragraph(content=_lead(result, source), kind="verdict"),
        Listing(items=_forecasts(evidence, opening, result, source)),
    ]
    if len(evidence.openings) > 1:
        warning = f"Opened {len(evidence.openings)} times: all but the first are validation."
        blocks.append(Paragraph(content=warning, kind="warning"))
    blocks.append(_ledger(evidence))
    blocks += [_metrics(result, source), Paragraph(content=PRECISION_NOTE, kind="note")]
    predictive = predictive_sentence(result)
    if predictive is not None:
        blocks.append(Paragraph(content=predictive))
    if "calibration" in result:
        blocks += [_calibration(evidence, result, source), Paragraph(content=READ, kind="note")]
    blocks.append(_controls(result, source))
    blocks.append(confusions(result, evidence.classes))
    if stored is not None:
        blocks += curves(evidence, result, stored)
    return blocks


def _ledger(evidence: StoredStudy) -> Table:
    """Every opening of these test images, by whatever study."""
    rows: list[list[Words]] = [
        [
            number_cell(opening.number),
            f"{opening.opened:%Y-%m-%d %H:%M} UTC",
            opening.study,
            opening.bundle[:12],
            opening.reason or "",
            "-"
            if opening.result is None
            else interval_cell(
                opening.result["metric"],
                opening.result["metrics"][opening.result["metric"]],
                f"test {opening.result['metric']} of the model",
            ),
        ]
        for opening in evidence.openings
    ]
    return Table(
        name="openings",
        caption="Openings of the test images",
        columns=["opening", "when", "study", "model", "reason", "result"],
        rows=rows,
    )


def _lead(result: Mapping[str, Any], source: str) -> Words:
    found, metric = result["difference"], result["metric"]
    if found is None:
        told = "; ".join(
            f"{TITLES[name]} {interval_text(metric, each['metrics'][metric])}"
            for name, each in result["by_strategy"].items()
        )
        return [Cell(text=f"Test {metric}: {told}.", source=source)]
    return [Cell(text=found["sentence"], source=source)]


def _forecasts(
    evidence: StoredStudy, opening: Opening, result: Mapping[str, Any], source: str
) -> list[Words]:
    metric, predicted = result["metric"], opening.predicted
    items: list[Words] = []
    for name, each in result["by_strategy"].items():
        forecast = predicted["by_strategy"].get(name)
        if forecast is None:
            continue
        items.append(
            [
                f"{TITLES[name]}, {len(each['seeds'])} seeds: forecast ",
                Cell(text=interval_text(metric, forecast), source="written before the opening"),
                ", test ",
                Cell(text=interval_text(metric, each["as_forecast"]), source=source),
            ]
        )
    items.append(
        [
            "The model in the bundle: forecast ",
            Cell(text=interval_text(metric, predicted), source="written before the opening"),
            ", test ",
            Cell(text=interval_text(metric, result["as_forecast"]), source=source),
            f". {forecast_result(predicted, result)}",
        ]
    )
    if result["difference"] is not None:
        found = result["difference"]
        items.append(
            [
                "Difference, fine-tuning less feature extraction: ",
                Cell(text=difference_text(found["metric"], found), source=source),
                f", p = {found['p']:.2g}",
            ]
        )
    return items


def _metrics(result: Mapping[str, Any], source: str) -> Table:
    strategies = result["by_strategy"]
    rows: list[list[Words]] = [
        [
            metric,
            *(
                interval_cell(metric, s["metrics"].get(metric), source)
                for s in strategies.values()
            ),
            interval_cell(metric, interval, source),
            interval_cell(metric, result["at_threshold"]["metrics"].get(metric), source),
        ]
        for metric, interval in shown_metrics(result["metrics"]).items()
    ]
    return Table(
        name="test_metrics",
        caption=f"Metrics on {images_text(result)}, 95 % intervals",
        columns=[
            "metric",
            *(f"{TITLES[name]}, {len(s['seeds'])} seeds" for name, s in strategies.items()),
            "the bundle's model",
            "the same, at its threshold",
        ],
        rows=rows,
    )


def _calibration(evidence: StoredStudy, result: Mapping[str, Any], source: str) -> Table:
    """Slope, intercepts and scores before and after calibration."""
    strategies = {
        f"{TITLES[name]}, {len(each['seeds'])} seeds": each["calibration"]
        for name, each in result["by_strategy"].items()
    }
    # More columns would be read by nobody; all are in the result as JSON.
    others = evidence.classes[1:] if len(evidence.classes) <= MOST_CLASSES else []
    rows: list[list[Words]] = []
    for name, found in {**strategies, "the bundle's model": result["calibration"]}.items():
        for when in ("before", "after"):
            told = found[when]
            intercepts = told["intercepts"] or {}
            rows.append(
                [
                    name,
                    when,
                    _plain_cell(told["slope"], source),
                    *(_plain_cell(intercepts.get(other), source) for other in others),
                    interval_cell("loss", told["loss"], source),
                    interval_cell("brier", told["brier"], source),
                    calibration_error_text(told["ece"]) if "ece" in told else "",
                ]
            )
    return Table(
        name="test_calibration",
        caption="Can probabilities be taken at their word? Before and after calibration on "
        "validation images, 95 % intervals",
        columns=[
            "",
            "calibration",
            "slope",
            *(f"intercept of {name}" for name in others),
            "log loss (nats)",
            "Brier score",
            "calibration error beyond chance",
        ],
        rows=rows,
    )


def _plain_cell(found: Mapping[str, Any] | None, source: str) -> Cell:
    if found is None:
        return NOTHING
    low, high = found["low"], found["high"]
    return Cell(text=plain_interval(found), source=source, key=found["value"], bounds=(low, high))


def _controls(result: Mapping[str, Any], source: str) -> Table:
    metric = result["metric"]
    rows: list[list[Words]] = [
        [
            Cell(text=row["control"], href=f"#control-{row['trial']}", source=source),
            row["backbone"] or "",
            row["weights"] or "",
            interval_cell(metric, row["metrics"][metric], source),
        ]
        for row in result["controls"]
    ]
    return Table(
        name="test_controls",
        caption=f"Controls on the test images: {metric}"
        + (" before calibration" if metric == "loss" else ""),
        columns=["control", "backbone", "weights", f"test {metric}"],
        rows=rows,
    )
