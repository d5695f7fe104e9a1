"""From a metric on validation images to the same models' metric on test images, step by step.

Pure functions of labels, probabilities and features; knows nothing of studies and of forecasts.

Legend: U images of both sets, S seeds, C classes, R rows: the images as they are, then resamples.
"""

from dataclasses import dataclass

import numpy as np

from studies.explanation.matching import Matching, Seen, Stage, match
from studies.statistics.intervals import Interval
from studies.statistics.metrics import METRICS, Floats, Labels, Score

# Each refits the domain classifiers: enough for a standard deviation to within 7 %.
NUM_RESAMPLES = 100
WIDTH = 1.959964  # of a 95 % interval, in standard deviations
SMALLEST_SHARE = TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class ClassPath:
    """One class on the way, in its recall; ``matched`` is the share of it that both sets have.

    ``validation + shift + rest == test``. ``matched_test`` and ``unmatched_test`` are the recalls
    of test images of a kind that validation has, and lacks; None where there are none. Where a set
    has too few images or subjects to tell kinds apart, ``matched`` is None and all is rest.
    """

    label: int
    num_val: int
    num_test: int
    share: float
    validation: float
    shift: Interval
    rest: Interval
    test: float
    matched: float | None
    matched_test: float | None
    unmatched_test: float | None


@dataclass(frozen=True, kw_only=True)
class Path:
    """A metric on validation images, and what changes it until it is that on test images.

    ``validation + prior + shift + rest == test``. ``classes`` are those that both sets have.
    ``matched`` is the share of images that both have, classes weighing as in the metric.
    """

    validation: float
    prior: Interval
    shift: Interval
    rest: Interval
    test: float
    matched: float
    classes: tuple[ClassPath, ...]


