"""How much too good the best of many looks, on the images that chose it. Pure functions.

Legend: N validation images, C classes, T trials, E epochs of a trial, R rows: one for each epoch
of each trial, B resamples. Knows nothing of studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from studies.statistics.clusters import find_clusters, images_worth
from studies.statistics.intervals import Interval, design_images, effective_images, score_interval
from studies.statistics.metrics import (
    Floats,
    Labels,
    Metric,
    Score,
    check_predictions,
    losses,
    weighted_values,
)

Rows = NDArray[np.int64]

# Losses are at most 27.6 nats: they order what the metric ties, and nothing else.
TIE = 1e-10


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """The best trial's metric as it looks and as it should be expected on further images.

    ``trial`` and ``epoch`` (from 0) are the selected ones. ``optimism`` is how much too good
    ``naive`` looks: ``naive - corrected.value``, or the reverse where smaller is better.
    """

    naive: float
    corrected: Interval
    optimism: float
    trial: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class _Selections:
    """The row chosen in each resample, its value on images left out, all rows on those drawn.

    ``key_RB`` is what rows were chosen by, ties included.
    """

    row_B: Rows
    outside_B: Floats
    inside_RB: Floats
    key_RB: Floats


def selection_optimism(
    labels_N: Labels,
    probabilities: Sequence[Floats],
    metric: Metric,
    *,
    num_resamples: int = 500,
    seed: int = 0,
    confidence: float = 0.95,
    larger_is_better: bool | None = None,
    chosen_by: Score | None = None,
    groups_N: Labels | None = None,
) -> Optimism:
    """The metric of the best epoch of the best trial, corrected for having been chosen.

    Every resample of the images repeats the choice (best epoch of each trial, best trial, ties to
    the lower loss) and is evaluated on the images it left out, about 37 %. That mean is right
    where all trials are equal, and 1 to 2 points too low where one is better by 5 to 10: half the
    information chooses worse. So what the resamples' choices lose against the real one is added,
    by values of the trials shrunken towards each other as far as their noise demands. The
    interval has the variance of one model on N images and that of the shrunken value. Where images
    come in groups, groups are drawn, and left out whole.

    Measured on 1,000 studies of 30 trials, 20 epochs and 78 images
    (``benchmarks/simulated_studies.py``): equal trials look 11 to 13 points too good and are
    corrected to 0.2 to 0.6 too good, with errors independent or correlated between trials and
    epochs; covered in 98 to 99 %. One trial better by 5 points: 0.1 too low, 96 %; by 10 points:
    1.0 too low, 90 %. With 300 images, by 5 points: 0.7 too low, 93 %: it covers less where the
    better trial is about as often missed as found. Trials that differ by 3 or 6 points (standard
    deviation, 200 studies): 0.3 to 0.5 too low, covered in 96 to 97 %. Of 12 points, Efron's
    optimism bootstrap left 5 and BBC-CV none, but that was 1.5 too low for a trial better by 5.

    Sources: I. Tsamardinos, E. Greasidou, G. Borboudakis, "Bootstrapping the out-of-sample
    predictions for efficient and accurate cross-validation", Machine Learning 107 (2018),
    1895-1922 (BBC-CV); shrinkage: J. Kiefer, J. Wolfowitz, Annals of Mathematical Statistics 27
    (1956), 887-906, as in W. Jiang, C.-H. Zhang, Annals of Statistics 37 (2009), 1647-1684.

    Args:
        probabilities: one array (E, N, C) for each trial; E may differ.
        larger_is_better: only for a metric that is not in ``METRICS``; True if left out.
        chosen_by: what chooses epochs and trials, where that is not the metric.
        groups_N: whose picture each is; images are taken as independent if left out.

    Raises:
        ValueError: there is no trial or a trial without epochs, ``check_predictions`` refuses
            predictions, or no resample leaves out what the metric needs (a class of one image).
    """
    trial_R = _check_trials(labels_N, probabilities)
    rows = [rows_NC for trial in probabilities for rows_NC in trial]
    if isinstance(metric, Score):
        larger_is_better = metric.larger_is_better
    sign = -1.0 if larger_is_better is False else 1.0
    naive_R = np.array([metric(labels_N, row_NC) for row_NC in rows])
    by_R = naive_R if chosen_by is None else [chosen_by(labels_N, row_NC) for row_NC in rows]
    by_sign = sign if chosen_by is None else 1.0 if chosen_by.larger_is_better else -1.0
    loss_R = np.array([losses(labels_N, row_NC).mean() for row_NC in rows])
    key_R = by_sign * np.asarray(by_R) - TIE * loss_R
    selected = int(np.argmax(key_R))
    counts_BN = _bootstrap(labels_N, num_resamples, seed, groups_N)
    found = _select(labels_N, rows, metric, sign, counts_BN, chosen_by, by_sign)
    mean, variance = _corrected(found, sign * naive_R, key_R, trial_R, selected)
    naive, trial = float(naive_R[selected]), int(trial_R[selected])
    images = None
    clusters = find_clusters(labels_N, groups_N)
    if clusters is not None and isinstance(metric, Score):
        # As many as the groups are worth to the model that was chosen.
        by_image, by_group = (
            weighted_values(metric, labels_N, rows[selected], drawn_BN)
            for drawn_BN in (_bootstrap(labels_N, num_resamples, seed), counts_BN)
        )
        worth = images_worth(clusters, float(np.nanvar(by_image)), float(np.nanvar(by_group)))
        images = design_images(metric, labels_N) * worth / len(labels_N)
    interval = _interval(
        sign * mean, variance, found, naive_R, metric, labels_N, confidence, images
    )
    return Optimism(
        naive=naive,
        corrected=interval,
        optimism=sign * (naive - interval.value),
        trial=trial,
        epoch=selected - int(np.flatnonzero(trial_R == trial)[0]),
    )


def _check_trials(labels_N: Labels, probabilities: Sequence[Floats]) -> Rows:
    """The trial of every row. Shape R."""
    lengths = [len(trial) for trial in probabilities]
    if not lengths or min(lengths) == 0:
        raise ValueError(f"`1 or more trials of 1 or more epochs` must hold, but got {lengths}.")
    for trial in probabilities:
        for row_NC in trial:
            check_predictions(labels_N, row_NC)
    return np.repeat(np.arange(len(lengths)), lengths)


def _bootstrap(
    labels_N: Labels, num_resamples: int, seed: int, groups_N: Labels | None = None
) -> Floats:
    """How often each image is drawn, n draws of n in each class. Shape BxN.

    Where images come in groups, so are groups of each stratum, and an image as often as its group.
    """
    rng = np.random.default_rng(seed)
    clusters = find_clusters(labels_N, groups_N)
    stratum_G = labels_N if clusters is None else clusters.stratum_G
    counts_BG = np.empty((num_resamples, len(stratum_G)))
    for stratum in np.unique(stratum_G):
        n = int((stratum_G == stratum).sum())
        counts_BG[:, stratum_G == stratum] = rng.multinomial(n, np.full(n, 1 / n), num_resamples)
    counts_BN = counts_BG if clusters is None else counts_BG[:, clusters.group_N]
    # A resample of all images leaves none out; only a handful of images has any.
    some_left_B = (counts_BN == 0).any(axis=1)
    return np.asarray(counts_BN[some_left_B], dtype=np.float64)


def _select(
    labels_N: Labels,
    rows: Sequence[Floats],
    metric: Metric,
    sign: float,
    counts_BN: Floats,
    chosen_by: Score | None,
    by_sign: float,
) -> _Selections:
    inside_RB = np.empty((len(rows), len(counts_BN)))
    key_RB = np.empty_like(inside_RB)
    for r, row_NC in enumerate(rows):
        inside_RB[r] = sign * weighted_values(metric, labels_N, row_NC, counts_BN)
        key_RB[r] = (
            inside_RB[r]
            if chosen_by is None
            else by_sign * weighted_values(chosen_by, labels_N, row_NC, counts_BN)
        )
        key_RB[r] -= TIE * (counts_BN @ losses(labels_N, row_NC)) / len(labels_N)
    row_B = key_RB.argmax(axis=0)
    outside_B = np.empty(len(counts_BN))
    for r in np.unique(row_B):
        left_out_BN = (counts_BN[row_B == r] == 0).astype(np.float64)
        outside_B[row_B == r] = sign * weighted_values(metric, labels_N, rows[r], left_out_BN)
    if np.isnan(outside_B).all():
        raise ValueError(
            "`every class has 2 or more images` must hold for the optimism of this metric, but "
            f"got {np.bincount(labels_N).tolist()} images a class."
        )
    return _Selections(row_B=row_B, outside_B=outside_B, inside_RB=inside_RB, key_RB=key_RB)


def _corrected(
    found: _Selections, value_R: Floats, key_R: Floats, trial_R: Rows, selected: int
) -> tuple[float, float]:
    """The corrected value, larger the better, and how unsure its selected trial's part is."""
    starts_T = np.flatnonzero(np.diff(trial_R, prepend=-1))
    best_T = _of_best_epochs(value_R[:, None], key_R[:, None], starts_T)[:, 0]
    best_TB = _of_best_epochs(found.inside_RB, found.key_RB, starts_T)
    # What moves all trials alike (hard images) decides nothing between them.
    noise = float((best_TB - best_TB.mean(axis=0)).var(axis=1).mean() ** 0.5)
    shrunken_T, variance_T = shrunken(best_T, noise)
    known_B = ~np.isnan(found.outside_B)
    of_resamples = float(shrunken_T[trial_R[found.row_B[known_B]]].mean())
    trial = trial_R[selected]
    mean = float(found.outside_B[known_B].mean()) + float(shrunken_T[trial]) - of_resamples
    return mean, float(variance_T[trial])


