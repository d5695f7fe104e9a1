"""What a trial's page has to look at: learning curve and confusion matrix as PNG.

Legend: N images, C classes. Knows values, no study. Never imports torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.document.drawing import to_png
from studies.report.figures import Curve, confusion_matrices, learning_curves
from studies.statistics.metrics import Labels

MOST_CLASSES = 50  # Of a confusion matrix.
LEARNING_CURVE, CONFUSION_MATRIX = "learning_curve.png", "confusion_matrix.png"


def trial_pictures(
    history: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    strategy: str,
    best_epoch: int,
    logits_NC: NDArray[np.float32],
    labels_N: Labels,
    classes: Sequence[str],
) -> dict[str, bytes]:
    """The learning curve, and the confusion matrix of ``best_epoch``, as PNG by name.

    No matrix of many classes: nobody could read it, and it takes a second or more.
    """
    curve = learning_curve_png(history, metric=metric, strategy=strategy, best_epoch=best_epoch)
    pictures = {LEARNING_CURVE: curve}
    if len(classes) <= MOST_CLASSES:
        pictures[CONFUSION_MATRIX] = confusion_matrix_png(logits_NC, labels_N, classes)
    return pictures


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
