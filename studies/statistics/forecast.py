"""What the test images should give, said before they are looked at.

Pure functions of predictions for validation images; knows nothing of studies, and of test images
only how many there are.

Legend: N validation images, C classes, E epochs of a training, S seeds, B resamples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from studies.statistics.clusters import find_clusters
from studies.statistics.intervals import (
    Interval,
    design_images,
    effective_images,
    images_that_count,
    part_of_groups,
    resampled,
    resampling_counts,
    score_interval,
    seed_variance,
    t_quantile,
)
from studies.statistics.metrics import Floats, Labels, Score
from studies.statistics.optimism import Optimism, selection_optimism

RESAMPLES = 500


class Predicted(NamedTuple):
    """Labels (N,) of validation images, and what every epoch of a training said: (E, N, C).

    ``groups_N`` says whose picture each is; None where nobody knows.
    """

    labels_N: Labels
    probabilities_ENC: Floats
    groups_N: Labels | None = None


@dataclass(frozen=True, kw_only=True)
class Forecast(Interval):
    """The metric to expect on test images that are like the validation images.

    ``naive`` is the mean over the seeds on these. ``epoch_optimism`` and ``trial_optimism`` say by
    how much it looks too good (positive also where smaller is better) for having chosen epochs and
    configuration there. The interval is for what ``num_test`` images will show of ``num_models``
    trainings, the mean over them. Where ``seeds_known`` is False, how much seeds matter is not in
    it.
    """

    naive: float
    epoch_optimism: float
    trial_optimism: float
    num_models: int
    num_trials: int
    num_val: int
    num_test: int
    seeds_known: bool

    @property
    def optimism(self) -> float:
        """Of both kinds."""
        return self.epoch_optimism + self.trial_optimism

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "optimism": self.optimism}

    def holds(self, result: float) -> bool:
        """Whether what came out lies in the interval."""
        return self.low <= result <= self.high


def forecast(
    trials: Sequence[Predicted],
    runs: Sequence[Predicted],
    metric: Score,
    *,
    num_test: int,
    num_models: int,
    chosen_by: Score | None = None,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Forecast:
    """Forecast the metric of the best of ``trials``, which was trained again with other seeds.

    No seed of ``runs`` was chosen, but each one's epoch was, and the configuration, on these very
    images. Choosing the best trial makes it look too good by ``selection_optimism``; what its new
    trainings have lost of that already is taken off, the rest is ``trial_optimism``.

    Simulated with 30 trials and 20 epochs (``benchmarks/simulated_studies.py``): where the mean
    over seeds is 2 to 8 points too good, the forecast is off by 0.1 to 1.5 points on average, too
    high where seeds truly differ and too low where they don't; its interval holds what test images
    show in 90 to 99 % of cases, least where configurations differ by 5 points.

    Args:
        trials: every trial of the search that could have been chosen, on the same images.
        runs: the trainings by seeds; each may have validation images of its own.
        num_models: how many trainings the result will be the mean of: 1 or ``len(runs)``.
        chosen_by: what chose epochs and trials, where that is not the metric.

    Raises:
        ValueError: as `selection_optimism`, or there is no run.
    """
    if not runs:
        raise ValueError("`1 or more runs` must hold, but got none.")

    def best(among: Sequence[Predicted]) -> Optimism:
        labels_N = among[0].labels_N
        rows = [one.probabilities_ENC for one in among]
        return selection_optimism(
            labels_N,
            rows,
            metric,
            num_resamples=num_resamples,
            seed=seed,
            chosen_by=chosen_by,
            groups_N=among[0].groups_N,
        )

    sign = 1.0 if metric.larger_is_better else -1.0
    found = [best([run]) for run in runs]
    values_S = np.array([one.naive for one in found])
    naive = float(values_S.mean())
    epoch_optimism = float(np.mean([one.optimism for one in found]))
    trial_optimism = 0.0
    if len(trials) > 1:
        chosen = best(trials)
        whole = max(0.0, chosen.optimism - best([trials[chosen.trial]]).optimism)
        lost = sign * (chosen.naive - naive)
        trial_optimism = min(max(whole - lost, 0.0), whole)
    value = naive - sign * (epoch_optimism + trial_optimism)
    spread = _spread(metric, runs, found, num_resamples, seed)
    interval = _interval(metric, value, naive, spread, runs, num_test, num_models, confidence)
    return Forecast(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        naive=naive,
        epoch_optimism=epoch_optimism,
        trial_optimism=trial_optimism,
        num_models=num_models,
        num_trials=len(trials),
        num_val=len(runs[0].labels_N),
        num_test=num_test,
        seeds_known=len(runs) > 1,
    )


class _Spread(NamedTuple):
    """Variances: of the mean over seeds by images, of one model by images, of that mean by seeds.

    ``seen`` is the last one before the images' part in it is taken off. ``share`` is that of the
    images that count: less than 1 where they come in groups.
    """

    of_mean: float
    of_model: float
    of_seeds: float
    seen: float
    share: float


def _spread(
    metric: Score,
    runs: Sequence[Predicted],
    found: Sequence[Optimism],
    num_resamples: int,
    seed: int,
) -> _Spread:

    def drawn(*, by_group: bool) -> Floats:
        values = []
        for run, one in zip(runs, found, strict=True):
            groups_N = run.groups_N if by_group else None
            counts_BN = resampling_counts(run.labels_N, num_resamples, seed, groups_N)
            said_NC = run.probabilities_ENC[one.epoch]
            values.append(resampled(metric, run.labels_N, said_NC, counts_BN, groups_N))
        return np.array(values)

    values_SB, share = drawn(by_group=True), 1.0
    clusters = find_clusters(runs[0].labels_N, runs[0].groups_N)
    if clusters is not None:
        by_image, by_group = (
            float(of_SB.mean(axis=0).var(ddof=1)) for of_SB in (drawn(by_group=False), values_SB)
        )
        counting = images_that_count(metric, runs[0].labels_N, clusters, by_image, by_group)
        share = counting / design_images(metric, runs[0].labels_N)
    seen, excess = seed_variance(np.array([one.naive for one in found]), values_SB)
    return _Spread(
        of_mean=float(values_SB.mean(axis=0).var(ddof=1)),
        of_model=float(values_SB.var(axis=1, ddof=1).mean()),
        of_seeds=max(0.0, excess),
        seen=seen,
        share=share,
    )


def _interval(
    metric: Score,
    value: float,
    naive: float,
    spread: _Spread,
    runs: Sequence[Predicted],
    num_test: int,
    num_models: int,
    confidence: float,
) -> Interval:
    """What is unsure of the forecast, and what chance will do to the test images and seeds.

    Where validation images come in groups, test images are taken to come in such groups, too.
    """
    labels_N, num_seeds = runs[0].labels_N, len(runs)
    of_image = len(labels_N) * (spread.of_model if num_models == 1 else spread.of_mean)
    of_seeds = spread.of_seeds * (1 + num_seeds / num_models)
    variance = spread.of_mean + of_image / num_test + of_seeds
    parts = [(spread.seen, num_seeds)]
    clusters = find_clusters(labels_N, runs[0].groups_N)
    if clusters is not None:
        parts.append(part_of_groups(clusters, spread.of_mean + of_image / num_test))
    width = t_quantile(variance, parts, confidence)
    if not metric.bounded:
        half = width * variance**0.5
        return Interval(value=value, low=max(0.0, value - half), high=value + half)
    # Seeds that err on images of their own tell more than one model; without errors they do not.
    val_models, test_models = (num_seeds, num_models) if 0 < naive < 1 else (1, 1)
    of_val, of_test = design_images(metric, labels_N) * val_models, num_test * test_models
    most = spread.share / (1 / of_val + 1 / of_test)
    images = effective_images(naive * (1 - naive), variance, most)
    return score_interval(min(max(value, 0.0), 1.0), images, width)