def _of_best_epochs(value_RB: Floats, key_RB: Floats, starts_T: Rows) -> Floats:
    """Of every trial the value of the epoch with the largest key. Shape TxB."""
    found = []
    for value_EB, key_EB in zip(
        np.split(value_RB, starts_T[1:]), np.split(key_RB, starts_T[1:]), strict=True
    ):
        found.append(np.take_along_axis(value_EB, key_EB.argmax(axis=0)[None], axis=0)[0])
    return np.array(found)


def shrunken(value_T: Floats, noise: float) -> tuple[Floats, Floats]:
    """Posterior means and variances of true values, whose distribution the values themselves tell.

    Nonparametric maximum likelihood by expectation maximisation on a grid. Values that differ
    by no more than their noise (a standard deviation) come out equal, one that stands out of
    many stays out.
    """
    if noise == 0 or np.ptp(value_T) == 0:
        return value_T, np.zeros_like(value_T)
    grid_G = np.union1d(value_T, np.linspace(value_T.min(), value_T.max(), 60))
    density_TG = np.exp(-0.5 * ((value_T[:, None] - grid_G) / noise) ** 2)
    prior_G = np.full(len(grid_G), 1 / len(grid_G))
    for _ in range(200):
        posterior_TG = density_TG * prior_G
        posterior_TG /= posterior_TG.sum(axis=1, keepdims=True)
        prior_G = posterior_TG.mean(axis=0)
    mean_T: Floats = posterior_TG @ grid_G
    variance_T: Floats = np.maximum(posterior_TG @ grid_G**2 - mean_T**2, 0.0)
    return mean_T, variance_T


def _interval(
    value: float,
    extra: float,
    found: _Selections,
    naive_R: Floats,
    metric: Metric,
    labels_N: Labels,
    confidence: float,
    counting: float | None = None,
) -> Interval:
    """One model's variance on N images at the corrected value, and ``extra``.

    Args:
        counting: the images that count at most, by their design if left out.
    """
    chosen = np.unique(found.row_B)
    of_images = float(found.inside_RB[chosen].var(axis=1).mean())
    width = float(norm.ppf((1 + confidence) / 2))
    if not (isinstance(metric, Score) and metric.bounded):
        half = width * (of_images + extra) ** 0.5
        return Interval(value=value, low=value - half, high=value + half)
    value = min(max(value, 0.0), 1.0) + 0.0  # No -0.0.
    # The chosen rows look better than they are, so their variance is that of better ones: what
    # carries over to the corrected value is the number of images it amounts to.
    spread = float((naive_R[chosen] * (1 - naive_R[chosen])).mean())
    counting = design_images(metric, labels_N) if counting is None else counting
    images = effective_images(spread, of_images, counting)
    extra_share = extra / max(value * (1 - value), 1 / (4 * images))
    return score_interval(value, 1 / (1 / images + extra_share), width)
