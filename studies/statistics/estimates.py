"""Metrics of predictions for test images, each with its interval: of one model, or over seeds.

Pure functions of labels and probabilities; knows nothing of studies or of how images are opened.
``groups_N`` says whose picture each is; images are taken as independent where it is left out.

Legend: N images, C classes, S seeds, B resamples.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from studies.statistics.clusters import num_subjects, share_worth
from studies.statistics.intervals import (
    Interval,
    bootstrap_over_seeds,
    score_interval,
    stratified_bootstrap,
    wilson_interval,
)
from studies.statistics.metrics import METRICS, Floats, Labels, Score, check_predictions

Matrix = NDArray[np.int64]
# None where a metric is not defined: AUROC with one class alone, recall of a class without images,
# precision of one that is never called.
Metrics = dict[str, Interval | None]

MOST_RESAMPLES, FEWEST_RESAMPLES, MOST_DRAWS = 2000, 200, 10_000_000
# What needs no probability, so that it can be told at any threshold.
OF_CALLS = ("accuracy", "balanced_accuracy", "f1")
# What calibration is for.
OF_VALUES = ("loss", "brier")
ACCURACY = METRICS["accuracy"]
MOST_CLASSES = 10


def num_resamples(num_images: int, num_metrics: int = 1) -> int:
    """2,000, but fewer for many images or metrics: they would take gigabytes or minutes."""
    draws = max(1, num_images * num_metrics)
    return min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWS // draws))


def evaluate_model(
    labels_N: Labels,
    probabilities_NC: Floats,
    classes: Sequence[str],
    groups_N: Labels | None = None,
    *,
    calibrated_NC: Floats | None = None,
) -> dict[str, Interval | None]:
    """All metrics of one model, ``recall@CLASS`` and ``precision@CLASS``.

    Args:
        calibrated_NC: of these the loss and the Brier score are; which class is called, and in
            which order images stand, remains that of ``probabilities_NC``, as in the search.

    Raises:
        ValueError: `check_predictions` refuses the predictions.
    """
    check_predictions(labels_N, probabilities_NC)
    mended_NC = probabilities_NC if calibrated_NC is None else calibrated_NC
    check_predictions(labels_N, mended_NC)
    found = {
        name: _of_model(
            m, labels_N, mended_NC if name in OF_VALUES else probabilities_NC, groups_N
        )
        for name, m in METRICS.items()
    }
    called_N = probabilities_NC.argmax(axis=1)
    return {**found, **_of_each_class(labels_N, called_N, classes, groups_N)}


def evaluate_calls(
    labels_N: Labels, called_N: Labels, classes: Sequence[str], groups_N: Labels | None = None
) -> Metrics:
    """Those of the metrics that need no probabilities, of what images are called."""
    certain_NC = np.eye(len(classes))[called_N]
    found = {name: _of_model(METRICS[name], labels_N, certain_NC, groups_N) for name in OF_CALLS}
    return {**found, **_of_each_class(labels_N, called_N, classes, groups_N)}


def evaluate_seeds(
    labels_N: Labels,
    probabilities_SNC: Floats,
    classes: Sequence[str],
    groups_N: Labels | None = None,
    *,
    calibrated_SNC: Floats | None = None,
) -> dict[str, Interval | None]:
    """The mean over seeds of all metrics, for further seeds on further images.

    Args:
        calibrated_SNC: as in `evaluate_model`.

    Raises:
        ValueError: `check_predictions` refuses the predictions of a seed.
    """
    mended_SNC = probabilities_SNC if calibrated_SNC is None else calibrated_SNC
    for probabilities_NC in (*probabilities_SNC, *mended_SNC):
        check_predictions(labels_N, probabilities_NC)
    found = {
        name: _over_seeds(
            m, labels_N, mended_SNC if name in OF_VALUES else probabilities_SNC, groups_N
        )
        for name, m in METRICS.items()
    }
    by_class = recalls_over_seeds(labels_N, probabilities_SNC, classes, groups_N)
    recalls = {f"recall@{name}": interval for name, interval in by_class.items()}
    precisions = {
        f"precision@{name}": _precision(i, labels_N, probabilities_SNC, groups_N)
        for i, name in enumerate(classes)
    }
    return {**found, **recalls, **precisions}


def recalls_over_seeds(
    labels_N: Labels,
    probabilities_SNC: Floats,
    classes: Sequence[str],
    groups_N: Labels | None = None,
) -> Metrics:
    """The mean recall of every class over seeds, as `evaluate_seeds`."""
    return {
        name: _called(i, labels_N == i, probabilities_SNC, groups_N)
        for i, name in enumerate(classes)
    }


def values_by_seed(
    metric: Score, labels_N: Labels, probabilities_SNC: Floats
) -> list[float] | None:
    """A metric of every seed; None where it is not defined."""
    try:
        return [metric(labels_N, probabilities_NC) for probabilities_NC in probabilities_SNC]
    except ValueError:
        return None


def of_model(
    name: str, labels_N: Labels, probabilities_NC: Floats, groups_N: Labels | None = None
) -> Interval | None:
    """One metric of one model."""
    return _of_model(METRICS[name], labels_N, probabilities_NC, groups_N)


def over_seeds(
    name: str, labels_N: Labels, probabilities_SNC: Floats, groups_N: Labels | None = None
) -> Interval | None:
    """One metric over seeds."""
    return _over_seeds(METRICS[name], labels_N, probabilities_SNC, groups_N)


def _of_model(
    metric: Score, labels_N: Labels, probabilities_NC: Floats, groups_N: Labels | None
) -> Interval | None:
    resamples = num_resamples(len(labels_N))
    try:
        return stratified_bootstrap(
            metric, labels_N, probabilities_NC, num_resamples=resamples, groups_N=groups_N
        )
    except ValueError:
        return None


def _over_seeds(
    metric: Score,
    labels_N: Labels,
    probabilities_SNC: Floats,
    groups_N: Labels | None,
    num_metrics: int = 1,
) -> Interval | None:
    resamples = num_resamples(len(labels_N), num_metrics)
    try:
        return bootstrap_over_seeds(
            metric, labels_N, probabilities_SNC, num_resamples=resamples, groups_N=groups_N
        )
    except ValueError:
        return None


def _called(
    label: int,
    of_N: NDArray[np.bool_],
    probabilities_SNC: Floats,
    groups_N: Labels | None,
) -> Interval | None:
    """The share of some images that is called ``label``: accuracy, were they all of that class."""
    labels_n = np.full(int(of_N.sum()), label, np.int64)
    groups_n = None if groups_N is None else groups_N[of_N]
    of_SNC = probabilities_SNC[:, of_N]
    if len(labels_n) and (num_subjects(groups_n) or len(labels_n)) == 1:
        # Nothing to resample: as sure as one image can be, whatever the seed.
        return _of_one(float((of_SNC.argmax(axis=2) == label).mean()))
    return _over_seeds(ACCURACY, labels_n, of_SNC, groups_n)


def _of_one(share: float) -> Interval:
    return score_interval(share, 1.0, float(norm.ppf(0.975)))


def _precision(
    label: int, labels_N: Labels, probabilities_SNC: Floats, groups_N: Labels | None
) -> Interval | None:
    called_S = (probabilities_SNC.argmax(axis=2) == label).sum(axis=1)
    if not called_S.all():
        return None
    metric = Score(
        name="precision",
        weighted=partial(_weighted_precision, label),
        num_images=float(called_S.mean()),
    )
    return _over_seeds(metric, labels_N, probabilities_SNC, groups_N, probabilities_SNC.shape[2])


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


def _of_each_class(
    labels_N: Labels, called_N: Labels, classes: Sequence[str], groups_N: Labels | None
) -> Metrics:
    right_N = called_N == labels_N
    recalls = {
        f"recall@{name}": _share(right_N, labels_N == i, groups_N)
        for i, name in enumerate(classes)
    }
    precisions = {
        f"precision@{name}": _share(right_N, called_N == i, groups_N)
        for i, name in enumerate(classes)
    }
    return {**recalls, **precisions}


def predictive_values(
    labels_N: Labels, called_N: Labels, prevalence: float, groups_N: Labels | None = None
) -> tuple[Interval | None, Interval | None]:
    """Of two classes: how often a call is right where class 1 is as frequent as ``prevalence``.

    First of class 1 (positive predictive value), then of class 0 (negative). Not defined, None,
    where a class has no images or is never called. Recalls are taken to be the same there: it is
    the mixture that differs, not the images.

    Source: N. Mercaldo, K. Lau, X. Zhou, "Confidence intervals for predictive values with an
    emphasis to case-control studies", Statistics in Medicine 26 (2007), 2170-2183: the logit
    interval, of adjusted recalls where one is 0 or 1.

    Raises:
        ValueError: the prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"`0 < prevalence < 1` must hold, but got {prevalence}.")
    recalls, sizes, width = [], [], float(norm.ppf(0.975))
    for label in (0, 1):
        right_n = (called_N == labels_N)[labels_N == label].astype(np.float64)
        if not len(right_n):
            return None, None
        groups_n = None if groups_N is None else groups_N[labels_N == label]
        worth = share_worth(right_n, groups_n) or (float(len(right_n)), width)
        recalls.append(float(right_n.mean()))
        sizes.append(worth[0])
        width = max(width, worth[1])
    odds = prevalence / (1 - prevalence)
    return (
        _predictive_value(recalls[1], sizes[1], recalls[0], sizes[0], odds, width),
        _predictive_value(recalls[0], sizes[0], recalls[1], sizes[1], 1 / odds, width),
    )


