"""An explanation in plain words, which follow from its numbers. Computes nothing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from studies.statistics.intervals import Interval

if TYPE_CHECKING:
    from studies.explanation.explanation import Explanation, Level
    from studies.explanation.thresholds import Thresholds
    from studies.explanation.waterfall import ClassPath

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
