"""The final test evaluation in words: on the screen, in the model card, and as a refusal.

Knows results as JSON, as the ledger keeps them; computes none. Never imports torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.bundle.config import MODEL, BundleConfig
from studies.database.ledger import Opening
from studies.document.markdown import escaped
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


def _cell(metric: str, interval: Json) -> str:
    """For a table: per cent, but nats of a loss, and squared errors as they are."""
    scale, digits = {"loss": (1, 2), "brier": (1, 3)}.get(metric, (100, 1))
    if interval["value"] is None:
        return "-"
    scaled = {key: interval[key] * scale for key in ("value", "low", "high")}
    return interval_text(scaled, digits)


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


def print_evaluation(console: Console, opening: Opening, every: Sequence[Opening]) -> None:
    """Print metrics, strategies, controls, the difference and the openings."""
    result = opening.result
    assert result is not None
    metric = result["metric"]
    _print(console, forecast_sentence(metric, opening.predicted))
    console.print(_metrics_table(result))
    _print(console, PRECISION_NOTE)
    if "calibration" in result:
        console.print(_calibration_table(result["calibration"]))
    console.print(_confusion_table(result["confusion"], list(result["counts"])))
    _print(console, forecast_result(opening.predicted, result))
    if result["at_threshold"]["threshold"] is not None:
        _print(console, _threshold_sentence(result))
    predictive = predictive_sentence(result)
    if predictive is not None:
        _print(console, predictive)
    console.print(_controls_table(result))
    for line in [*verdict_lines(result), *opening_lines(every)]:
        _print(console, line)


def _print(console: Console, line: str) -> None:
    console.print(Text(line))


def _metrics_table(result: Json) -> Table:
    table = Table(
        title=f"{images_text(result)}: per cent (loss: nats, brier: 0 to 1), 95 % intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    table.add_column("metric", overflow="fold")
    table.add_column("bundle")
    strategies = list(result["by_strategy"])
    for name in strategies:
        seeds = len(result["by_strategy"][name]["seeds"])
        table.add_column(f"{TITLES[name]}, {seeds} seed{'s' if seeds > 1 else ''}")
    for metric, interval in shown_metrics(result["metrics"]).items():
        others = [result["by_strategy"][name]["metrics"][metric] for name in strategies]
        table.add_row(Text(metric), *(_cell(metric, found) for found in (interval, *others)))
    return table


def shown_metrics(metrics: Json) -> Json:
    """Those with an interval: older results hold one of ``ece``, which never held the truth."""
    return {name: interval for name, interval in metrics.items() if name != "ece"}


def _calibration_table(found: Json) -> Table:
    table = Table(
        title="Bundle: can its probabilities be trusted? Slope 1 and intercept 0 are right",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    table.add_column("", overflow="fold")
    table.add_column("before calibration")
    table.add_column("after")
    columns = [calibration_cells(found[when]) for when in ("before", "after")]
    for name in columns[0]:
        table.add_row(Text(name), *(column[name] for column in columns))
    return table


def calibration_cells(found: Json) -> dict[str, str]:
    """What is told of calibration, by its name: numbers with intervals, a dash for none."""
    cells = {"slope": _or_dash(found["slope"])}
    for name, interval in (found["intercepts"] or {"": None}).items():
        cells[f"intercept of {name}" if name else "intercept"] = _or_dash(interval)
    cells |= {"log loss, nats": _or_dash(found["loss"]), "Brier score": _or_dash(found["brier"])}
    if "ece" in found:
        cells["calibration error beyond chance"] = calibration_error_text(found["ece"])
    return cells


def calibration_error_text(error: Json) -> str:
    """By how much the error exceeds that of a calibrated model on so many images."""
    p = error["p"]
    chance = "beyond that of independent images" if p is None else f"p = {p:.2g}"
    return f"{error['excess']:+.3f} ({chance})"


def _or_dash(interval: Json | None) -> str:
    return "-" if interval is None else interval_text(interval, 3)


def _confusion_table(confusion: Json, classes: Sequence[str]) -> Table:
    table = Table(
        title="Bundle: images of each class (rows), called (columns)",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    table.add_column("", overflow="fold")
    for name in classes:
        table.add_column(Text(name), justify="right", overflow="fold")
    for name, counts in zip(classes, confusion["counts"], strict=True):
        table.add_row(Text(name), *map(str, counts))
    return table


def _controls_table(result: Json) -> Table:
    metric = result["metric"]
    table = Table(
        title=f"Controls: test {metric}"
        + (" before calibration" if metric == "loss" else ", per cent"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    for column in ("control", "backbone", "weights", metric):
        table.add_column(column)
    for row in sorted(result["controls"], key=lambda row: _rank(metric, row)):
        names = [row[key] or "" for key in ("control", "backbone", "weights")]
        table.add_row(*names, _cell(metric, row["metrics"][metric]))
    return table


def _rank(metric: str, row: Json) -> tuple[bool, float]:
    """The better first; what is not defined last."""
    value = row["metrics"][metric]["value"]
    return value is None, 0.0 if value is None else (value if metric == "loss" else -value)


def _threshold_sentence(result: Json) -> str:
    found = result["at_threshold"]
    accuracies = interval_text(found["metrics"]["accuracy"])
    balanced = interval_text(found["metrics"]["balanced_accuracy"])
    positive = list(result["counts"])[1]
    return (
        f"Called {positive} from {found['threshold']:.4g} on, as the bundle does: accuracy "
        f"{accuracies}, balanced accuracy {balanced}."
    )


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


def card_paragraphs(every: Sequence[Opening], bundle: BundleConfig) -> list[str]:
    """The section "Test" of a bundle's card, given all openings; empty where there is none."""
    mine = [o for o in every if o.bundle == bundle.files[MODEL] and o.is_finished]
    if not mine:
        lines = [*_not_this_one(every, bundle), *opening_lines(every)] if every else []
        return [escaped(line.strip()) for line in lines]
    opening = mine[-1]
    result = opening.result
    assert result is not None
    rows = [
        f"| {escaped(name)} | {escaped(interval_text(interval))} |"
        for name, interval in shown_metrics(result["metrics"]).items()
    ]
    lines = [
        forecast_sentence(result["metric"], opening.predicted),
        f"Opened on {opening.opened:%Y-%m-%d %H:%M} UTC: {images_text(result)}, 95 % intervals.",
    ]
    table = "| metric | this model |\n|---|---|\n" + "\n".join(rows)
    behind = [
        PRECISION_NOTE,
        forecast_result(opening.predicted, result),
        *verdict_lines(result),
        *opening_lines(every),
    ]
    return [*map(escaped, lines), table, *(escaped(line.strip()) for line in behind)]


def _not_this_one(every: Sequence[Opening], bundle: BundleConfig) -> list[str]:
    """What is known where this model itself has no result."""
    strategy, origin = str(bundle.config.strategy), bundle.study
    for opening in reversed(every):
        found = (opening.result or {}).get("by_strategy", {}).get(strategy)
        is_mine = opening.is_of(origin.name, origin.search_id)
        if is_mine and found and found["trial"] == origin.trial:
            metric = (opening.result or {})["metric"]
            told = interval_text(found["metrics"][metric])
            return [
                "This model was not evaluated by itself. The mean over the seeds of its "
                f"configuration was, on {opening.opened:%Y-%m-%d}: {metric} {told}."
            ]
    if not any(opening.is_finished for opening in every):
        return ["An evaluation on the test images was begun and has no result."]
    return ["This model was not evaluated on the test images, but others were."]
