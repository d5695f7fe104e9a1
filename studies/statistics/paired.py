"""Differences on the same images, with their tests, and what claims and gains rest on.

The AUROC of one model with its interval, differences of two strategies over seeds, ratios of
costs, what training on has cost, and what many tests at once demand. Pure functions; knows neither
claims nor studies. What it would take to tell is `sample_size`'s to know, the words are
`verdict_words`'.

Legend: S seeds, E epochs, N images, C classes, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import norm, rankdata, ttest_ind
from scipy.stats import t as student_t

from studies.statistics.clusters import find_clusters, num_subjects
from studies.statistics.intervals import (
    Interval,
    degrees_of_freedom,
    effective_images,
    images_that_count,
    parts_of_groups,
    resampling_counts,
    score_interval,
    seed_variance,
    t_quantile,
    unsure_of_lone_groups,
    values_of_seeds,
)
from studies.statistics.metrics import METRICS, Floats, Labels, Metric, Score, losses


def delong_interval(
    labels_N: Labels,
    scores_N: Floats,
    *,
    confidence: float = 0.95,
    groups_N: Labels | None = None,
) -> Interval:
    """Interval of the AUROC of **this model**: DeLong's variance in a Wilson-type interval.

    Around the value itself, DeLong's interval covers 87 % at an AUROC of 0.95 with 20 positives
    of 80; this one covers 95 to 98 % there and up to 0.98. With one image in a class, it is as
    wide as about four images make it.

    Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or
    more correlated receiver operating characteristic curves", Biometrics 44 (1988), 837-845;
    computed as X. Sun, W. Xu, IEEE Signal Processing Letters 21 (2014), 1389-1393; those of
    ``stratified_bootstrap``.

    Args:
        groups_N: numbers from 0 on of groups of images, each of one label; their variance is
            Obuchowski's then.

    Raises:
        ValueError: scores are not finite, labels are not 0 and 1, or one of them is missing.
    """
    value, positives, negatives = _components(labels_N, scores_N)
    variance = _variance(positives, negatives) if min(len(positives), len(negatives)) > 1 else 0.0
    if groups_N is not None:
        variance = sum(
            _variance_of_groups(parts, groups_N[labels_N == label])
            for parts, label in ((positives, 1), (negatives, 0))
        )
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
            "`labels_N` must hold 0 and 1, both and no other, for DeLong's interval, but got "
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


def _variance_of_groups(parts: Floats, groups_N: Labels) -> float:
    """Of the mean of parts that come in groups."""
    _, group_N = np.unique(groups_N, return_inverse=True)
    sums_G = np.bincount(group_N, parts - parts.mean())
    num_groups = len(sums_G)
    if num_groups < 2:
        return 0.0
    return float(sums_G @ sums_G) / len(parts) ** 2 * num_groups / (num_groups - 1)


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


Verdict = Literal["better", "worse", "as good as", "not worse", "not better", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """The metric of strategy a minus that of b. ``verdict`` is on a; *better* heeds the metric.

    It is *better*, *worse* or *undecided*; what a margin adds to that is for
    ``verdict_words`` to say.

    ``p`` is below 0.05 exactly where a 95 % interval excludes 0. ``image_variance`` is of one
    image, ``seed_variance`` of the means over ``num_seeds`` (the fewer of both): N images give
    the difference ``image_variance / N + seed_variance``. ``share_that_counts`` of N images are as
    many independent ones: fewer where images come in groups, or where every class counts the same
    and one is rare. ``own_variance`` is the part of
    ``image_variance`` that seeds do not share, each erring on images of its own; it hides how
    much seeds matter. ``images_needed`` takes the three. Where
    ``seeds_known`` is False a strategy has one seed: the interval is that of *these models* on
    further images, and how much seeds matter is unknown. ``num_subjects`` is None where images
    are taken as independent.
    """

    p: float
    verdict: Verdict
    num_images: int
    num_seeds: int
    seeds_known: bool
    image_variance: float
    own_variance: float
    seed_variance: float
    share_that_counts: float = 1.0
    num_subjects: int | None = None


def difference_over_seeds(
    metric: Metric,
    labels_N: Labels,
    a_SNC: Floats,
    b_SNC: Floats,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    larger_is_better: bool | None = None,
    groups_N: Labels | None = None,
) -> Difference:
    """The difference of two strategies, for further seeds on further images.

    Both stay trained on the same training images: what another draw of these would change is not
    in the interval, nor is the luck of the search that found the two configurations.

    Images are resampled together for both strategies. Seeds are not resampled: with S of them
    that gives (S - 1) / S of their variance, a half with two. Their variance is computed
    (``seed_variance``), and Student's t with Satterthwaite's degrees of freedom pays for knowing
    it from few. Twins (the same configuration, other seeds) are called different in at most 5 %
    of cases at seed spreads of 0 to 3 points, S = 2, 3, 5 and N = 80 to 1,000
    (``benchmarks/simulated_studies.py``); one model each, by McNemar's test, in 27 % at 2 points
    and N = 400. **With one seed only images count**, see ``Difference.seeds_known``.

    The images' variance counts two images more, on each of which one strategy alone is right:
    without them, two strategies that agree on every image would differ by exactly 0. Where images
    come in groups, groups are drawn, and those two are two of so many images as they are worth.

    Sources: D. G. Bonett, R. M. Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", Journal of Educational and Behavioral Statistics
    37 (2012), 479-488; those of ``bootstrap_over_seeds``.

    Args:
        larger_is_better: only for a metric that is not in ``METRICS``; True if left out.
        groups_N: whose picture each is; images are taken as independent if left out.

    Raises:
        ValueError: as ``stratified_bootstrap``.
    """

    def drawn(groups_N: Labels | None) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        counts_BN = resampling_counts(labels_N, num_resamples, seed, groups_N)
        return (
            values_of_seeds(metric, labels_N, a_SNC, counts_BN, groups_N),
            values_of_seeds(metric, labels_N, b_SNC, counts_BN, groups_N),
        )

    (a_S, a_SB), (b_S, b_SB) = drawn(groups_N)
    value = float(a_S.mean() - b_S.mean())
    of_images = _variance_of_means(a_SB, b_SB)
    clusters, by_image = find_clusters(labels_N, groups_N), of_images
    if clusters is not None:
        (_, a_image_SB), (_, b_image_SB) = drawn(None)
        by_image = _variance_of_means(a_image_SB, b_image_SB)
    measured, counting = of_images, float(len(labels_N))
    if isinstance(metric, Score):
        larger_is_better = metric.larger_is_better
        if metric.bounded:
            counting = images_that_count(metric, labels_N, clusters, by_image, of_images)
            of_images += 2 / counting**2
        else:
            of_images *= unsure_of_lone_groups(labels_N, clusters)
    (raw_a, excess_a), (raw_b, excess_b) = seed_variance(a_S, a_SB), seed_variance(b_S, b_SB)
    # Degrees of freedom by what is seen (raw), not by the excess: that is small by chance just
    # where the variance is, and twins were called different in up to 10 % of cases.
    # One strategy's estimate may be below 0 by chance; cutting the sum, not each, biases less.
    of_seeds = max(0.0, excess_a + excess_b)
    variance = of_images + of_seeds
    of_groups = parts_of_groups(clusters, measured, of_images)
    parts = [(raw_a, len(a_S)), (raw_b, len(b_S)), *of_groups]
    half = t_quantile(variance, parts, confidence) * variance**0.5
    most = 1.0 if isinstance(metric, Score) and metric.bounded else float("inf")
    return Difference(
        value=value,
        low=max(value - half, -most),
        high=min(value + half, most),
        p=_p_value(value, variance, degrees_of_freedom(variance, parts)),
        verdict=_verdict(value, half, larger_is_better is not False),
        num_images=len(labels_N),
        num_seeds=min(len(a_S), len(b_S)),
        seeds_known=min(len(a_S), len(b_S)) > 1,
        image_variance=measured * len(labels_N),
        share_that_counts=min(1.0, counting / len(labels_N)),
        # An estimate may exceed the whole that it is a part of.
        own_variance=min(raw_a - excess_a + raw_b - excess_b, measured) * len(labels_N),
        seed_variance=of_seeds,
        num_subjects=num_subjects(groups_N),
    )


def _variance_of_means(a_SB: Floats, b_SB: Floats) -> float:
    """Of the difference of the means over seeds, over resamples."""
    return float((a_SB.mean(axis=0) - b_SB.mean(axis=0)).var(ddof=1))


def _p_value(value: float, variance: float, df: float) -> float:
    if variance == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * student_t.sf(abs(value) / variance**0.5, df))


def _verdict(value: float, half: float, larger_is_better: bool) -> Verdict:
    if abs(value) <= half:
        return "undecided"
    return "better" if (value > 0) == larger_is_better else "worse"


def disagreement(labels_N: Labels, a_SNC: Floats, b_SNC: Floats) -> float:
    """Share of images on which one of two models alone is right, over all pairs of seeds.

    Two images are added, as in ``difference_over_seeds``, so that it is never 0.
    """
    right_a_SN, right_b_SN = (
        np.asarray(p).argmax(axis=2) == np.asarray(labels_N) for p in (a_SNC, b_SNC)
    )
    a_N, b_N = right_a_SN.mean(axis=0), right_b_SN.mean(axis=0)
    differing = float((a_N * (1 - b_N) + b_N * (1 - a_N)).sum())
    return (differing + 2) / (len(labels_N) + 2)


@dataclass(frozen=True, kw_only=True)
class Measurement(Interval):
    """What was measured of a claim, with the p value of its test at 0 (at 1 of a ratio).

    ``optimism`` says by how much the first and the second look too good on the images that were
    measured, where these have chosen epochs or configurations; None where they chose nothing.
    Where ``result_was_known`` before, they may have chosen, and nobody can tell by how much.
    """

    p: float | None = None
    optimism: tuple[float, float] | None = None
    result_was_known: bool = False


def measurement(found: Difference, optimism: tuple[float, float] | None = None) -> Measurement:
    """A difference over seeds and images as what a claim is judged by."""
    return Measurement(
        value=found.value, low=found.low, high=found.high, p=found.p, optimism=optimism
    )


def with_known_result(measurement: Measurement) -> Measurement:
    """The same on images whose result was known before: of choices it judges nothing."""
    unknown = float("inf")
    return replace(measurement, optimism=(unknown, unknown), result_was_known=True)


def as_gain(found: Measurement, larger_is_better: bool) -> Measurement:
    """A difference as what the first gains, whatever the metric's direction."""
    if larger_is_better:
        return found
    return replace(found, value=-found.value, low=-found.high, high=-found.low)


