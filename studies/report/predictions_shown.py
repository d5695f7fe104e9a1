"""Stored predictions for test images as figures: confusion, ROC, calibration. Opens no image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from studies.document.blocks import Block, Drawing
from studies.document.numbers import interval_text, plain_interval
from studies.report.figures import calibration, confusion_matrices, roc_curves
from studies.results.study import StoredStudy
from studies.statistics.calibration import (
    Calibration,
    ReliabilityCurve,
    find_recalibration,
    probabilities,
    reliability_curve,
)
from studies.statistics.metrics import Floats, Labels
from transfer.config import TITLES


def confusions(result: Mapping[str, Any], classes: Sequence[str]) -> Drawing:
    matrices = {
        TITLES[name]: (each["confusion"]["counts"], classes)
        for name, each in result["by_strategy"].items()
    }
    told = [f"{title}: {_in_words(counts, classes)}" for title, (counts, _) in matrices.items()]
    return Drawing(
        name="confusion",
        figure=confusion_matrices(matrices),
        caption="Confusion matrices, the mean over seeds: test images of each class (rows), "
        "called (columns).",
        description=". ".join(told),
    )


def _in_words(counts: Sequence[Sequence[float]], classes: Sequence[str]) -> str:
    rows = []
    for name, row in zip(classes, counts, strict=True):
        called = (f"{count:.1f} called {other}" for count, other in zip(row, classes, strict=True))
        rows.append(f"of {name} {', '.join(called)}")
    return "; ".join(rows)


def curves(
    evidence: StoredStudy, result: Mapping[str, Any], stored: Mapping[str, Any]
) -> list[Block]:
    labels_N: Labels = stored["labels_N"]
    given = {
        name: np.stack([probabilities(logits_NC, 1.0) for logits_NC in stored[f"{name}_SNC"]])
        for name in result["by_strategy"]
        if f"{name}_SNC" in stored
    }
    blocks: list[Block] = []
    if len(evidence.classes) == 2 and len(np.unique(labels_N)) == 2:
        by_seed = {
            name: [roc_curve(labels_N, p_NC[:, 1])[:2] for p_NC in given_SNC]
            for name, given_SNC in given.items()
        }
        auroc = "; ".join(
            f"{TITLES[name]} {interval_text('auroc', each['metrics']['auroc'])}"
            for name, each in result["by_strategy"].items()
        )
        blocks.append(
            Drawing(
                name="roc",
                figure=roc_curves(by_seed),
                caption=f"ROC of every seed for {evidence.classes[1]}. AUROC: {auroc}.",
                description=f"AUROC: {auroc}.",
            )
        )
    return [*blocks, _calibration(evidence, result, stored)]


def _calibration(
    evidence: StoredStudy, result: Mapping[str, Any], stored: Mapping[str, Any]
) -> Drawing:
    """The first seed of each strategy, which is the one that a bundle has."""
    labels_N: Labels = stored["labels_N"]
    panels: dict[str, dict[str, ReliabilityCurve]] = {}
    told: list[str] = []
    for name, each in result["by_strategy"].items():
        if f"{name}_SNC" not in stored:
            continue
        logits_NC = stored[f"{name}_SNC"][0]
        versions = {"before calibration": probabilities(logits_NC, 1.0)}
        if "calibration" in each:  # Older results have none.
            mended = Calibration(**each["calibration"]["of_seeds"][0])
            versions["after calibration"] = mended.probabilities(logits_NC)
        for when, given_NC in versions.items():
            foretold_N, came_true_N = _foretold(labels_N, given_NC)
            panels.setdefault(when, {})[name] = reliability_curve(foretold_N, came_true_N)
            slope = _slope_text(labels_N, given_NC, stored.get("groups_N"))
            told.append(f"{TITLES[name]} {when}: {slope}")
    what = "probability of the class that is called"
    if len(evidence.classes) == 2:
        what = f"probability of {evidence.classes[1]}"
    return Drawing(
        name="calibration",
        figure=calibration(panels, foretold=what),
        caption=f"How often the {what} comes true: the first seed of each strategy, by isotonic "
        "regression. On the diagonal probabilities can be taken at their word; the band is where "
        f"the curve of such probabilities lies by chance, in 95 %{_of_images(stored)}. "
        f"{'; '.join(told)}.",
        description="; ".join(told),
    )


def _of_images(stored: Mapping[str, Any]) -> str:
    if stored.get("groups_N") is None:
        return ""
    return ", if images were independent; of several images a subject it is too narrow"


def _foretold(labels_N: Labels, given_NC: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The probability of each image that the curve is of, and whether it came true."""
    if given_NC.shape[1] == 2:
        return given_NC[:, 1], labels_N == 1
    return given_NC.max(axis=1), given_NC.argmax(axis=1) == labels_N


def _slope_text(labels_N: Labels, given_NC: Floats, groups_N: Labels | None) -> str:
    found = find_recalibration(labels_N, given_NC[None], groups_N=groups_N)
    if found is None:
        return "no slope is defined"
    text = f"slope {plain_interval(found.slope)}"
    if len(found.intercepts) == 1:
        text += f", intercept {plain_interval(found.intercepts[0])}"
    return text
