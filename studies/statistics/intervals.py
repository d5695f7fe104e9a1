"""Intervals and tests of what was measured. Pure functions; knows nothing of studies.

Legend: S seeds, N images, C classes, B resamples. Metrics are those of ``metrics`` or any function
of labels and probabilities. Everything random follows from ``seed``. ``groups_N`` says whose
picture each is (``clusters``): groups are drawn whole; None draws images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t

from studies.statistics.clusters import Clusters, find_clusters, images_worth
from studies.statistics.metrics import (
    Floats,
    Labels,
    Metric,
    Score,
    check_predictions,
    weighted_values,
)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured value and the bounds of its confidence interval, in the metric's own unit."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """``value``, ``low`` and ``high``."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.

    Raises:
        ValueError: ``0 <= successes <= n`` and ``n >= 1`` don't hold.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of independent values; paired where they are differences.

    Source: Student (W. S. Gosset), "The probable error of a mean", Biometrika 6 (1908), 1-25.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"An interval of a mean needs 2 or more values, but got {len(values)}.")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(student_t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def stratified_bootstrap(
    metric: Metric,
    labels_N: Labels,
    probabilities_NC: Floats,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    groups_N: Labels | None = None,
) -> Interval:
    """Interval of a metric of one model, from images resampled within their classes.

    A metric of ``METRICS`` in [0, 1] gets Wilson's interval for the number of images that would
    give a proportion the variance found by the bootstrap: plain Wilson for accuracy, and still an
    interval where every resample is perfect, where percentiles and BCa have width 0. Classes of
    few images widen it where every class counts the same (``design_images``). Simulated coverage
    stands in ``benchmarks/coverage.py``. ``loss``, which is skewed, gets the normal
    interval of its logarithm (it covers 91 to 96 %, least where few errors make it), and so does
    ``brier``; other
    metrics get percentiles.

    Where images come in groups, these are drawn, the images that count are those that they are
    worth (``images_worth``), and Student's t pays for groups that are few.

    Sources: P. J. McCarthy, C. B. Snowden, "The bootstrap and finite population sampling", Vital
    and Health Statistics 2-95 (1985): n - 1 draws of n, without the downward bias of n draws;
    E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small expected number
    of positive counts", Survey Methodology 24 (1998): the effective number of images.

    Raises:
        ValueError: ``check_predictions`` refuses the predictions, no class has two images, or
            the metric is not defined for them.
    """
    check_predictions(labels_N, probabilities_NC)
    value = metric(labels_N, probabilities_NC)
    clusters = find_clusters(labels_N, groups_N)
    counts_BN = resampling_counts(labels_N, num_resamples, seed, groups_N)
    values_B = resampled(metric, labels_N, probabilities_NC, counts_BN, groups_N)
    width = float(norm.ppf((1 + confidence) / 2))
    if clusters is not None:
        width = float(student_t.ppf((1 + confidence) / 2, clusters.degrees_of_freedom))
    if isinstance(metric, Score) and metric.bounded:
        variance, most = float(values_B.var(ddof=1)), design_images(metric, labels_N)
        if clusters is not None:
            counts_BN = resampling_counts(labels_N, num_resamples, seed)
            by_image_B = resampled(metric, labels_N, probabilities_NC, counts_BN)
            by_image = float(by_image_B.var(ddof=1))
            most = images_that_count(metric, labels_N, clusters, by_image, variance)
        return score_interval(value, effective_images(value * (1 - value), variance, most), width)
    if isinstance(metric, Score) and value > 0 and values_B.min() > 0:
        half = float(width * np.log(values_B).std(ddof=1))
        half *= unsure_of_lone_groups(labels_N, clusters) ** 0.5
        return Interval(value=value, low=value * np.exp(-half), high=value * np.exp(half))
    low, high = np.quantile(values_B, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def bootstrap_over_seeds(
    metric: Metric,
    labels_N: Labels,
    probabilities_SNC: Floats,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    groups_N: Labels | None = None,
) -> Interval:
    """Interval of the mean metric over seeds: what further seeds on further images average to.

    Variances of images (bootstrap) and of seeds (``seed_variance``) add up, with Student's t and
    Satterthwaite's degrees of freedom for the few seeds and the few groups of images. **With one
    seed it is the interval of that model on further images: how much seeds matter is then
    unknown.**

    Sources: F. E. Satterthwaite, "An approximate distribution of estimates of variance
    components", Biometrics Bulletin 2 (1946), 110-114; those of ``stratified_bootstrap``.

    Raises:
        ValueError: as ``stratified_bootstrap``.
    """
    counts_BN = resampling_counts(labels_N, num_resamples, seed, groups_N)
    values_S, values_SB = values_of_seeds(metric, labels_N, probabilities_SNC, counts_BN, groups_N)
    value = float(values_S.mean())
    of_images = float(values_SB.mean(axis=0).var(ddof=1))
    raw, excess = seed_variance(values_S, values_SB)
    by_image = of_groups = of_images
    clusters = find_clusters(labels_N, groups_N)
    if clusters is not None:
        counts_BN = resampling_counts(labels_N, num_resamples, seed)
        _, by_image_SB = values_of_seeds(metric, labels_N, probabilities_SNC, counts_BN)
        by_image = float(by_image_SB.mean(axis=0).var(ddof=1))
    if isinstance(metric, Score) and metric.bounded:
        counting = images_that_count(metric, labels_N, clusters, by_image, of_images)
        of_images = _unsure_of_few_errors(value, of_images, counting)
    elif isinstance(metric, Score):
        of_images *= unsure_of_lone_groups(labels_N, clusters)
    variance = of_images + max(0.0, excess)
    parts = [(raw, len(values_S)), *parts_of_groups(clusters, of_groups, of_images)]
    width = t_quantile(variance, parts, confidence)
    if isinstance(metric, Score) and metric.bounded:
        most = counting * (len(values_S) if 0 < value < 1 else 1)
        return score_interval(value, effective_images(value * (1 - value), variance, most), width)
    half = width * variance**0.5
    # No metric of METRICS is below 0; of another nothing is known.
    low = max(value - half, 0.0) if isinstance(metric, Score) else value - half
    return Interval(value=value, low=low, high=value + half)


def _unsure_of_few_errors(value: float, variance: float, num_images: float) -> float:
    """The images' variance of a mean over seeds, with two errors more that all seeds share.

    Seeds that err on different images average out, and need less than one model's variance. From
    one or two errors nobody can tell that they do.
    """
    errors = num_images * min(value, 1 - value)
    of_one_model = value * (1 - value) / num_images
    return (errors * variance + 2 * of_one_model) / (errors + 2)


def images_that_count(
    metric: Score, labels_N: Labels, clusters: Clusters | None, of_images: float, of_groups: float
) -> float:
    """Of how many independent images the metric is worth as much: ``design_images`` at most.

    Where they come in groups, by ``images_worth``. A class all of whose images are of one group is
    never drawn, so that the bootstrap takes it as known: it leaves the metric as unsure as one
    image of that class would.

    Args:
        of_images, of_groups: variances of the metric, images and groups being drawn.
    """
    most = design_images(metric, labels_N)
    if clusters is None:
        return most
    most *= images_worth(clusters, of_images, of_groups) / len(clusters.group_N)
    return 1 / (1 / most + _of_lone_groups(metric, labels_N, clusters))


def unsure_of_lone_groups(labels_N: Labels, clusters: Clusters | None) -> float:
    """By what the variance of a mean over images grows where one group alone stands for a class.

    That group is taken to be as unsure as each of the others; 1 where no class has one group.
    """
    if clusters is None:
        return 1.0
    sizes, shares = _strata(labels_N, clusters)
    lone = sizes == 1
    return 1 + float((shares[lone] ** 2).sum() / (shares[~lone] ** 2 / sizes[~lone]).sum())


def _of_lone_groups(metric: Score, labels_N: Labels, clusters: Clusters) -> float:
    """The sum of the squares of the parts of a metric that each lie with one group alone."""
    sizes, shares = _strata(labels_N, clusters)
    lone = sizes == 1
    if metric.by_class:
        return float(lone.sum()) / len(np.unique(labels_N)) ** 2
    return float((shares[lone] ** 2).sum())


def _strata(labels_N: Labels, clusters: Clusters) -> tuple[Labels, Floats]:
    """Groups of each stratum that has some, and its share of the images."""
    sizes = np.bincount(clusters.stratum_G)
    images = np.bincount(clusters.stratum_G[clusters.group_N], minlength=len(sizes))
    return sizes[sizes > 0], images[sizes > 0] / len(labels_N)


def part_of_groups(clusters: Clusters, variance: float) -> tuple[float, int]:
    """The part of a variance that groups tell, for ``degrees_of_freedom``."""
    return variance, clusters.degrees_of_freedom + 1


def parts_of_groups(
    clusters: Clusters | None, measured: float, widened: float
) -> list[tuple[float, int]]:
    """That part if images come in groups; what a lone group adds is as unsure as the others are.

    Args:
        measured, widened: the images' variance as it was drawn, and with what was added to it.
    """
    if clusters is None:
        return []
    return [part_of_groups(clusters, widened if clusters.has_lone else measured)]


def resampling_counts(
    labels_N: Labels, num_resamples: int, seed: int, groups_N: Labels | None = None
) -> NDArray[np.int64]:
    """How often each image is drawn: n - 1 draws from a class of n, one from a class of one. BxN.

    Where images come in groups, groups are drawn so from their strata, and an image is drawn as
    often as its group.

    Raises:
        ValueError: no class has two images, or no stratum two groups.
    """
    clusters = find_clusters(labels_N, groups_N)
    if clusters is not None:
        if not clusters.degrees_of_freedom:
            raise ValueError(
                "`some class has images of 2 or more subjects` must hold for an interval, but got "
                f"{len(labels_N)} images of {len(clusters.stratum_G)} subjects."
            )
        drawn_BG = _drawn(clusters.stratum_G.tobytes(), num_resamples, seed)
        return drawn_BG[:, clusters.group_N]
    sizes = np.bincount(labels_N)
    if sizes.max() < 2:
        raise ValueError(
            "`some class has 2 or more images` must hold for an interval, but got "
            f"{len(labels_N)} images of {len(labels_N)} classes."
        )
    return _drawn(np.asarray(labels_N, np.int64).tobytes(), num_resamples, seed)


@lru_cache(maxsize=2)  # The same images are asked for again and again, by every metric and model.
def _drawn(labels: bytes, num_resamples: int, seed: int) -> NDArray[np.int64]:
    labels_N = np.frombuffer(labels, np.int64)
    rng = np.random.default_rng(seed)
    counts_BN = np.ones((num_resamples, len(labels_N)), dtype=np.int64)
    sizes = np.bincount(labels_N)
    for label in np.flatnonzero(sizes >= 2):
        n = sizes[label]
        counts_BN[:, labels_N == label] = rng.multinomial(n - 1, np.full(n, 1 / n), num_resamples)
    counts_BN.flags.writeable = False
    return counts_BN


def resampled(
    metric: Metric,
    labels_N: Labels,
    probabilities_NC: Floats,
    counts_BN: NDArray[np.int64],
    groups_N: Labels | None = None,
) -> Floats:
    """The metric of every resample, classes weighing what they weigh in the whole set. Shape B.

    Args:
        groups_N: by which ``counts_BN`` were drawn.
    """
    if not isinstance(metric, Score):
        return weighted_values(metric, labels_N, probabilities_NC, counts_BN.astype(np.float64))
    clusters = find_clusters(labels_N, groups_N)
    stratum_N = labels_N if clusters is None else clusters.stratum_G[clusters.group_N]
    sizes = np.bincount(labels_N if clusters is None else clusters.stratum_G)
    scale_N = (sizes / np.maximum(sizes - 1, 1))[stratum_N]
    return metric.weighted(labels_N, probabilities_NC, counts_BN * scale_N)


def values_of_seeds(
    metric: Metric,
    labels_N: Labels,
    probabilities_SNC: Floats,
    counts_BN: NDArray[np.int64],
    groups_N: Labels | None = None,
) -> tuple[Floats, Floats]:
    """The metric of every seed, and of every seed and resample. Shapes S and SxB.

    Raises:
        ValueError: there are no seeds, or ``check_predictions`` refuses the predictions of one.
    """
    if np.ndim(probabilities_SNC) != 3 or len(probabilities_SNC) == 0:
        raise ValueError(
            "`probabilities_SNC` must have the three axes seeds, images, classes and 1 or more "
            f"seeds, but got shape {np.shape(probabilities_SNC)}."
        )
    for probabilities_NC in probabilities_SNC:
        check_predictions(labels_N, probabilities_NC)
    values = [metric(labels_N, p_NC) for p_NC in probabilities_SNC]
    values_SB = [
        resampled(metric, labels_N, p_NC, counts_BN, groups_N) for p_NC in probabilities_SNC
    ]
    return np.array(values, dtype=np.float64), np.array(values_SB)


def seed_variance(values_S: Floats, values_SB: Floats) -> tuple[float, float]:
    """Variance that seeds give to the mean over seeds: as seen, and beyond that of the images.

    Seeds differ on the same images for two reasons: some are better, and each errs on images of
    its own. The second is part of the images' variance already; counted twice, it would make
    every interval too wide. The excess may be negative, where it is an estimate of 0. Zero for
    one seed, which can't tell.

    Source: analysis of variance of two crossed random factors, as in A. B. Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1 (2007), 386-411, section 3.
    """
    num_seeds = len(values_S)
    if num_seeds == 1:
        return 0.0, 0.0
    own_SB = values_SB - values_SB.mean(axis=0)
    own = float(own_SB.var(axis=1, ddof=1).sum()) / (num_seeds - 1)
    seen = float(values_S.var(ddof=1))
    return seen / num_seeds, (seen - own) / num_seeds


def t_quantile(variance: float, seeds: Sequence[tuple[float, int]], confidence: float) -> float:
    """Student's t for a variance of which these parts come from so many seeds, the rest is known.

    Args:
        seeds: (part of the variance, number of seeds) of each strategy.
    """
    return float(student_t.ppf((1 + confidence) / 2, degrees_of_freedom(variance, seeds)))


def degrees_of_freedom(variance: float, seeds: Sequence[tuple[float, int]]) -> float:
    """Satterthwaite's degrees of freedom, inf where no part comes from seeds."""
    weighed = sum(part**2 / (count - 1) for part, count in seeds if count > 1)
    return max(1.0, variance**2 / weighed) if weighed > 0 else float("inf")


def design_images(metric: Score, labels_N: Labels) -> float:
    """Images that count: all, or C times the harmonic mean of the classes' sizes.

    Where every class counts the same, one of a single image leaves the mean as unsure as four
    images would, whatever the bootstrap (which sees no variance in one image) says.
    """
    if metric.num_images is not None:
        return metric.num_images
    if not metric.by_class:
        return float(len(labels_N))
    sizes = np.bincount(labels_N)
    sizes = sizes[sizes > 0]
    return float(len(sizes) ** 2 / (1 / sizes).sum())


def effective_images(spread: float, variance: float, most: float) -> float:
    """Images that give a proportion p, whose ``spread`` is p (1 - p), this variance; or ``most``.

    It is ``most`` where the variance is 0: a bootstrap of perfect predictions knows no better.
    """
    # Sums of weights leave a variance of about 1e-32 where there is none.
    return most if variance * most <= spread + 1e-12 else max(spread, 1e-9) / variance


def score_interval(value: float, num_images: float, width: float) -> Interval:
    """Wilson's interval for a number of images that need not be whole. ``width`` as in normal."""
    assert 0 <= value <= 1 and num_images > 0
    shrunk = width**2 / num_images
    middle = (value + shrunk / 2) / (1 + shrunk)
    half = (value * (1 - value) * shrunk + shrunk**2 / 4) ** 0.5 / (1 + shrunk)
    return Interval(
        value=value,
        low=max(0.0, min(middle - half, value)),
        high=min(1.0, max(middle + half, value)),
    )
