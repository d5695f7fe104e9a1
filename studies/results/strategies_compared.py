"""The two strategies on the same images: their difference and the verdict on it.

Pure functions of labels and probabilities; knows nothing of studies.

Legend: S seeds, N images, C classes.
"""

from dataclasses import dataclass, replace
from typing import Any

from studies.statistics.estimates import num_resamples
from studies.statistics.intervals import Interval
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
