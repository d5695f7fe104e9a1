"""From a metric on validation images to the same models' metric on test images, step by step.

Validation and test images are one set whose images weigh what a step says. Pure functions of
labels, probabilities and features; knows nothing of studies and of forecasts.

Legend: V validation images, T test images, P images added, U = V + T + P in this order, S seeds,
C classes, D features, R rows: the images as they are, then resamples.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from studies.explanation.domain import find_domains, matched, out_of_fold
from studies.statistics.clusters import find_clusters
from studies.statistics.intervals import Interval, resampling_counts
from studies.statistics.metrics import METRICS, Floats, Labels, Score, check_predictions


class Stage(Enum):
    """Which images: validation, test, or as many of validation as have their like at test."""

    VALIDATION = "validation"
    MATCHED = "matched"
    TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Images and what the seeds' models say of them: labels (N,), (S, N, C), features (N, D).

    ``groups_N`` says whose picture each is; None where nobody knows.
    """

    labels_N: Labels
    probabilities_SNC: Floats
    features_ND: NDArray[np.floating]
    groups_N: Labels | None = None


def check_seen(seen: Seen) -> None:
    """Refuse what is not images of which all is known.

    Raises:
        ValueError: ``check_predictions`` refuses predictions, or features are of other images.
    """
    shape = np.shape(seen.probabilities_SNC)
    if len(shape) != 3 or shape[0] == 0:
        raise ValueError(
            "`probabilities_SNC` must have the three axes seeds, images, classes and 1 or more "
            f"seeds, but got shape {shape}."
        )
    for probabilities_NC in seen.probabilities_SNC:
        check_predictions(seen.labels_N, probabilities_NC)
    if len(seen.features_ND) != len(seen.labels_N):
        raise ValueError(
            "`len(features_ND) == len(labels_N)` must hold, but got features of "
            f"{len(seen.features_ND)} images and {len(seen.labels_N)} labels."
        )


