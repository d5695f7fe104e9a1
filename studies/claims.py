"""Task D as data: what people claim of the two strategies, and what was measured here of each.

Pure functions of measured values; knows neither studies nor how a report is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student_t

from studies.statistics import Interval

ClaimVerdict = Literal["holds here", "does not hold here", "not shown"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim. ``evidence`` are sentences; ``measured`` what the verdict follows from."""

    strategy: str
    is_advantage: bool
    text: str
    evidence: Sequence[str]
    measured: Interval | None
    verdict: ClaimVerdict


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of both strategies; None where it was not.

    Differences are of the metric (positive: the first is better); ``gap`` is training minus
    validation accuracy; ratios are fine-tuning over feature extraction. ``images`` says on which
    images ``tuned_over_extracted`` rests. ``similarity`` is of the features before and after
    fine-tuning, of the pretrained ones and those of random weights (linear CKA, 1: the same).
    """

    images: str
    num_train: int
    tuned_over_extracted: Interval | None = None
    tuned_over_probe: Interval | None = None
    tuned_over_majority: Interval | None = None
    pretrained_over_random: Interval | None = None
    seconds_ratio: Interval | None = None
    memory_ratio: Interval | None = None
    parameters: tuple[int, int] | None = None
    tuned_gap: Interval | None = None
    extracted_gap: Interval | None = None
    gap_difference: Interval | None = None
    similarity: float | None = None
    random_similarity: float | None = None


def claims(found: Measured) -> list[Claim]:
    """The eight claims, with their verdicts."""
    tuned, extracted = "fine_tuning", "feature_extraction"
    over_extracted = _points("fine-tuning over feature extraction", found.tuned_over_extracted)
    ratios = [
        *_ratio("seconds of training, fine-tuning over feature extraction", found.seconds_ratio),
        *_ratio("peak memory", found.memory_ratio),
    ]
    parameters = [] if found.parameters is None else [_parameters(*found.parameters)]
    return [
        Claim(
            strategy=tuned,
            is_advantage=True,
            text="learns task-specific features",
            evidence=[
                *_points(
                    "fine-tuning over logistic regression on frozen features (validation)",
                    found.tuned_over_probe,
                ),
                *_similarity(found),
            ],
            measured=found.tuned_over_probe,
            verdict=judge(found.tuned_over_probe),
        ),
        Claim(
            strategy=tuned,
            is_advantage=True,
            text="works with small data",
            evidence=[
                f"{found.num_train:,} training images",
                *_points("over the majority class (validation)", found.tuned_over_majority),
            ],
            measured=found.tuned_over_majority,
            verdict=judge(found.tuned_over_majority),
        ),
        Claim(
            strategy=tuned,
            is_advantage=False,
            text="is costly to train",
            evidence=ratios,
            measured=found.seconds_ratio,
            verdict=judge(found.seconds_ratio, at=1.0),
        ),
        Claim(
            strategy=tuned,
            is_advantage=False,
            text="overfits small data",
            evidence=_points("training minus validation accuracy", found.tuned_gap),
            measured=found.tuned_gap,
            verdict=judge(found.tuned_gap),
        ),
        Claim(
            strategy=extracted,
            is_advantage=True,
            text="is efficient",
            evidence=[*ratios, *parameters],
            measured=found.seconds_ratio,
            verdict=judge(found.seconds_ratio, at=1.0),
        ),
        Claim(
            strategy=extracted,
            is_advantage=True,
            text="overfits less",
            evidence=[
                *_points("training minus validation accuracy", found.extracted_gap),
                *_points("that of fine-tuning minus that", found.gap_difference),
            ],
            measured=found.gap_difference,
            verdict=judge(found.gap_difference),
        ),
        Claim(
            strategy=extracted,
            is_advantage=False,
            text="can't learn task-specific features, and loses by it",
            evidence=[*over_extracted, *([f"on {found.images}"] if over_extracted else [])],
            measured=found.tuned_over_extracted,
            verdict=judge(found.tuned_over_extracted),
        ),
        Claim(
            strategy=extracted,
            is_advantage=False,
            text="is worse where pretrained features don't suit",
            evidence=_points(
                "logistic regression on pretrained features over that on features of random "
                "weights (validation)",
                found.pretrained_over_random,
            ),
            measured=found.pretrained_over_random,
            # Where pretraining gives the better features they suit, and there is nothing to lose.
            verdict=judge(found.pretrained_over_random, above="does not hold here"),
        ),
    ]


def judge(
    found: Interval | None, *, at: float = 0.0, above: ClaimVerdict = "holds here"
) -> ClaimVerdict:
    """What an interval says of a claim: nothing unless it lies on one side of ``at``."""
    below: ClaimVerdict = "holds here" if above == "does not hold here" else "does not hold here"
    if found is None or found.low <= at <= found.high:
        return "not shown"
    return above if found.low > at else below


def geometric_ratio(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """Ratio of geometric means of positive values, with Welch's interval of their logarithms.

    None with fewer than two values of each.

    Source: B. L. Welch, "The generalization of Student's problem when several different population
    variances are involved", Biometrika 34 (1947), 28-35.
    """
    a, b = (np.log([v for v in values if v > 0]) for values in (first, second))
    if min(len(a), len(b)) < 2:
        return None
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    difference, variance = float(a.mean() - b.mean()), float(parts.sum())
    half = 0.0
    if variance > 0:
        freedom = variance**2 / float((parts**2 / [len(a) - 1, len(b) - 1]).sum())
        half = float(student_t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    low, value, high = np.exp([difference - half, difference, difference + half])
    return Interval(value=float(value), low=float(low), high=float(high))


def gap_interval(training: float, validation: Interval) -> Interval:
    """Training minus validation accuracy: what is unsure is that of few validation images."""
    return Interval(
        value=training - validation.value,
        low=training - validation.high,
        high=training - validation.low,
    )


def gap_difference(training: tuple[float, float], difference: Interval) -> Interval:
    """The gap of the first minus that of the second, from their difference in validation."""
    more = training[0] - training[1]
    return Interval(
        value=more - difference.value, low=more - difference.high, high=more - difference.low
    )


def points_text(found: Interval) -> str:
    """A difference of a metric in [0, 1] as points."""
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _points(what: str, found: Interval | None) -> list[str]:
    return [] if found is None else [f"{what}: {points_text(found)}"]


def _ratio(what: str, found: Interval | None) -> list[str]:
    if found is None:
        return []
    return [f"{what}: {found.value:.3g} times [{found.low:.3g}, {found.high:.3g}]"]


def _parameters(tuned: int, extracted: int) -> str:
    return f"trainable parameters: {tuned:,} against {extracted:,}"


def _similarity(found: Measured) -> list[str]:
    if found.similarity is None:
        return []
    text = f"similarity of the features before and after (linear CKA): {found.similarity:.2f}"
    if found.random_similarity is None:
        return [text]
    return [
        f"{text}; of pretrained ones and those of random weights: {found.random_similarity:.2f}"
    ]
