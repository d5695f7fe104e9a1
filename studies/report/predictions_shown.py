"""Stored predictions for test images as figures: confusion, ROC, calibration. Opens no image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from studies.artifacts import TEST_PREDICTIONS, read_arrays
from studies.calibration import Floats, Labels, probabilities
from studies.errors import UserError
from studies.ledger import Opening
from studies.report.blocks import Block, Drawing
from studies.report.evidence import Evidence
from studies.report.figures import calibration, confusion_matrices, roc_curves
from studies.report.numbers import (
    NAMES,
    interval_text,
)

BINS = 10


def confusions(result: Mapping[str, Any], classes: Sequence[str]) -> Drawing:
    matrices = {
        NAMES[name]: (each["confusion"]["counts"], classes)
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


def stored_predictions(evidence: Evidence, opening: Opening) -> Mapping[str, Any] | None:
    assert opening.result is not None
    artifact = opening.result.get("artifacts", {}).get(TEST_PREDICTIONS)
    try:
        return read_arrays(evidence.storage, artifact, "test predictions")
    except UserError:
        return None


def curves(
    evidence: Evidence, result: Mapping[str, Any], stored: Mapping[str, Any]
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
            f"{NAMES[name]} {interval_text('auroc', each['metrics']['auroc'])}"
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
    bins = {NAMES[n]: reliability(labels_N, given_SNC) for n, given_SNC in given.items()}
    blocks.append(
        Drawing(
            name="calibration",
            figure=calibration(bins),
            caption="Calibration before temperature: how often a class is right that is called "
            "with such a probability, all seeds. On the diagonal confidence is earned.",
            description="; ".join(f"{name}: {_bins_told(each)}" for name, each in bins.items()),
        )
    )
    return blocks


def _bins_told(bins: Sequence[tuple[float, float, int]]) -> str:
    return ", ".join(f"{sure:.2f} sure, {right:.2f} right" for sure, right, _ in bins)


def reliability(labels_N: Labels, given_SNC: Floats) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of predictions in ten bins, empty ones left out."""
    confidence = given_SNC.max(axis=2).ravel()
    right = (given_SNC.argmax(axis=2) == labels_N).ravel()
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        (
            float(confidence[bins == b].mean()),
            float(right[bins == b].mean()),
            int((bins == b).sum()),
        )
        for b in np.unique(bins)
    ]
