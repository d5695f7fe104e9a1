"""Which of two strategies is better on the same test images, in numbers.

Pure functions; knows nothing of studies. What it would take to tell is `sample_size`'s to know,
the words are `verdict_words`'.

Legend: S seeds, N images, C classes, B resamples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student_t

from studies.statistics.clusters import find_clusters, num_subjects
from studies.statistics.intervals import (
    Interval,
    degrees_of_freedom,
    images_that_count,
    parts_of_groups,
    resampling_counts,
    seed_variance,
    t_quantile,
    unsure_of_lone_groups,
    values_of_seeds,
)
from studies.statistics.metrics import Floats, Labels, Metric, Score

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