def ratio_over_seeds(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> Measurement | None:
    """Ratio of the geometric means of positive values, by Welch's test of their logarithms.

    None with fewer than two values of each.
    """
    a, b = (np.log([value for value in values if value > 0]) for values in (first, second))
    if min(len(a), len(b)) < 2:
        return None
    value = float(np.exp(a.mean() - b.mean()))
    if a.var() + b.var() == 0:  # The test divides by it.
        return Measurement(value=value, low=value, high=value, p=1.0 if value == 1 else 0.0)
    test = ttest_ind(a, b, equal_var=False)
    bounds = test.confidence_interval(confidence)
    return Measurement(
        value=value,
        low=float(np.exp(bounds.low)),
        high=float(np.exp(bounds.high)),
        p=float(test.pvalue),
    )


def training_harm(
    labels_N: Labels,
    probabilities: Sequence[Floats],
    *,
    seed: int = 0,
    groups_N: Labels | None = None,
) -> Measurement | None:
    """What training beyond the best epoch costs: loss of the last epoch less that of the best.

    The best epoch of an image is chosen by others (``chosen_elsewhere``): chosen and measured on
    the same images it could not lose. Over seeds and images, in nats. Every training that learns
    its images has a gap between training and validation; that it is worse for it is another
    matter.

    Args:
        probabilities: (E, N, C) of each seed's training; E may differ.

    Returns:
        None where no class has images of two groups, so that nothing can be halved.
    """
    elsewhere = [
        chosen_elsewhere(labels_N, given_ENC, groups_N, seed=seed) for given_ENC in probabilities
    ]
    chosen = [each for each in elsewhere if each is not None]
    if len(chosen) < len(elsewhere):
        return None
    last = [given_ENC[-1] for given_ENC in probabilities]
    try:
        found = difference_over_seeds(
            METRICS["loss"], labels_N, np.stack(last), np.stack(chosen), groups_N=groups_N
        )
    except ValueError:
        return None
    return measurement(found)


def chosen_elsewhere(
    labels_N: Labels, probabilities_ENC: Floats, groups_N: Labels | None, *, seed: int = 0
) -> Floats | None:
    """What a training says of each image at the epoch that other images chose, (N, C).

    The epoch of the lowest loss on one half of the images (halved within the classes; groups stay
    whole) speaks of the other, and the other way round. None where no class has images of two
    groups, so that nothing can be halved.
    """
    rng = np.random.default_rng(seed)
    clusters = find_clusters(labels_N, groups_N)
    group_N = np.arange(len(labels_N)) if clusters is None else clusters.group_N
    stratum_G = labels_N if clusters is None else clusters.stratum_G
    is_first_G = np.zeros(len(stratum_G), dtype=bool)
    for stratum in np.unique(stratum_G):
        of_stratum = rng.permutation(np.flatnonzero(stratum_G == stratum))
        is_first_G[of_stratum[: len(of_stratum) // 2]] = True
    is_first_N = is_first_G[group_N]
    if is_first_N.all() or not is_first_N.any():
        return None
    loss_EN = np.stack([losses(labels_N, given_NC) for given_NC in probabilities_ENC])
    by_first, by_second = (
        int(loss_EN[:, half_N].mean(axis=1).argmin()) for half_N in (is_first_N, ~is_first_N)
    )
    return np.asarray(
        np.where(is_first_N[:, None], probabilities_ENC[by_second], probabilities_ENC[by_first])
    )


def difference_of(first: Measurement | None, second: Measurement | None) -> Measurement | None:
    """The first minus the second, from the intervals of both; None where one is missing.

    As if they were independent: that both were measured on the same images makes it too wide
    rather than too narrow.

    Source: G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures: a
    general approach", Statistics in Medicine 27 (2008), 1693-1702.
    """
    if first is None or second is None:
        return None
    value = first.value - second.value
    below = ((first.value - first.low) ** 2 + (second.high - second.value) ** 2) ** 0.5
    above = ((first.high - first.value) ** 2 + (second.value - second.low) ** 2) ** 0.5
    half = below if value > 0 else above
    p = 1.0 if value == 0 else 0.0
    if value != 0 and half > 0:
        p = float(2 * norm.sf(abs(value) / half * norm.ppf(0.975)))
    return Measurement(value=value, low=value - below, high=value + above, p=p)


def gap_interval(training: float, validation: Interval) -> Interval:
    """Training minus validation accuracy: what is unsure is that of few validation images."""
    return Interval(
        value=training - validation.value,
        low=training - validation.high,
        high=training - validation.low,
    )