def find_path(
    metric: Score, val: Seen, test: Seen, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Path:
    """Split the change of a metric from validation to test images of the same models.

    Prior: validation images are weighed so that classes have the shares they have at test.
    Shift: within each class, the validation images of a kind that the test images lack are
    replaced by the test images of a kind that the validation images lack; which part of an image
    that is, a domain classifier says (``domain.matched``). Rest: the validation images that are
    left are replaced by test images of the same kind. As a metric is a function of weighed
    images, this holds for every one. Where the sets have nothing in common all is shift, where
    nothing tells them apart all is rest.

    Intervals: the images of both sets are resampled within classes (for the prior, the classes'
    shares too) and the domain classifiers fitted again; normal, by the variance of the resamples.
    Two images more in each class of each set, one right and one wrong, leave few errors as unsure
    as they are. They are about these models: seeds are not resampled.

    Sources: H. Ñopo, "Matching as a tool to decompose wage gaps", Review of Economics and
    Statistics 90 (2008), 290-299: the decomposition by what two sets have in common;
    T. T. Cai, H. Namkoong, S. Yadlowsky, "Diagnosing model performance under distribution shift",
    arXiv:2303.02011: a domain classifier for it; their split is not known where little is common.
    A. Agresti, B. Caffo, The American Statistician 54 (2000), 280-288: the images added.

    Raises:
        ValueError: `check_seen` refuses images, features of the two differ, or the metric is not
            defined for them.
    """
    # Nobody knows the loss of an image that is not there.
    found = match(val, test, num_resamples=num_resamples, add=metric.bounded, seed=seed)
    num_rows, num_classes = len(found.counts_RU), test.probabilities_SNC.shape[2]
    shares = [_shares(seen.labels_N, num_classes, num_rows) for seen in (val, test)]
    start_R = _values(metric, found, Stage.VALIDATION, shares[0])
    stages_3R = [_values(metric, found, stage, shares[1]) for stage in Stage]
    if np.isnan([start_R[0], stages_3R[0][0], stages_3R[2][0]]).any():
        raise ValueError(f"{metric.name} is not defined for the classes of these images.")
    drawn = [
        _drawn_shares(seen.labels_N, num_classes, num_rows, seed + i)
        for i, seen in enumerate((val, test))
    ]
    prior_R = np.subtract(
        _values(metric, found, Stage.VALIDATION, drawn[1]),
        _values(metric, found, Stage.VALIDATION, drawn[0]),
    )
    share_C = shares[1][0]
    weights_C = (share_C > 0) / (share_C > 0).sum() if metric.by_class else share_C
    return Path(
        validation=float(start_R[0]),
        prior=normal_interval(prior_R),
        shift=normal_interval(stages_3R[1] - stages_3R[0]),
        rest=normal_interval(stages_3R[2] - stages_3R[1]),
        test=float(stages_3R[2][0]),
        matched=float(weights_C @ found.matched_RC[0]),
        classes=tuple(
            _class_path(found, label, float(share_C[label]))
            for label in np.intersect1d(val.labels_N, test.labels_N)
        ),
    )


def _class_path(found: Matching, label: int, share: float) -> ClassPath:
    metric, num_rows = METRICS["accuracy"], len(found.counts_RU)
    only_RC = np.tile(np.eye(found.probabilities_SUC.shape[2])[label], (num_rows, 1))
    stages_3R = [_values(metric, found, stage, only_RC) for stage in Stage]
    right_U = (found.probabilities_SUC.argmax(axis=2) == found.labels_U).mean(axis=0)
    is_split = bool(found.is_split_C[label])
    mine_U = (found.labels_U == label) & (found.counts_RU[0] > 0)
    matched_T = found.matched_RU[0, mine_U & found.is_test_U]
    right_T = right_U[mine_U & found.is_test_U]
    return ClassPath(
        label=int(label),
        num_val=int((mine_U & ~found.is_test_U).sum()),
        num_test=len(right_T),
        share=share,
        validation=float(stages_3R[0][0]),
        shift=normal_interval(stages_3R[1] - stages_3R[0]),
        rest=normal_interval(stages_3R[2] - stages_3R[1]),
        test=float(stages_3R[2][0]),
        matched=float(found.matched_RC[0, label]) if is_split else None,
        matched_test=_average(right_T, matched_T) if is_split else None,
        unmatched_test=_average(right_T, 1 - matched_T) if is_split else None,
    )


def _average(values_N: Floats, weights_N: Floats) -> float | None:
    # Less than a hundredth of an image is none.
    if weights_N.sum() < 0.01:
        return None
    return float(np.average(values_N, weights=weights_N))


def _values(metric: Score, found: Matching, stage: Stage, shares_RC: Floats) -> Floats:
    """The mean metric over seeds of every row."""
    weights_RU = found.weights(stage, shares_RC)
    values_SR = [
        metric.weighted(found.labels_U, said_UC, weights_RU) for said_UC in found.probabilities_SUC
    ]
    return np.asarray(np.mean(values_SR, axis=0))


def _shares(labels_N: Labels, num_classes: int, num_rows: int) -> Floats:
    counts_C = np.bincount(labels_N, minlength=num_classes)
    return np.tile(counts_C / len(labels_N), (num_rows, 1))


def _drawn_shares(labels_N: Labels, num_classes: int, num_rows: int, seed: int) -> Floats:
    """The classes' shares, in resamples as so many images drawn by chance would have them.

    A class that a resample misses keeps a trace: metrics leave out a class of no weight.
    """
    shares_RC = _shares(labels_N, num_classes, num_rows)
    rng = np.random.default_rng(seed)
    drawn_RC = rng.multinomial(len(labels_N), shares_RC[0], num_rows - 1) / len(labels_N)
    shares_RC[1:] = np.where(shares_RC[0] > 0, np.maximum(drawn_RC, SMALLEST_SHARE), 0.0)
    return shares_RC


def normal_interval(change_R: Floats) -> Interval:
    """The change of the first row, and 95 % by the standard deviation of the others.

    Of those where it is defined: some resamples have no image of a class of few subjects.

    Raises:
        ValueError: it is defined in fewer than two of them.
    """
    drawn_R = change_R[1:][np.isfinite(change_R[1:])]
    if len(drawn_R) < 2:
        raise ValueError("In no resample is there an image of every class that a change is of.")
    value, half = float(change_R[0]), WIDTH * float(np.std(drawn_R, ddof=1))
    # What is 0 by construction comes out as 1e-17.
    value, half = (0.0 if abs(number) < TINY else number for number in (value, half))
    return Interval(value=value, low=value - half, high=value + half)
