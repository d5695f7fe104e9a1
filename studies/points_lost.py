"""Why the test result is not what the validation images promised: part A, points lost on the way.

A waterfall that adds up: the mean over seeds on validation images, optimism, class prior, shift,
rest, the mean over seeds on test images. Pure functions of arrays; knows nothing of studies.

Legend: M training, V validation, N test images, S seeds, C classes, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studies import evaluation
from studies.calibration import find_temperature, probabilities
from studies.domain import auroc, find_domains
from studies.explanation import ALL, Cause, Explanation, Level, Step
from studies.forecast import Forecast
from studies.matching import Seen
from studies.scores import METRICS, Floats, Labels, Score
from studies.statistics import (
    Interval,
    bootstrap_over_seeds,
    resampling_counts,
    values_of_seeds,
)
from studies.thresholds import find_thresholds
from studies.waterfall import NUM_RESAMPLES, Path, find_path, normal_interval


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Labels, frozen features and the seeds' logits, of the epochs that were chosen.

    All seeds have the same validation images. Shapes: labels (N,), features (N, D), logits
    (S, N, C).
    """

    train_labels_M: Labels
    train_features_MD: NDArray[np.floating]
    val_labels_V: Labels
    val_features_VD: NDArray[np.floating]
    val_logits_SVC: NDArray[np.floating]
    test_labels_N: Labels
    test_features_ND: NDArray[np.floating]
    test_logits_SNC: NDArray[np.floating]


def explain(
    evidence: Evidence,
    *,
    metric: str,
    classes: Sequence[str],
    forecast: Forecast,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Explanation:
    """Explain by how much the test result of a strategy's mean over seeds misses validation's.

    Optimism is the forecast's, and its interval too: in it lies what the test images should show,
    so it has the chance of both sets in it. The other steps are those of `waterfall.find_path`,
    less what optimism has in them: validation images that are replaced take their part of it with
    them. Calibration is what the temperatures change, which is nothing where the most probable
    class counts.

    Raises:
        ValueError: as `find_path`, or a logit is not finite.
    """
    score = METRICS[metric]
    temperatures_S = [
        find_temperature(logits_VC, evidence.val_labels_V) for logits_VC in evidence.val_logits_SVC
    ]
    warm = [1.0] * len(temperatures_S)
    val = Seen(
        labels_N=evidence.val_labels_V,
        probabilities_SNC=_softmax(evidence.val_logits_SVC, warm),
        features_ND=evidence.val_features_VD,
    )
    test = Seen(
        labels_N=evidence.test_labels_N,
        probabilities_SNC=_softmax(evidence.test_logits_SNC, warm),
        features_ND=evidence.test_features_ND,
    )
    val_SVC = _softmax(evidence.val_logits_SVC, temperatures_S)
    test_SNC = _softmax(evidence.test_logits_SNC, temperatures_S)
    path = find_path(score, val, test, num_resamples=num_resamples, seed=seed)
    calibration = _calibration(score, test, test_SNC, seed)
    ece = METRICS["ece"]
    return Explanation(
        metric=metric,
        classes=tuple(classes),
        num_seeds=len(temperatures_S),
        forecast=forecast,
        steps=_steps(score, path, forecast, calibration),
        test=path.test + calibration.value,
        matched=path.matched,
        levels=_levels(evidence, classes, seed),
        paths=path.classes,
        thresholds=find_thresholds(
            metric, val.labels_N, val_SVC, test.labels_N, test_SNC, seed=seed
        ),
        ece_validation=bootstrap_over_seeds(ece, val.labels_N, val_SVC, num_resamples=200),
        ece_test=bootstrap_over_seeds(ece, test.labels_N, test_SNC, num_resamples=200),
    )


def _softmax(logits_SNC: NDArray[np.floating], temperatures_S: Sequence[float]) -> Floats:
    pairs = zip(logits_SNC, temperatures_S, strict=True)
    return np.stack([probabilities(logits_NC, t) for logits_NC, t in pairs])


def _steps(
    score: Score, path: Path, forecast: Forecast, calibration: Interval
) -> tuple[Step, ...]:
    optimism = _moved(forecast, -forecast.naive)
    shift = _moved(path.shift, -(1 - path.matched) * optimism.value)
    # What is left between the forecast and the test images, so that all adds up.
    left = path.test - forecast.value - path.prior.value - shift.value
    changes: dict[Cause, Interval] = {
        "optimism": optimism,
        "class_prior": path.prior,
        "shift": shift,
        "rest": _moved(path.rest, left - path.rest.value),
    }
    if score.name == "loss" or calibration.value:
        changes["calibration"] = calibration
    sign = 1.0 if score.larger_is_better else -1.0
    return tuple(
        Step(cause=cause, change=change, is_loss=sign * change.value < 0)
        for cause, change in changes.items()
    )


def _moved(interval: Interval, by: float) -> Interval:
    return Interval(value=interval.value + by, low=interval.low + by, high=interval.high + by)


def _calibration(score: Score, test: Seen, calibrated_SNC: Floats, seed: int) -> Interval:
    """What the temperatures change on the test images."""
    num_resamples = evaluation.num_resamples(len(test.labels_N)) // 4
    counts_BN = resampling_counts(test.labels_N, num_resamples, seed)
    before, after = (
        values_of_seeds(score, test.labels_N, given_SNC, counts_BN)
        for given_SNC in (test.probabilities_SNC, calibrated_SNC)
    )
    drawn_B = (after[1] - before[1]).mean(axis=0)
    return normal_interval(np.array([np.mean(after[0] - before[0]), *drawn_B]))


def _levels(evidence: Evidence, classes: Sequence[str], seed: int) -> tuple[Level, ...]:
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(classes)):
        of_train = np.flatnonzero(evidence.train_labels_M == label)
        wanted = int((evidence.test_labels_N == label).sum())
        chosen += rng.permutation(of_train)[:wanted].tolist()
    labels = (evidence.train_labels_M[chosen], evidence.val_labels_V, evidence.test_labels_N)
    features = (
        evidence.train_features_MD[chosen],
        evidence.val_features_VD,
        evidence.test_features_ND,
    )

    def told_apart(first: int, second: int, label: int | None) -> Interval | None:
        sides = [
            features[i] if label is None else features[i][labels[i] == label]
            for i in (first, second)
        ]
        domains = find_domains(*sides, seed=seed)
        return None if domains is None else auroc(domains)

    return tuple(
        Level(images=name, test=told_apart(1, 2, label), reference=told_apart(0, 1, label))
        for label, name in [(None, ALL), *enumerate(classes)]
    )