@dataclass(frozen=True, kw_only=True)
class Matching:
    """How often each image counts in each row, and which part of it is matched.

    ``matched_RC`` is the share of each class that both sets have; ``is_split_C`` says of which
    classes that could be told: of too few images or subjects all count as matched.
    """

    labels_U: Labels
    is_test_U: NDArray[np.bool_]
    probabilities_SUC: Floats
    counts_RU: Floats
    matched_RU: Floats
    matched_RC: Floats
    is_split_C: NDArray[np.bool_]

    def weights(self, stage: Stage, shares_RC: Floats) -> Floats:
        """What each image weighs in each row, its class having the share that is given. RxU.

        ``MATCHED``: of each class the matched part of the validation images, and in place of
        the others the unmatched part of the test images.
        """
        weights_RU = np.zeros_like(self.counts_RU)
        for label in range(shares_RC.shape[1]):
            val, test = self._sides(label)
            share_R1, common_R1 = shares_RC[:, [label]], self.matched_RC[:, [label]]
            if stage is Stage.VALIDATION:
                weights_RU[:, val] = share_R1 * _normed(self.counts_RU[:, val])
            elif stage is Stage.TEST:
                weights_RU[:, test] = share_R1 * _normed(self.counts_RU[:, test])
            else:
                kept_RV = self.counts_RU[:, val] * self.matched_RU[:, val]
                new_RT = self.counts_RU[:, test] * (1 - self.matched_RU[:, test])
                weights_RU[:, val] = share_R1 * common_R1 * _normed(kept_RV)
                weights_RU[:, test] = share_R1 * (1 - common_R1) * _normed(new_RT)
        return weights_RU

    def _sides(self, label: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return _sides(self.labels_U, self.is_test_U, label)


def match(val: Seen, test: Seen, *, num_resamples: int, add: bool, seed: int) -> Matching:
    """Tell within each class which images of the two sets are of a kind, in every resample.

    Args:
        add: count two images more in each class of each set, one that all seeds call right and
            one that all call wrong, in resamples alone.

    Raises:
        ValueError: `check_seen` refuses images, or features of the two differ.
    """
    check_seen(val)
    check_seen(test)
    num_classes, num_val = test.probabilities_SNC.shape[2], len(val.labels_N)
    added_P, added_test_P, added_PC = _added(val, test, num_classes if add else 0)
    labels_U = np.concatenate([val.labels_N, test.labels_N, added_P])
    num_real = len(labels_U) - len(added_P)
    is_test_U = np.concatenate([np.arange(num_real) >= num_val, added_test_P])
    counts_RU = np.ones((num_resamples + 1, len(labels_U)))
    counts_RU[0, num_real:] = 0
    counts_RU[1:] = _counts(val, test, labels_U, is_test_U, num_resamples, seed)
    features_UD = (val.features_ND, test.features_ND)
    matched_RU = np.ones_like(counts_RU)
    matched_RC = np.zeros((len(counts_RU), num_classes))
    is_split_C = np.ones(num_classes, np.bool_)
    for label in range(num_classes):
        sides = [np.flatnonzero(side) for side in _sides(labels_U, is_test_U, label)]
        if min(map(len, sides)) == 0:
            continue  # A class that one set does not have has nothing in common.
        real = [side[side < num_real] for side in sides]
        places = (real[0], real[1] - num_val)
        domains = find_domains(
            features_UD[0][places[0]],
            features_UD[1][places[1]],
            groups=(_chosen(val.groups_N, places[0]), _chosen(test.groups_N, places[1])),
        )
        is_split_C[label] = domains is not None
        both = np.concatenate(real)
        for row, counts_U in enumerate(counts_RU[:, both] if domains is not None else ()):
            assert domains is not None
            matched_RU[row, both] = matched(domains, out_of_fold(domains, counts_U), counts_U)
        of_sides = []
        for side, known in zip(sides, real, strict=True):
            mean_R1 = _mean(matched_RU[:, known], counts_RU[:, known])
            # An image added is as well matched as the average one.
            matched_RU[:, side[side >= num_real]] = mean_R1
            of_sides.append(mean_R1[:, 0])
        matched_RC[:, label] = np.mean(of_sides, axis=0)
    added_SPC = np.broadcast_to(added_PC, (len(val.probabilities_SNC), len(added_P), num_classes))
    said = [val.probabilities_SNC, test.probabilities_SNC, added_SPC]
    return Matching(
        labels_U=labels_U,
        is_test_U=is_test_U,
        probabilities_SUC=np.concatenate(said, axis=1),
        counts_RU=counts_RU,
        matched_RU=matched_RU,
        matched_RC=matched_RC,
        is_split_C=is_split_C,
    )


def _chosen(groups_N: Labels | None, places: NDArray[np.int64]) -> Labels | None:
    return None if groups_N is None else groups_N[places]


def _counts(
    val: Seen,
    test: Seen,
    labels_U: Labels,
    is_test_U: NDArray[np.bool_],
    num_resamples: int,
    seed: int,
) -> NDArray[np.int64]:
    """How often each image is drawn, of its class and set; groups are drawn whole. Shape BxU."""
    if all(find_clusters(seen.labels_N, seen.groups_N) is None for seen in (val, test)):
        return resampling_counts(2 * labels_U + is_test_U, num_resamples, seed)
    counts_BU = np.empty((num_resamples, len(labels_U)), np.int64)
    for which, seen in enumerate((val, test)):
        of_set = np.flatnonzero(is_test_U == (which == 1))
        # Images added stand at the end of each set, each a group of its own.
        num_real = len(seen.labels_N)
        groups_N = np.arange(num_real) if seen.groups_N is None else seen.groups_N
        first = int(groups_N.max(initial=-1)) + 1
        groups_n = np.append(groups_N, first + np.arange(len(of_set) - num_real))
        counts_BU[:, of_set] = resampling_counts(
            labels_U[of_set], num_resamples, seed + which, groups_n
        )
    return counts_BU


def _sides(
    labels_U: Labels, is_test_U: NDArray[np.bool_], label: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    of_class_U = labels_U == label
    return of_class_U & ~is_test_U, of_class_U & is_test_U


def _added(
    val: Seen, test: Seen, num_classes: int
) -> tuple[Labels, NDArray[np.bool_], NDArray[np.float64]]:
    """Labels (P,), whether at test (P,), and what is said of them (P, C)."""
    labels, said, is_test = [], [], []
    for which, seen in enumerate((val, test)):
        for label in np.unique(seen.labels_N) if num_classes else ():
            labels += [label, label]
            said += [label, (label + 1) % num_classes]
            is_test += [which == 1] * 2
    certain_PC = np.eye(test.probabilities_SNC.shape[2])[np.array(said, np.int64)]
    return np.array(labels, np.int64), np.array(is_test, np.bool_), certain_PC


def _mean(values_RN: Floats, counts_RN: Floats) -> Floats:
    """Of each row, (R, 1); of all images alike where a row has none of them."""
    none_R1 = counts_RN.sum(axis=1, keepdims=True) == 0
    mean_R1 = (values_RN * _normed(counts_RN + none_R1)).sum(axis=1, keepdims=True)
    return np.asarray(np.minimum(mean_R1, 1.0))


def _normed(weights_RU: Floats) -> Floats:
    """Rows that sum to 1, or to 0 where nothing weighs anything."""
    totals_R1 = weights_RU.sum(axis=1, keepdims=True)
    normed_RU = np.zeros_like(weights_RU)
    np.divide(weights_RU, totals_R1, out=normed_RU, where=totals_R1 > 0)
    return normed_RU


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
