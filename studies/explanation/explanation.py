"""An explanation of a test result as a value, and in plain words that follow from its numbers.

Steps that add up, where they are, what to do. Knows numbers; how they come about is `explain`'s to
know. Computes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from scipy.stats import norm

from studies.explanation.shift import ClassPath
from studies.explanation.thresholds import Thresholds
from studies.statistics.calibration import Recalibration
from studies.statistics.forecast import Forecast
from studies.statistics.intervals import Interval
from studies.statistics.paired import holm

if TYPE_CHECKING:
    from studies.explanation.shift import ClassPath
    from studies.explanation.thresholds import Thresholds

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


REMEDIES: Mapping[str, str] = {
    "optimism": (
        "Choose on more validation images, or among fewer trials and epochs; expect the forecast, "
        "not the validation value."
    ),
    "class_prior": (
        "Take training and validation images in the class shares of use, or choose by a metric "
        "in which every class counts the same (--metric balanced_accuracy --choose-by metric)."
    ),
    "shift": (
        "Label images of use, which are like the test images, and put them into training and "
        "validation, of the class named first: of what was tried against a shift, that helped "
        "most. Look at them for another device, cutting, exposure or wrong labels."
    ),
    "rest": (
        "Compare how both sets were labelled. Where the interval is wide, more test images "
        "say more."
    ),
    "calibration": "Calibrate on labelled images of use.",
    "threshold": "Find the threshold on labelled images of use, never on the test images.",
}
NAMES: Mapping[str, str] = {
    "optimism": "optimism (epochs and configuration were chosen on the validation images)",
    "class_prior": "the class prior (other shares of the classes)",
    "shift": "shift (images of another kind)",
    "rest": "the rest (images of the same kind that came out otherwise)",
    "calibration": "calibration (found on the validation images)",
}
FEW = 0.05


def sentences(found: "Explanation") -> list[str]:
    """What was lost, the leading cause and where it is, domains, threshold, remedy."""
    told = [_summary(found), _leading(found)]
    if found.leading_class is not None:
        told.append(_of_class(found, found.leading_class))
    told += [_level(level) for level in found.levels if level.test is not None]
    few = [level.images for level in found.levels if level.test is None and level.by_subject]
    if few:
        told.append(
            f"Too few subjects (fewer than 5 in a set) to tell test from validation images: "
            f"{', '.join(few)}."
        )
    if found.thresholds is not None:
        told += _threshold(found.thresholds)
    if found.leading is not None and found.leading.cause == "rest" and found.unsplit:
        told.append(
            f"What helps: more images of {', '.join(found.unsplit)}, of other subjects, in "
            f"validation and test, so that the two can be told apart. {REMEDIES['shift']}"
        )
    elif found.leading is not None:
        told.append(f"What helps: {found.leading.remedy}")
    return told


def _summary(found: "Explanation") -> str:
    seeds = f"mean over {found.num_seeds} seed{'s' if found.num_seeds > 1 else ''}"
    change = found.test - found.forecast.naive
    better = change > 0 if found.metric != "loss" else change < 0
    values = (found.forecast.naive, found.forecast.value, found.test)
    validation, forecast, test = (_value(found.metric, value) for value in values)
    return (
        f"{found.metric}, {seeds}: {validation} on validation images, {forecast} forecast, {test} "
        f"on test images: {_points(found.metric, abs(change))} {'gained' if better else 'lost'}."
    )


def _leading(found: "Explanation") -> str:
    leading = found.leading
    if leading is None:
        return "No cause is shown: of every step that lost, the interval holds 0."
    name = NAMES[leading.cause]
    if leading.cause == "rest" and found.unsplit:
        name = (
            f"shift and the rest together (of {', '.join(found.unsplit)} there is too little to "
            "tell images of another kind from those that came out otherwise)"
        )
    change, whole = leading.change.value, found.test - found.forecast.naive
    lost = _change(found.metric, leading.change)
    # A part of the whole only where both are losses and the whole is the larger one.
    if change * whole <= 0 or abs(change) > abs(whole):
        return f"The step that loses most is {name}: {lost}."
    return f"Most is lost to {name}: {lost} of {_points(found.metric, abs(whole))}."


def _of_class(found: "Explanation", path: "ClassPath") -> str:
    name = found.classes[path.label]
    text = (
        f"Shift costs most in {name}: recall {path.validation:.3f} on validation, {path.test:.3f} "
        f"on test images, by shift {_change('recall', path.shift)}."
    )
    if path.matched is not None and path.matched < FEW:
        return (
            f"{text} Almost no test image of {name} has its like among the validation images, so "
            "that nothing tells shift from rest there: all of it counts as shift."
        )
    if path.matched is None or path.matched_test is None or path.unmatched_test is None:
        return text
    return (
        f"{text} {100 * path.matched:.0f} % of it have their like among the validation images: "
        f"recall {path.matched_test:.3f} there, {path.unmatched_test:.3f} on the others."
    )


def _level(level: "Level") -> str:
    where = "Over all images" if level.is_all else f"Within {level.images}"
    verdict = "can be told from" if level.is_told_apart else "are not shown to differ from"
    reference = level.reference
    known = "unknown" if reference is None else f"{_auroc(reference)}{_p(level.reference_p)}"
    assert level.test is not None
    return (
        f"{where}, test images {verdict} validation images: AUROC {_auroc(level.test)} of a "
        f"domain classifier{_p(level.p, level.adjusted_p)}, validation from training images "
        f"{known}."
    )


def _p(value: float | None, adjusted: float | None = None) -> str:
    if value is None:
        return ""
    holm = "" if adjusted in (None, value) else f", by Holm's method {adjusted:.3g}"
    return f" (permutation p = {value:.3g}{holm})"


def _threshold(found: "Thresholds") -> list[str]:
    change, best = found.change, found.at_best
    effect = "helps" if change.low > 0 else "harms" if change.high < 0 else "changes nothing shown"
    return [
        f"The validation images' threshold {effect}: {_change(found.metric, change)} of "
        f"{found.metric} on test images.",
        f"The best threshold on these test images would have given {found.metric} "
        f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}]. It is not attainable: nobody knows "
        "it before the labels.",
    ]


def _auroc(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _value(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric == "loss" else f"{100 * value:.1f} %"


def _points(metric: str, value: float) -> str:
    return f"{value:.3f} nats" if metric == "loss" else f"{100 * value:.1f} points"


def _change(metric: str, change: Interval) -> str:
    scale, digits, unit = (1, 3, "nats") if metric == "loss" else (100, 1, "points")
    low, high = (f"{scale * bound:+.{digits}f}" for bound in (change.low, change.high))
    return f"{scale * change.value:+.{digits}f} {unit} [{low}, {high}]"
