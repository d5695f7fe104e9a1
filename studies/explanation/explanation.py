"""An explanation of a test result as a value: steps that add up, where they are, what to do.

Knows numbers; how they come about is `points_lost`'s to know, what they mean `words`'.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.stats import norm

from studies.explanation.thresholds import Thresholds
from studies.explanation.waterfall import ClassPath
from studies.explanation.words import REMEDIES, sentences
from studies.statistics.forecast import Forecast
from studies.statistics.intervals import Interval
from studies.statistics.paired_tests import holm
from studies.statistics.reliability import Recalibration

Cause = Literal["optimism", "class_prior", "shift", "rest", "calibration"]
ALL = "all"


def _p_value(change: Interval) -> float:
    """Of a change whose normal 95 % interval this is."""
    half = change.high - change.value
    if half == 0:
        return float(change.value == 0)
    return float(2 * norm.sf(abs(change.value) / half * norm.ppf(0.975)))


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one cause adds to the metric; below 0 it is lost, for a loss above 0."""

    cause: Cause
    change: Interval
    is_loss: bool

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves 0."""
        return self.change.low > 0 or self.change.high < 0

    @property
    def remedy(self) -> str:
        return REMEDIES[self.cause]

    def as_json(self) -> dict[str, Any]:
        """With ``remedy``."""
        return {
            "cause": self.cause,
            **asdict(self.change),
            "is_loss": self.is_loss,
            "is_shown": self.is_shown,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, kw_only=True)
class Level:
    """How well features tell validation from test images (AUROC), of all or within a class.

    ``reference`` is how well they tell validation from training images, of as many as there are
    test images. ``p`` and ``reference_p`` are those of a permutation test (of whole subjects
    ``by_subject``, else of images). None where a set has fewer than five subjects, or images.
    ``adjusted_p`` is that of a class among all classes, by Holm's method.
    """

    images: str
    test: Interval | None
    reference: Interval | None
    p: float | None = None
    adjusted_p: float | None = None
    reference_p: float | None = None
    by_subject: bool = False

    @property
    def is_all(self) -> bool:
        return self.images == ALL

    @property
    def is_told_apart(self) -> bool:
        """Better than chance would have it in 1 of 20 cases, of all classes together."""
        p = self.p if self.adjusted_p is None else self.adjusted_p
        return p is not None and p < 0.05

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_told_apart": self.is_told_apart}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Part A for one strategy: ``forecast.naive`` and all ``steps`` add up to ``test``.

    ``levels`` are of all images, then of each class; ``paths`` of each class that both sets have.
    The last three say how well probabilities hold before and after calibration; None where
    nothing can be said of it.
    """

    metric: str
    classes: tuple[str, ...]
    num_seeds: int
    forecast: Forecast
    steps: tuple[Step, ...]
    test: float
    matched: float
    levels: tuple[Level, ...]
    paths: tuple[ClassPath, ...]
    thresholds: Thresholds | None
    validation_before: Recalibration | None
    test_before: Recalibration | None
    test_after: Recalibration | None

    @property
    def leading(self) -> Step | None:
        """The step that lost most, of those whose interval leaves 0."""
        shown = [step for step in self.steps if step.is_loss and step.is_shown]
        return max(shown, key=lambda step: abs(step.change.value), default=None)

    @property
    def leading_class(self) -> ClassPath | None:
        """The class in which shift lost most images' worth of recall, if that is shown.

        It is the worst of all classes, so its p is adjusted for their number (Holm).
        """
        p_values = holm([_p_value(path.shift) for path in self.paths])
        lost = [
            path
            for path, p in zip(self.paths, p_values, strict=True)
            if path.shift.value < 0 and p < 0.05
        ]
        return min(lost, key=lambda path: path.share * path.shift.value, default=None)

    @property
    def unsplit(self) -> list[str]:
        """The classes of too few images or subjects to tell shift from rest: all of it is rest."""
        return [self.classes[path.label] for path in self.paths if path.matched is None]

    def step(self, cause: Cause) -> Step:
        """The step of a cause; ``KeyError`` where it has none."""
        return {step.cause: step for step in self.steps}[cause]

    def as_json(self) -> dict[str, Any]:
        """All of it, with the sentences that follow from it."""
        leading, of_class = self.leading, self.leading_class
        return {
            "metric": self.metric,
            "seeds": self.num_seeds,
            "validation": self.forecast.naive,
            "forecast": self.forecast.as_json(),
            "test": self.test,
            "steps": [step.as_json() for step in self.steps],
            "leading": None if leading is None else leading.cause,
            "leading_class": None if of_class is None else self.classes[of_class.label],
            "matched": None if self.unsplit else self.matched,
            "shift_and_rest_not_told_apart": self.unsplit,
            "domain": [level.as_json() for level in self.levels],
            "classes": [
                {"class": self.classes[path.label], **asdict(path)} for path in self.paths
            ],
            "thresholds": None if self.thresholds is None else self.thresholds.as_json(),
            "calibration": {
                name: None if found is None else found.as_json(self.classes)
                for name, found in (
                    ("validation_before", self.validation_before),
                    ("test_before", self.test_before),
                    ("test_after", self.test_after),
                )
            },
            "sentences": sentences(self),
        }
