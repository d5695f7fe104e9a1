"""Tests of two models on the same images, and what many tests at once demand.

Pure functions. They are about *these two models*: seeds are `verdict`'s to know.

Legend: N images.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb
from scipy.stats import binomtest, norm, rankdata

from studies.scores import Floats, Labels
from studies.statistics import Interval, effective_images, score_interval


def mcnemar_exact(
    labels_N: Labels, predicted_a_N: NDArray[np.int64], predicted_b_N: NDArray[np.int64]
) -> float:
    """p of as uneven a split of the images that one of **these two models** alone gets right.

    It says nothing of two strategies: at a seed spread of 2 points it calls two trainings of the
    same configuration different in a quarter of all cases.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947), 153-157; exact, by the binomial.

    Raises:
        ValueError: the three don't have the same length.
    """
    if not len(labels_N) == len(predicted_a_N) == len(predicted_b_N):
        raise ValueError(
            "`labels_N`, `predicted_a_N` and `predicted_b_N` must be as long as one another, but "
            f"got {len(labels_N)}, {len(predicted_a_N)} and {len(predicted_b_N)}."
        )
    a_N, b_N = predicted_a_N == labels_N, predicted_b_N == labels_N
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def delong(labels_N: Labels, scores_a_N: Floats, scores_b_N: Floats) -> tuple[float, float]:
    """AUROC of a minus that of b, and its p, of **these two models** on the same images.

    p is 1 where a class has one image (no variance is known then), and never below that of the
    most extreme of all ways to hand out the labels, which the normal approximation does not know.

    Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or
    more correlated receiver operating characteristic curves", Biometrics 44 (1988), 837-845;
    computed as X. Sun, W. Xu, IEEE Signal Processing Letters 21 (2014), 1389-1393.

    Raises:
        ValueError: scores are not finite, labels are not 0 and 1, or one of them is missing.
    """
    a, positives_a, negatives_a = _components(labels_N, scores_a_N)
    b, positives_b, negatives_b = _components(labels_N, scores_b_N)
    difference = a - b
    if difference == 0 or min(len(positives_a), len(negatives_a)) < 2:
        return difference, 1.0
    variance = _variance(positives_a - positives_b, negatives_a - negatives_b)
    p = float(2 * norm.sf(abs(difference) / variance**0.5)) if variance > 0 else 0.0
    return difference, min(1.0, max(p, 2 / float(comb(len(labels_N), len(positives_a)))))


def delong_interval(labels_N: Labels, scores_N: Floats, *, confidence: float = 0.95) -> Interval:
    """Interval of the AUROC of **this model**: DeLong's variance in a Wilson-type interval.

    Around the value itself, DeLong's interval covers 87 % at an AUROC of 0.95 with 20 positives
    of 80; this one covers 95 to 98 % there and up to 0.98. With one image in a class, it is as
    wide as about four images make it.

    Sources: as ``delong`` and ``stratified_bootstrap``.

    Raises:
        ValueError: as ``delong``.
    """
    value, positives, negatives = _components(labels_N, scores_N)
    variance = _variance(positives, negatives) if min(len(positives), len(negatives)) > 1 else 0.0
    most = 4 / (1 / len(positives) + 1 / len(negatives))
    images = effective_images(value * (1 - value), variance, most)
    return score_interval(value, images, float(norm.ppf((1 + confidence) / 2)))


def _components(labels_N: Labels, scores_N: Floats) -> tuple[float, Floats, Floats]:
    """AUROC, and for each positive (negative) the share of negatives below (positives above)."""
    if len(labels_N) != len(scores_N) or not np.isfinite(scores_N).all():
        raise ValueError(
            f"`scores_N` must be finite, one for each of {len(labels_N)} labels, but got "
            f"{len(scores_N)} with {int((~np.isfinite(scores_N)).sum())} not finite."
        )
    if set(np.unique(labels_N)) != {0, 1}:
        raise ValueError(
            "`labels_N` must hold 0 and 1, both and no other, for DeLong's test, but got "
            f"{sorted(set(labels_N.tolist()))}."
        )
    positive_N = labels_N == 1
    ranks_N = rankdata(scores_N)
    num_positive, num_negative = int(positive_N.sum()), int((~positive_N).sum())
    below = (ranks_N[positive_N] - rankdata(scores_N[positive_N])) / num_negative
    above = 1 - (ranks_N[~positive_N] - rankdata(scores_N[~positive_N])) / num_positive
    return float(below.mean()), below, above


def _variance(positives: Floats, negatives: Floats) -> float:
    return float(positives.var(ddof=1)) / len(positives) + float(negatives.var(ddof=1)) / len(
        negatives
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number: below 0.05, all of them hold at 5 % together.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6 (1979), 65-70.

    Raises:
        ValueError: a p value is NaN or not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"`0 <= p <= 1` must hold for every p value, but got {list(p_values)}.")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
