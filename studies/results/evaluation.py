"""The final test evaluation in words. Knows results as JSON, as the ledger keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any

from studies.database.ledger import Opening
from studies.statistics.clusters import images_words
from transfer.config import TITLES
from transfer.messages import printable

Json = Mapping[str, Any]


PRECISION_NOTE = (
    "Precision holds where classes are as frequent as in these images; where a class is rarer, as "
    "in most clinics, fewer of the images that are called so are."
)


def forecast_sentence(metric: str, predicted: Json) -> str:
    """The forecast, and how it comes about."""
    sign = 1 if metric == "loss" else -1
    # Nothing taken off is +0, not -0.
    epochs, trials = (sign * predicted[f"{w}_optimism"] + 0.0 for w in ("epoch", "trial"))
    count = predicted["num_trials"]
    return (
        f"Forecast: {metric} {interval_text(predicted)} on {predicted['num_test']} test images "
        f"like the validation images ({predicted['naive']:.4f} over seeds there, {epochs:+.4f} "
        f"for the choice of epochs, {trials:+.4f} for that of the best of {count} "
        f"trial{'' if count == 1 else 's'})."
    )


def images_text(result: Json) -> str:
    """How many test images, and whose: groups are drawn whole where they are known."""
    return images_words(result["n"], result.get("subjects"), "test images")


def interval_text(interval: Json, digits: int = 4) -> str:
    """``value [low, high]``, or a dash where it is not defined."""
    if interval["value"] is None:
        return "-"
    value, low, high = (f"{interval[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def refusal(name: str, before: Sequence[Opening]) -> str:
    """Why a test set is not opened again, and the way out."""
    last = before[-1]
    times = "once" if len(before) == 1 else f"{len(before)} times"
    return (
        f"The test images of study '{name}' were opened {times} already, last on "
        f"{last.opened:%Y-%m-%d %H:%M} UTC {_what_came(last)}. A test set that is looked at "
        "twice is a validation set. To open it again all the same, counted for ever: --again "
        '--reason "..."'
    )


def overlap(name: str, others: Mapping[str, int], num_images: int) -> str:
    """Why images are not opened again in another test set, and the way out."""
    told = ", ".join(f"{count} with study '{study}'" for study, count in others.items())
    return (
        f"Of the {num_images} test images of study '{name}' some were opened before, in another "
        f"test set: {told}. To open them again all the same, counted for ever: --again "
        '--reason "..."'
    )


def _what_came(opening: Opening) -> str:
    bundle = f"with model {opening.bundle[:12]}"
    if opening.result is None:
        return f"{bundle}, without an end"
    metric = opening.result["metric"]
    return f"{bundle} ({metric} {interval_text(opening.result['metrics'][metric])})"


def shown_metrics(metrics: Json) -> Json:
    """Those with an interval: older results hold one of ``ece``, which never held the truth."""
    return {name: interval for name, interval in metrics.items() if name != "ece"}


def calibration_error_text(error: Json) -> str:
    """By how much the error exceeds that of a calibrated model on so many images."""
    p = error["p"]
    chance = "beyond that of independent images" if p is None else f"p = {p:.2g}"
    return f"{error['excess']:+.3f} ({chance})"


def predictive_sentence(result: Json) -> str | None:
    """How often calls are right at the prevalence that was asked for; None where none was."""
    found = result["at_threshold"].get("predictive_values")
    if found is None:
        return None
    of_each = "; ".join(
        f"of what the bundle calls {name} {_right(value)}"
        for name, value in found["values"].items()
    )
    return f"Where {found['prevalence']:.3g} of all images are {found['of']}: {of_each}."


def _right(value: Json) -> str:
    if value["value"] is None:
        return "nothing is known"
    low, high = (f"{100 * value[bound]:.1f}" for bound in ("low", "high"))
    return f"{value['value']:.1%} are [{low}, {high}]"


def forecast_held(predicted: Json, result: Json) -> bool | None:
    """Whether the result lies in its forecast; None where the metric is not defined.

    Both are before calibration, as validation is.
    """
    value = result["as_forecast"]["value"]
    return None if value is None else bool(predicted["low"] <= value <= predicted["high"])


def forecast_result(predicted: Json, result: Json) -> str:
    """Whether the forecast held, in words."""
    metric, held = result["metric"], forecast_held(predicted, result)
    if held is None:
        return f"The forecast can't be held against it: {metric} is not defined on these images."
    found = result["as_forecast"]
    same = found["value"] == result["metrics"][metric]["value"]
    told = f"The test {metric}" + ("" if same else f" before calibration, {found['value']:.4f},")
    if held:
        return f"{told} lies within the forecast."
    return (
        f"{told} lies outside the forecast: by a chance of 1 in 20, or because these images are "
        "not like those of training and validation."
    )


def verdict_lines(result: Json) -> list[str]:
    """The difference of the strategies, and trainings that are missing in it."""
    found = result["difference"]
    if found is None:
        missing = set(TITLES) - set(result["by_strategy"])
        if missing:
            return [f"No difference: nothing is confirmed of {TITLES[min(missing)]}."]
        return [f"No difference: {result['metric']} is not defined on these images."]
    failed = [
        f"{each['num_failed']} training(s) of {TITLES[name]} over seeds failed."
        for name, each in result["by_strategy"].items()
        if each["num_failed"]
    ]
    return [
        f"{found['sentence']} Difference {interval_text(found)}, p = {found['p']:.3g}.",
        *failed,
    ]


def opening_lines(every: Sequence[Opening]) -> list[str]:
    """All openings of the test set, if there is more than one."""
    if len(every) == 1:
        return ["The test images were opened once. A second time is refused, or counted for ever."]
    lines = [f"The test images were opened {len(every)} times: all but the first are validation."]
    for opening in every:
        reason = f", because: {printable(opening.reason)}" if opening.reason else ""
        when = f"{opening.opened:%Y-%m-%d %H:%M} UTC"
        lines.append(f"  {opening.number}. {when} {_what_came(opening)}{reason}")
    return lines
