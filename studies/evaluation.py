"""Metrics of predictions for test images, each with its interval: of one model, or over seeds.

Pure functions of labels and probabilities; knows nothing of studies or of how images are opened.

Legend: N images, C classes, S seeds, B resamples.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from studies.scores import METRICS, Floats, Labels, Score, check_predictions
from studies.statistics import (
    Interval,
    bootstrap_over_seeds,
    score_interval,
    stratified_bootstrap,
    wilson_interval,
)

Matrix = NDArray[np.int64]
# None where a metric is not defined: AUROC with one class alone, recall of a class without images,
# precision of one that is never called.
Metrics = dict[str, Interval | None]

MOST_RESAMPLES, FEWEST_RESAMPLES, MOST_DRAWS = 2000, 200, 10_000_000
# What needs no probability, so that it can be told at any threshold.
OF_CALLS = ("accuracy", "balanced_accuracy", "f1")
ACCURACY = METRICS["accuracy"]
MOST_CLASSES = 10


def num_resamples(num_images: int, num_metrics: int = 1) -> int:
    """2,000, but fewer for many images or metrics: they would take gigabytes or minutes."""
    draws = max(1, num_images * num_metrics)
    return min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWS // draws))


def evaluate_model(
    labels_N: Labels, probabilities_NC: Floats, classes: Sequence[str]
) -> dict[str, Interval | None]:
    """All metrics of one model, ``recall@CLASS`` and ``precision@CLASS``.

    Raises:
        ValueError: `check_predictions` refuses the predictions.
    """
    check_predictions(labels_N, probabilities_NC)
    found = {name: _of_model(m, labels_N, probabilities_NC) for name, m in METRICS.items()}
    return {**found, **_of_each_class(labels_N, probabilities_NC.argmax(axis=1), classes)}


def evaluate_calls(labels_N: Labels, called_N: Labels, classes: Sequence[str]) -> Metrics:
    """Those of the metrics that need no probabilities, of what images are called."""
    certain_NC = np.eye(len(classes))[called_N]
    found = {name: _of_model(METRICS[name], labels_N, certain_NC) for name in OF_CALLS}
    return {**found, **_of_each_class(labels_N, called_N, classes)}


def evaluate_seeds(
    labels_N: Labels, probabilities_SNC: Floats, classes: Sequence[str]
) -> dict[str, Interval | None]:
    """The mean over seeds of all metrics, for further seeds on further images.

    Raises:
        ValueError: `check_predictions` refuses the predictions of a seed.
    """
    for probabilities_NC in probabilities_SNC:
        check_predictions(labels_N, probabilities_NC)
    found = {name: _over_seeds(m, labels_N, probabilities_SNC) for name, m in METRICS.items()}
    recalls = {
        f"recall@{name}": interval
        for name, interval in recalls_over_seeds(labels_N, probabilities_SNC, classes).items()
    }
    precisions = {
        f"precision@{name}": _precision(i, labels_N, probabilities_SNC)
        for i, name in enumerate(classes)
    }
    return {**found, **recalls, **precisions}


def recalls_over_seeds(
    labels_N: Labels, probabilities_SNC: Floats, classes: Sequence[str]
) -> Metrics:
    """The mean recall of every class over seeds, as `evaluate_seeds`."""
    return {name: _called(i, labels_N == i, probabilities_SNC) for i, name in enumerate(classes)}


def values_by_seed(
    metric: Score, labels_N: Labels, probabilities_SNC: Floats
) -> list[float] | None:
    """A metric of every seed; None where it is not defined."""
    try:
        return [metric(labels_N, probabilities_NC) for probabilities_NC in probabilities_SNC]
    except ValueError:
        return None


def of_model(name: str, labels_N: Labels, probabilities_NC: Floats) -> Interval | None:
    """One metric of one model."""
    return _of_model(METRICS[name], labels_N, probabilities_NC)


def over_seeds(name: str, labels_N: Labels, probabilities_SNC: Floats) -> Interval | None:
    """One metric over seeds."""
    return _over_seeds(METRICS[name], labels_N, probabilities_SNC)


def _of_model(metric: Score, labels_N: Labels, probabilities_NC: Floats) -> Interval | None:
    resamples = num_resamples(len(labels_N))
    try:
        return stratified_bootstrap(metric, labels_N, probabilities_NC, num_resamples=resamples)
    except ValueError:
        return None


def _over_seeds(
    metric: Score, labels_N: Labels, probabilities_SNC: Floats, num_metrics: int = 1
) -> Interval | None:
    resamples = num_resamples(len(labels_N), num_metrics)
    try:
        return bootstrap_over_seeds(metric, labels_N, probabilities_SNC, num_resamples=resamples)
    except ValueError:
        return None


def _called(label: int, of_N: NDArray[np.bool_], probabilities_SNC: Floats) -> Interval | None:
    """The share of some images that is called ``label``: accuracy, were they all of that class."""
    labels_n = np.full(int(of_N.sum()), label, np.int64)
    of_SNC = probabilities_SNC[:, of_N]
    if len(labels_n) == 1:  # Nothing to resample: as sure as one image can be, whatever the seed.
        share = float((of_SNC.argmax(axis=2) == label).mean())
        return score_interval(share, 1.0, float(norm.ppf(0.975)))
    return _over_seeds(ACCURACY, labels_n, of_SNC)


def _precision(label: int, labels_N: Labels, probabilities_SNC: Floats) -> Interval | None:
    called_S = (probabilities_SNC.argmax(axis=2) == label).sum(axis=1)
    if not called_S.all():
        return None
    metric = Score(
        name="precision",
        weighted=partial(_weighted_precision, label),
        num_images=float(called_S.mean()),
    )
    return _over_seeds(metric, labels_N, probabilities_SNC, probabilities_SNC.shape[2])


def _weighted_precision(
    label: int, labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats
) -> Floats:
    called_N = (probabilities_NC.argmax(axis=1) == label).astype(np.float64)
    called_B = weights_BN @ called_N
    hits_B = weights_BN @ (called_N * (labels_N == label))
    # A resample in which it is never called knows nothing: as likely right as wrong.
    shares_B = np.full(len(called_B), 0.5)
    np.divide(hits_B, called_B, out=shares_B, where=called_B > 0)
    return shares_B


def _of_each_class(labels_N: Labels, called_N: Labels, classes: Sequence[str]) -> Metrics:
    matrix_CC = confusion_matrix(labels_N, called_N, len(classes))
    hits_C, of_C, called_C = np.diag(matrix_CC), matrix_CC.sum(axis=1), matrix_CC.sum(axis=0)
    recalls = {f"recall@{name}": _share(hits_C[i], of_C[i]) for i, name in enumerate(classes)}
    precisions = {
        f"precision@{name}": _share(hits_C[i], called_C[i]) for i, name in enumerate(classes)
    }
    return {**recalls, **precisions}


def confusion_matrix(labels_N: Labels, called_N: Labels, num_classes: int) -> Matrix:
    """How many images of each class (rows) are called each class (columns): (C, C)."""
    matrix_CC = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix_CC, (labels_N, called_N), 1)
    return matrix_CC


def confusion_json(labels_N: Labels, called_N: Labels, num_classes: int) -> dict[str, Any]:
    """``counts`` of the confusion matrix, and ``shares`` of each row with Wilson's intervals."""
    matrix_CC = confusion_matrix(labels_N, called_N, num_classes)
    shares = [[as_json(_share(count, row.sum())) for count in row] for row in matrix_CC]
    return {"counts": matrix_CC.tolist(), "shares": shares}


