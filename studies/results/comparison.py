"""Task D as data: the two strategies side by side, their difference and the verdict on it.

Of the best trials while a study runs; of the choices on the images that chose them, from stored
validation predictions; and, as pure functions, of any labels and probabilities. Never imports
torch.

Legend: S seeds, N images, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from studies.database.artifacts import read_predictions
from studies.database.storage import StudyStorage
from studies.database.trials import TrialRecord, best_trials
from studies.errors import UserError
from studies.results.choice import Candidate, Confirmed
from studies.results.controls import Learned
from studies.results.forecasts import forecast_of_candidate
from studies.statistics.calibration import probabilities
from studies.statistics.estimates import num_resamples
from studies.statistics.forecast import Forecast
from studies.statistics.intervals import Interval, wilson_interval
from studies.statistics.metrics import METRICS, Floats, Labels
from studies.statistics.paired import Difference, Verdict, difference_over_seeds
from studies.statistics.sample_size import ImagesNeeded, images_needed
from studies.statistics.verdict_words import (
    is_beyond,
    is_within,
    optimism_sentence,
    subjects_of,
    verdict_of,
    verdict_sentence,
)
from transfer.config import Strategy

Predicted = Callable[[TrialRecord], tuple[Labels, Floats, Labels | None] | None]


@dataclass(frozen=True, kw_only=True)
class StrategySummary:
    """One strategy at its best. ``accuracy`` is on the validation images, with a 95 % interval."""

    strategy: str
    best: TrialRecord
    value: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    num_trials: int
    num_pruned: int
    seconds: float


def compare(
    records: Sequence[TrialRecord], metric: str, num_val: int
) -> dict[str, StrategySummary]:
    """A summary of every strategy with a complete trial; the better value first.

    Args:
        num_val: independent validation images, which is subjects where they are known.
    """
    summaries: dict[str, StrategySummary] = {}
    for record in best_trials(records, metric):
        strategy = str(record.strategy)
        if strategy not in summaries:
            summaries[strategy] = _summary(strategy, record, records, num_val)
    return summaries


def _summary(
    strategy: str, best: TrialRecord, records: Sequence[TrialRecord], num_val: int
) -> StrategySummary:
    assert best.value is not None and best.best is not None
    accuracy = best.best["val"]["accuracy"]
    mine = [r for r in records if r.counts and r.strategy == strategy]
    return StrategySummary(
        strategy=strategy,
        best=best,
        value=best.value,
        accuracy=accuracy,
        accuracy_interval=wilson_interval(round(accuracy * num_val), num_val),
        num_trials=len(mine),
        num_pruned=sum(r.state == "PRUNED" for r in mine),
        seconds=sum(r.seconds or 0.0 for r in mine),
    )


def seconds_saved(records: Sequence[TrialRecord], epochs: int) -> float:
    """Time saved by pruning: epochs not run times the trial's own seconds an epoch.

    An upper bound: patience might have ended a trial before its last epoch.
    """
    saved = 0.0
    for record in records:
        if record.state == "PRUNED" and record.counts and record.history:
            spent = record.timing["training"] + record.timing["validation"]
            saved += (epochs - len(record.history)) * spent / len(record.history)
    return saved


def interim_verdict(
    records: Sequence[TrialRecord],
    metric: str,
    num_val: int,
    predicted: Predicted,
    images: str = "validation images",
) -> str | None:
    """One sentence on the backbones as fixed feature extractors, or None before one is done.

    Args:
        num_val: independent validation images, which is subjects where they are known.
        images: how many there are, and whose, in words.
        predicted: labels (N,), probabilities (N, C) of a trial's best epoch and groups of the
            validation images, which all trials share; None where they are gone.
    """
    probes: dict[str, TrialRecord] = {}
    for record in best_trials(records, metric):
        if record.strategy == "feature_extraction":
            probes.setdefault(str(record.params["backbone"]), record)
    if not probes:
        return None
    parts = []
    for backbone, record in probes.items():
        low, high = _interval(record, num_val)
        assert record.best is not None
        accuracy = record.best["val"]["accuracy"]
        parts.append(f"{backbone} {accuracy:.1%} [{low:.1%}, {high:.1%}]")
    text = f"So far, as fixed feature extractor (accuracy on {images}): {', '.join(parts)}"
    if len(probes) > 1:
        first, second = list(probes.items())[:2]
        text += _first_over_second(first, second, predicted)
    return f"{text}."


def _first_over_second(
    first: tuple[str, TrialRecord], second: tuple[str, TrialRecord], predicted: Predicted
) -> str:
    """How the best two differ on the same images: one model of each, by one seed."""
    a, b = predicted(first[1]), predicted(second[1])
    if a is None or b is None:
        return ""
    try:
        found = difference_over_seeds(
            METRICS["accuracy"], a[0], a[1][None], b[1][None], groups_N=a[2]
        )
    except ValueError:
        return "; too few validation images or subjects to tell which is better"
    value, low, high = (f"{100 * v:+.1f}" for v in (found.value, found.low, found.high))
    verdict = "not shown to differ" if found.verdict == "undecided" else found.verdict
    return f"; {first[0]} over {second[0]} {value} points [{low}, {high}]: {verdict}"


def _interval(record: TrialRecord, num_val: int) -> tuple[float, float]:
    assert record.best is not None
    return wilson_interval(round(record.best["val"]["accuracy"] * num_val), num_val)


# The difference is always that of the first from the second, whichever is better.
FIRST, SECOND = Strategy.FINE_TUNING, Strategy.FEATURE_EXTRACTION
NAMES = {FIRST: "the fine-tuning configuration", SECOND: "the feature extraction"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration of a strategy that was compared: ``trial`` of the search's ``num_trials``.

    ``num_trials`` are those of its own strategy.
    """

    trial: int
    num_trials: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Fine-tuning against feature extraction in one metric on the same images.

    It compares two configurations, found by one search in so many trials each, not the strategies
    at their best. ``margin`` is what was declared, None where nothing was. ``needed`` is what
    would show it where nothing is decided; None also where no number of images and seeds within
    reach does. ``optimism`` is how much better than they are the two look on images that have
    chosen them; None where the images have chosen nothing.
    """

    metric: str
    difference: Difference
    margin: float | None
    needed: ImagesNeeded | None
    images: str
    num_seeds: tuple[int, int]
    choices: tuple[Choice, Choice]
    optimism: tuple[float, float] | None = None

    @property
    def judged(self) -> Interval:
        """What the verdict goes by: the difference's interval, and on images that have chosen
        each side moved by what its choice may have added.
        """
        low, high = self.difference.low, self.difference.high
        if self.optimism is not None:
            first, second = self.optimism
            if METRICS[self.metric].larger_is_better:
                low, high = low - first, high + second
            else:
                low, high = low - second, high + first
        return Interval(value=self.difference.value, low=low, high=high)

    @property
    def verdict(self) -> Verdict:
        """On fine-tuning."""
        return verdict_of(
            self.judged, self.margin, larger_is_better=METRICS[self.metric].larger_is_better
        )

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        first, second = (
            f"{NAMES[name]} found in {_trials(choice.num_trials)} (trial {choice.trial})"
            for name, choice in zip((FIRST, SECOND), self.choices, strict=True)
        )
        said = verdict_sentence(
            self.difference,
            self.metric,
            first=first,
            second=second,
            margin=self.margin,
            needed=self.needed,
            images=self.images,
            seeds_of_each=self.num_seeds,
            judged=None if self.optimism is None else self.judged,
        )
        if self.optimism is None:
            return said
        return f"{said} {optimism_sentence(self.optimism, METRICS[self.metric].bounded)}"

    def as_json(self) -> dict[str, Any]:
        """``value``, ``low``, ``high``, ``p``, ``verdict`` and what they rest on."""
        found, needed, margin = self.difference, self.needed, self.margin
        return {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "verdict": self.verdict,
            "beyond_margin": None if margin is None else is_beyond(self.judged, margin),
            "within_margin": None if margin is None else is_within(self.judged, margin),
            "optimism": None
            if self.optimism is None
            else [value if value < float("inf") else None for value in self.optimism],
            "metric": self.metric,
            "of": str(FIRST),
            "against": str(SECOND),
            "sentence": self.sentence,
            "num_images": found.num_images,
            "num_subjects": found.num_subjects,
            "num_seeds": found.num_seeds,
            "seeds_of_each": list(self.num_seeds),
            "seeds_known": found.seeds_known,
            "trials": [choice.trial for choice in self.choices],
            "num_trials": [choice.num_trials for choice in self.choices],
            "margin": margin,
            "needed": None
            if needed is None
            else {
                "images": needed.images,
                "subjects": subjects_of(needed.images, found),
                "seeds": needed.seeds,
                "images_with_seeds": needed.images_with_seeds,
                "subjects_with_seeds": subjects_of(needed.images_with_seeds, found),
            },
        }


def _trials(count: int) -> str:
    return f"{count:,} trial{'' if count == 1 else 's'}"


def compare_strategies(
    metric: str,
    labels_N: Labels,
    first_SNC: Floats,
    second_SNC: Floats,
    *,
    margin: float | None,
    choices: tuple[Choice, Choice],
    images: str = "test image",
    groups_N: Labels | None = None,
    optimism: tuple[float, float] | None = None,
) -> Comparison | None:
    """Fine-tuning against feature extraction; None where the metric is not defined.

    Args:
        margin: the difference that would matter, as it was declared; None where none was.
        choices: where the configurations of fine-tuning and of feature extraction come from.
        images: what they are called, in the singular.
        groups_N: whose picture each is; images are taken as independent if left out.
        optimism: how much too good the two look on these images; None where they chose neither.
    """
    try:
        found = difference_over_seeds(
            METRICS[metric],
            labels_N,
            first_SNC,
            second_SNC,
            num_resamples=num_resamples(len(labels_N)),
            groups_N=groups_N,
        )
    except ValueError:
        return None
    comparison = Comparison(
        metric=metric,
        difference=found,
        margin=margin,
        needed=None,
        images=images,
        num_seeds=(len(first_SNC), len(second_SNC)),
        choices=choices,
        optimism=optimism,
    )
    # Of images that have chosen no number helps: what they add to the choices does not shrink.
    if comparison.verdict != "undecided" or margin is None or optimism is not None:
        return comparison
    return replace(comparison, needed=_needed(found, margin))


def _needed(found: Difference, margin: float) -> ImagesNeeded | None:
    try:
        return images_needed(
            margin,
            image_variance=found.image_variance,
            own_variance=max(0.0, found.own_variance),
            seed_variance=found.seed_variance,
            num_seeds=found.num_seeds,
            share_that_counts=found.share_that_counts,
        )
    except ValueError:
        return None


def compare_on_validation(
    storage: StudyStorage,
    confirmed: Confirmed,
    trials: Sequence[TrialRecord],
    forecasts: Mapping[str, Forecast] | None = None,
) -> Comparison | None:
    """Fine-tuning against feature extraction over seeds, on validation images.

    These have chosen epochs and configurations of both: the verdict allows for what each one's
    forecast takes off. None where one of them is not confirmed or lacks a seed, predictions are
    gone, or every seed had validation images of its own: what is not paired is left to the test
    images.

    Args:
        trials: those of the search.
        forecasts: of the choices, by strategy, where they are at hand.
    """
    chosen = confirmed.chosen
    if confirmed.resplit or not {FIRST, SECOND} <= set(chosen):
        return None
    if chosen[FIRST].missing or chosen[SECOND].missing:
        return None  # Of those that are left the mean is too good: what fails has no part in it.
    try:
        stored = read_predictions(storage, chosen[FIRST].runs[0])
        first_SNC, second_SNC = (_of_seeds(storage, chosen[name]) for name in (FIRST, SECOND))
    except UserError:
        return None
    return compare_strategies(
        confirmed.metric,
        stored.labels_N,
        first_SNC,
        second_SNC,
        margin=confirmed.margin,
        choices=choices_of(confirmed, trials),
        images="validation image",
        groups_N=stored.groups_N,
        optimism=(
            _optimism(storage, confirmed, trials, FIRST, forecasts),
            _optimism(storage, confirmed, trials, SECOND, forecasts),
        ),
    )


def _optimism(
    storage: StudyStorage,
    confirmed: Confirmed,
    trials: Sequence[TrialRecord],
    strategy: str,
    forecasts: Mapping[str, Forecast] | None,
) -> float:
    """By how much a choice looks too good at most; infinite where nobody knows."""
    if forecasts is not None:
        found = forecasts.get(strategy)
    else:
        candidate = confirmed.chosen[strategy]
        try:
            found = forecast_of_candidate(
                storage, trials, candidate, metric=confirmed.metric, num_test=1
            )
        except (UserError, ValueError):
            found = None
    return float("inf") if found is None else max(0.0, found.optimism)


def choices_of(confirmed: Confirmed, trials: Sequence[TrialRecord]) -> tuple[Choice, Choice]:
    """Where both confirmed choices come from; ``trials`` are those of the search."""

    def choice(strategy: str) -> Choice:
        return Choice(
            trial=confirmed.chosen[strategy].number,
            num_trials=sum(t.counts and t.strategy == strategy for t in trials),
        )

    return choice(FIRST), choice(SECOND)


def _of_seeds(storage: StudyStorage, candidate: Candidate) -> Floats:
    """Probabilities (S, N, C) at the best epoch of every seed."""
    found = []
    for run in candidate.runs:
        assert run.best_epoch is not None
        logits_NC = read_predictions(storage, run).logits_ENC[run.best_epoch - 1]
        found.append(probabilities(logits_NC, 1.0))
    return np.stack(found)


@dataclass(frozen=True, kw_only=True)
class ConfirmSummary:
    """What is known on validation images: the confirmed candidates, and what they must beat.

    ``controls`` are the trials of ``NAME/controls``, ``learned`` says of each strategy's choice
    whether it learned anything; ``comparison`` is of the two strategies' choices, None where there
    is nothing to compare.
    """

    confirmed: Confirmed
    controls: Sequence[TrialRecord]
    learned: Mapping[str, Learned]
    comparison: Comparison | None = None
