"""An explanation of a test result as a value: steps that add up, where they are, what to do.

Knows numbers; how they come about is `points_lost`'s to know, what they mean `explanation_words`'.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from studies.explanation_words import REMEDIES, sentences
from studies.forecast import Forecast
from studies.statistics import Interval
from studies.thresholds import Thresholds
from studies.waterfall import ClassPath

Cause = Literal["optimism", "class_prior", "shift", "rest", "calibration"]
ALL = "all"


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
    test images. None where there are too few images.
    """

    images: str
    test: Interval | None
    reference: Interval | None

    @property
    def is_all(self) -> bool:
        return self.images == ALL

    @property
    def is_told_apart(self) -> bool:
        """Better than by chance, and than validation images are told from training images."""
        if self.test is None:
            return False
        return self.test.low > max(0.5, self.reference.value if self.reference else 0.5)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_told_apart": self.is_told_apart}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Part A for one strategy: ``forecast.naive`` and all ``steps`` add up to ``test``.

    ``levels`` are of all images, then of each class; ``paths`` of each class that both sets have.
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
    ece_validation: Interval
    ece_test: Interval

    @property
    def leading(self) -> Step | None:
        """The step that lost most, of those whose interval leaves 0."""
        shown = [step for step in self.steps if step.is_loss and step.is_shown]
        return max(shown, key=lambda step: abs(step.change.value), default=None)

    @property
    def leading_class(self) -> ClassPath | None:
        """The class in which shift lost most images' worth of recall, if its interval shows it."""
        lost = [path for path in self.paths if path.shift.high < 0]
        return min(lost, key=lambda path: path.share * path.shift.value, default=None)

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
            "matched": self.matched,
            "domain": [level.as_json() for level in self.levels],
            "classes": [
                {"class": self.classes[path.label], **asdict(path)} for path in self.paths
            ],
            "thresholds": None if self.thresholds is None else self.thresholds.as_json(),
            "ece": {
                "validation": asdict(self.ece_validation),
                "test": asdict(self.ece_test),
            },
            "sentences": sentences(self),
        }
