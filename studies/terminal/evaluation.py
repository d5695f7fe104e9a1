"""The final test evaluation in words: on the screen, in the model card, and as a refusal.

Knows results as JSON, as the ledger keeps them; computes none. Never imports torch.
"""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.results import Opening
from studies.results.evaluation import (
    PRECISION_NOTE,
    Json,
    calibration_error_text,
    forecast_result,
    forecast_sentence,
    images_text,
    interval_text,
    opening_lines,
    predictive_sentence,
    shown_metrics,
    verdict_lines,
)
from transfer.config import TITLES


def _cell(metric: str, interval: Json) -> str:
    """For a table: per cent, but nats of a loss, and squared errors as they are."""
    scale, digits = {"loss": (1, 2), "brier": (1, 3)}.get(metric, (100, 1))
    if interval["value"] is None:
        return "-"
    scaled = {key: interval[key] * scale for key in ("value", "low", "high")}
    return interval_text(scaled, digits)


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
