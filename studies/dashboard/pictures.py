"""What a trial's page has to look at: learning curve and confusion matrix as PNG, epochs as CSV.

Legend: N images, C classes. Knows values, no study. Never imports torch.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.document.drawing import to_png
from studies.report.figures import Curve, confusion_matrices, learning_curves
from studies.statistics.calibration import Labels


def history_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """A row an epoch: its number, metrics of training and validation images, seconds.

    Args:
        history: as a trial stores it; see ``trials.write_result``.
    """
    rows = [
        {
            "epoch": epoch["epoch"],
            **{f"train_{name}": value for name, value in epoch["train"].items()},
            **{f"val_{name}": value for name, value in epoch["val"].items()},
            "training_seconds": epoch["training_seconds"],
            "validation_seconds": epoch["validation_seconds"],
            "all_layers_train": epoch["all_layers_train"],
        }
        for epoch in history
    ]
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(rows[0]) if rows else ["epoch"])
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def learning_curve_png(
    history: Sequence[Mapping[str, Any]], *, metric: str, strategy: str, best_epoch: int
) -> bytes:
    """The metric by epoch on training and validation images, the epoch that was kept marked.

    Raises:
        ValueError: no epoch has a finite value.
    """
    curve = Curve(
        train=[epoch["train"][metric] for epoch in history],
        val=[epoch["val"][metric] for epoch in history],
        best_epoch=best_epoch,
    )
    figure = learning_curves(
        [], curve, [], metric=metric, strategy=strategy, best_name="this trial"
    )
    return to_png(figure)


def confusion_matrix_png(
    logits_NC: NDArray[np.float32], labels_N: Labels, classes: Sequence[str]
) -> bytes:
    """Validation images by true class (rows) and predicted class (columns).

    Raises:
        ValueError: there is no class.
    """
    counts_CC = np.zeros((len(classes), len(classes)))
    np.add.at(counts_CC, (labels_N, logits_NC.argmax(axis=1)), 1)
    title = f"{len(labels_N):,} validation images"
    return to_png(confusion_matrices({title: (counts_CC.tolist(), classes)}))
