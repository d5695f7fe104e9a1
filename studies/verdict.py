"""Which of two strategies is better on the same test images, in numbers and in words.

Pure functions; knows nothing of studies. What it would take to tell is `planning`'s to know.

Legend: S seeds, N images, C classes, B resamples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student_t

from studies.planning import ImagesNeeded
from studies.scores import METRICS, Floats, Labels, Metric, Score
from studies.statistics import (
    Interval,
    degrees_of_freedom,
    design_images,
    resampling_counts,
    seed_variance,
    t_quantile,
    values_of_seeds,
)

Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """The metric of strategy a minus that of b. ``verdict`` is on a; *better* heeds the metric.

    ``p`` is below 0.05 exactly where a 95 % interval excludes 0. ``image_variance`` is of one
    image, ``seed_variance`` of the means over ``num_seeds`` (the fewer of both): N images give
    the difference ``image_variance / N + seed_variance``. ``own_variance`` is the part of
    ``image_variance`` that seeds do not share, each erring on images of its own; it hides how
    much seeds matter. ``images_needed`` takes the three. Where
    ``seeds_known`` is False a strategy has one seed: the interval is that of *these models* on
    further images, and how much seeds matter is unknown.
    """

    p: float
    verdict: Verdict
    num_images: int
    num_seeds: int
    seeds_known: bool
    image_variance: float
    own_variance: float
    seed_variance: float


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
) -> Difference:
    """The difference of two strategies, for further seeds on further images.

    Images are resampled together for both strategies. Seeds are not resampled: with S of them
    that gives (S - 1) / S of their variance, a half with two. Their variance is computed
    (``seed_variance``), and Student's t with Satterthwaite's degrees of freedom pays for knowing
    it from few. Twins (the same configuration, other seeds) are called different in at most 5 %
    of cases at seed spreads of 0 to 3 points, S = 2, 3, 5 and N = 80 to 1,000
    (``tests/test_verdict_simulated.py``); one model each, by McNemar's test, in 27 % at 2 points
    and N = 400. **With one seed only images count**, see ``Difference.seeds_known``.

    The images' variance counts two images more, on each of which one strategy alone is right:
    without them, two strategies that agree on every image would differ by exactly 0.

    Sources: D. G. Bonett, R. M. Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", Journal of Educational and Behavioral Statistics
    37 (2012), 479-488; those of ``bootstrap_over_seeds``.

    Args:
        larger_is_better: only for a metric that is not in ``METRICS``; True if left out.

    Raises:
        ValueError: as ``stratified_bootstrap``.
    """
    counts_BN = resampling_counts(labels_N, num_resamples, seed)
    a_S, a_SB = values_of_seeds(metric, labels_N, a_SNC, counts_BN)
    b_S, b_SB = values_of_seeds(metric, labels_N, b_SNC, counts_BN)
    value = float(a_S.mean() - b_S.mean())
    of_images = float((a_SB.mean(axis=0) - b_SB.mean(axis=0)).var(ddof=1))
    if isinstance(metric, Score):
        larger_is_better = metric.larger_is_better
        of_images += 2 / design_images(metric, labels_N) ** 2 if metric.bounded else 0.0
    (raw_a, excess_a), (raw_b, excess_b) = seed_variance(a_S, a_SB), seed_variance(b_S, b_SB)
    # Degrees of freedom by what is seen (raw), not by the excess: that is small by chance just
    # where the variance is, and twins were called different in up to 10 % of cases.
    # One strategy's estimate may be below 0 by chance; cutting the sum, not each, biases less.
    of_seeds = max(0.0, excess_a + excess_b)
    variance, seeds = of_images + of_seeds, [(raw_a, len(a_S)), (raw_b, len(b_S))]
    half = t_quantile(variance, seeds, confidence) * variance**0.5
    most = 1.0 if isinstance(metric, Score) and metric.bounded else float("inf")
    return Difference(
        value=value,
        low=max(value - half, -most),
        high=min(value + half, most),
        p=_p_value(value, variance, degrees_of_freedom(variance, seeds)),
        verdict=_verdict(value, half, larger_is_better is not False),
        num_images=len(labels_N),
        num_seeds=min(len(a_S), len(b_S)),
        seeds_known=min(len(a_S), len(b_S)) > 1,
        image_variance=of_images * len(labels_N),
        # An estimate may exceed the whole that it is a part of.
        own_variance=min(raw_a - excess_a + raw_b - excess_b, of_images) * len(labels_N),
        seed_variance=of_seeds,
    )


def _p_value(value: float, variance: float, df: float) -> float:
    if variance == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * student_t.sf(abs(value) / variance**0.5, df))


def _verdict(value: float, half: float, larger_is_better: bool) -> Verdict:
    if abs(value) <= half:
        return "not distinguishable"
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


def verdict_sentence(
    difference: Difference,
    metric_name: str,
    num_images: int,
    num_seeds: int,
    margin: float,
    needed: ImagesNeeded | None,
    *,
    images: str = "test image",
) -> str:
    """What may be said of strategy a against b, to be put behind its name and *is*.

    Differences of metrics in [0, 1] are in points (hundredths), others in their own unit.

    Args:
        needed: None where nothing within reach shows the margin.
        images: what they are called, in the singular.
    """
    bounded = metric_name not in METRICS or METRICS[metric_name].bounded
    basis = f"with {_count(num_images, images)} and {_count(num_seeds, 'seed')}"
    if not difference.seeds_known:
        basis += " (these two models alone: how much seeds matter is not known)"
    if difference.verdict == "not distinguishable":
        need = "more than could be had" if needed is None else _need(needed, num_seeds, images)
        return (
            f"not distinguishable {basis}; a difference of {_amount(margin, bounded)} "
            f"would need {need}"
        )
    low, high = sorted((abs(difference.low), abs(difference.high)))
    scale = 100 if bounded else 1
    digits = 1 if bounded else 3
    return (
        f"{difference.verdict} by {_amount(abs(difference.value), bounded, digits)} of "
        f"{metric_name} [{low * scale:.{digits}f}, {high * scale:.{digits}f}] {basis}"
    )


def _need(needed: ImagesNeeded, num_seeds: int, images: str) -> str:
    with_seeds = (
        f"about {_count(needed.images_with_seeds, images)} and {needed.seeds} seeds of each"
    )
    if needed.images is None:
        return f"{with_seeds}: with {_count(num_seeds, 'seed')} no number of images is enough"
    if needed.seeds > num_seeds:
        return f"about {_count(needed.images, images)}, or {with_seeds}"
    return f"about {_count(needed.images, images)}"


def _amount(amount: float, bounded: bool, digits: int | None = None) -> str:
    scaled = amount * 100 if bounded else amount
    text = f"{scaled:g}" if digits is None else f"{scaled:.{digits}f}"
    if not bounded:
        return text
    return f"{text} point" if text == "1" else f"{text} points"


def _count(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
