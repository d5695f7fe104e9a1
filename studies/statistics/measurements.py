"""What claims and gains rest on: differences, ratios of costs, and what training on has cost.

Pure functions; knows no claims and no studies.

Legend: S seeds, E epochs, N validation images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm, ttest_ind

from studies.statistics.clusters import find_clusters
from studies.statistics.intervals import Interval
from studies.statistics.metrics import METRICS, Floats, Labels, losses
from studies.statistics.paired import Difference, difference_over_seeds


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