def _predictive_value(
    own: float, own_size: float, other: float, other_size: float, odds: float, width: float
) -> Interval | None:
    """By the recalls of the class that is called and of the other one, and its odds."""
    if own == 0 and other == 1:
        return None
    value = own * odds / (own * odds + (1 - other))
    if {own, other} & {0.0, 1.0}:
        more = width**2
        own, other = (
            (share * size + more / 2) / (size + more)
            for share, size in ((own, own_size), (other, other_size))
        )
        own_size, other_size = own_size + more, other_size + more
    middle = math.log(odds * own / (1 - other))
    half = width * ((1 - own) / (own * own_size) + other / ((1 - other) * other_size)) ** 0.5
    low, high = (1 / (1 + math.exp(-(middle + side * half))) for side in (-1, 1))
    return Interval(value=value, low=min(low, value), high=max(high, value))


def confusion_matrix(labels_N: Labels, called_N: Labels, num_classes: int) -> Matrix:
    """How many images of each class (rows) are called each class (columns): (C, C)."""
    matrix_CC = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix_CC, (labels_N, called_N), 1)
    return matrix_CC


def confusion_json(
    labels_N: Labels, called_N: Labels, num_classes: int, groups_N: Labels | None = None
) -> dict[str, Any]:
    """``counts`` of the confusion matrix, and ``shares`` of each row with Wilson's intervals."""
    matrix_CC = confusion_matrix(labels_N, called_N, num_classes)
    shares = [
        [as_json(_share(called_N == j, labels_N == i, groups_N)) for j in range(num_classes)]
        for i in range(num_classes)
    ]
    return {"counts": matrix_CC.tolist(), "shares": shares}