def confusion_over_seeds(labels_N: Labels, probabilities_SNC: Floats) -> dict[str, Any]:
    """The mean of ``counts`` over seeds, and ``shares`` of each row, as `evaluate_seeds`.

    Shares of more than ten classes have no interval: hundreds of them would be read by nobody.
    """
    num_classes = probabilities_SNC.shape[2]
    counts = np.mean(
        [confusion_matrix(labels_N, p.argmax(axis=1), num_classes) for p in probabilities_SNC],
        axis=0,
    )
    if num_classes > MOST_CLASSES:
        return {"counts": counts.tolist(), "shares": None}
    shares = [
        [as_json(_called(j, labels_N == i, probabilities_SNC)) for j in range(num_classes)]
        for i in range(num_classes)
    ]
    return {"counts": counts.tolist(), "shares": shares}


def _share(part: int, whole: int) -> Interval | None:
    if whole == 0:
        return None
    low, high = wilson_interval(int(part), int(whole))
    return Interval(value=float(part) / float(whole), low=low, high=high)


def as_json(interval: Interval | None) -> dict[str, float | None]:
    """``value``, ``low``, ``high``: null where there is none."""
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def metrics_json(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """Every metric by `as_json`."""
    return {name: as_json(interval) for name, interval in metrics.items()}
