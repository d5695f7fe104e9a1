"""What another threshold would have changed on test images: one that was known, and the best one.

Pure functions of labels and probabilities; knows nothing of studies.

Legend: V validation images, N test images, S seeds, C classes, B resamples, K thresholds.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from studies.explanation.shift import WIDTH, normal_interval
from studies.statistics.calibration import called, find_threshold
from studies.statistics.estimates import OF_CALLS, num_resamples
from studies.statistics.intervals import Interval, resampled, resampling_counts
from studies.statistics.metrics import METRICS, Floats, Labels

MOST_THRESHOLDS = 100


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Mean metric over seeds on test images; the thresholds are least probabilities of class 1.

    ``change`` is what calling by each seed's own threshold, found on validation images, adds to
    ``most_probable``. ``best_change`` is what the best threshold on these very test images would
    have added. **It is not attainable:** nobody knows it before the labels are.
    """

    metric: str
    thresholds: tuple[float, ...]
    most_probable: float
    change: Interval
    best_change: Interval

    @property
    def at_threshold(self) -> float:
        """The metric by the validation images' threshold."""
        return self.most_probable + self.change.value

    @property
    def at_best(self) -> Interval:
        """The metric by the best threshold. Not attainable."""
        found = self.best_change
        value, low, high = (
            min(1.0, self.most_probable + x) for x in (found.value, found.low, found.high)
        )
        return Interval(value=value, low=low, high=high)

    def as_json(self) -> dict[str, Any]:
        """All of it; ``best`` says that it is not attainable."""
        return {
            "metric": self.metric,
            "thresholds": list(self.thresholds),
            "most_probable": self.most_probable,
            "at_threshold": self.at_threshold,
            "change": asdict(self.change),
            "best": {**asdict(self.at_best), "attainable": False},
            "best_change": asdict(self.best_change),
        }


def find_thresholds(
    metric: str,
    val_labels_V: Labels,
    val_probabilities_SVC: Floats,
    labels_N: Labels,
    probabilities_SNC: Floats,
    *,
    plain_SNC: Floats | None = None,
    seed: int = 0,
    groups_N: Labels | None = None,
) -> Thresholds | None:
    """Compare thresholds on test images; None for more classes than two.

    In the metric where it needs no probabilities, else in accuracy. The intervals are for further
    test images like these and the same models, from images (or their groups) resampled within
    classes; in each resample the best threshold is the best there, so that its interval is as
    optimistic as it is.

    Args:
        plain_SNC: before calibration, which says what the most probable class is; those of
            ``probabilities_SNC`` if left out.
    """
    if probabilities_SNC.shape[2] != 2:
        return None
    score = METRICS[metric if metric in OF_CALLS else "accuracy"]
    found = [find_threshold(p_VC, val_labels_V) for p_VC in val_probabilities_SVC]
    thresholds = tuple(float(t) for t in found if t is not None)
    counts_BN = resampling_counts(labels_N, num_resamples(len(labels_N)) // 4, seed, groups_N)

    def values(called_N: Labels) -> Floats:
        """The metric of the images as they are, then of the resamples."""
        said_NC = np.eye(2)[called_N]
        drawn_B = resampled(score, labels_N, said_NC, counts_BN, groups_N)
        return np.array([score(labels_N, said_NC), *drawn_B])

    plain, at, best = [], [], []
    before_SNC = probabilities_SNC if plain_SNC is None else plain_SNC
    for plain_NC, probabilities_NC, threshold in zip(
        before_SNC, probabilities_SNC, thresholds, strict=True
    ):
        plain.append(values(called(plain_NC, None)))
        at.append(values(called(probabilities_NC, threshold)))
        best.append(_best(values, probabilities_NC))
    plain_R, at_R, best_R = (np.mean(values, axis=0) for values in (plain, at, best))
    return Thresholds(
        metric=score.name,
        thresholds=thresholds,
        most_probable=float(plain_R[0]),
        change=_few_unsure(normal_interval(at_R - plain_R), len(labels_N)),
        best_change=normal_interval(best_R - plain_R),
    )


def _best(values: Callable[[Labels], Floats], probabilities_NC: Floats) -> Floats:
    """The best metric of all thresholds, of as many as are tried."""
    distinct = np.unique(probabilities_NC[:, 1])
    steps = np.linspace(0, len(distinct) - 1, min(len(distinct), MOST_THRESHOLDS))
    tried_K = [*distinct[np.unique(steps.astype(np.int64))], 0.5, np.inf]
    every = [values(called(probabilities_NC, t)) for t in tried_K]
    return np.asarray(np.max(every, axis=0))


def _few_unsure(change: Interval, num_images: int) -> Interval:
    """The interval with two images more that are called otherwise, one for better, one for worse.

    Three images that all change to the worse are no proof. Source: A. Agresti, Y. Min, "Simple
    improved confidence intervals for comparing matched proportions", Statistics in Medicine 24
    (2005), 729-740.
    """
    half = ((change.high - change.value) ** 2 + 2 * (WIDTH / num_images) ** 2) ** 0.5
    return Interval(value=change.value, low=change.value - half, high=change.value + half)