def confusion_over_seeds(
    labels_N: Labels, probabilities_SNC: Floats, groups_N: Labels | None = None
) -> dict[str, Any]:
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
        [
            as_json(_called(j, labels_N == i, probabilities_SNC, groups_N))
            for j in range(num_classes)
        ]
        for i in range(num_classes)
    ]
    return {"counts": counts.tolist(), "shares": shares}


def _share(
    is_hit_N: NDArray[np.bool_], of_N: NDArray[np.bool_], groups_N: Labels | None
) -> Interval | None:
    """The share of hits of some images, by Wilson's interval for as many as they are worth."""
    hits_n = is_hit_N[of_N].astype(np.float64)
    groups_n = None if groups_N is None else groups_N[of_N]
    if not len(hits_n):
        return None
    share = float(hits_n.sum()) / len(hits_n)
    if num_subjects(groups_n) == 1:
        return _of_one(share)
    worth = share_worth(hits_n, groups_n)
    if worth is not None:
        return score_interval(share, *worth)
    low, high = wilson_interval(int(hits_n.sum()), len(hits_n))
    return Interval(value=share, low=low, high=high)


def as_json(interval: Interval | None) -> dict[str, float | None]:
    """``value``, ``low``, ``high``: null where there is none."""
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def metrics_json(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """Every metric by `as_json`."""
    return {name: as_json(interval) for name, interval in metrics.items()}
