"""What is printed of confirmed candidates. Knows values, not how they came about."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.results.choice import Candidate, Confirmed, Verdict, seed_remarks
from studies.results.controls import alarms, call_notes, control_rows
from studies.statistics.metrics import METRICS
from transfer.config import TITLES


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print the candidates over seeds, the choices marked, then the controls and alarms."""
    found = verdict.confirmed
    console.print(_table(found))
    for line in remarks(found):
        console.print(Text(line))
    for line in comparison_lines(verdict):
        console.print(Text(line))
    console.print(_controls(control_rows(verdict.controls), found.metric))
    for line in [
        *alarms(verdict.learned, TITLES),
        *call_notes(verdict.learned, TITLES),
    ]:
        console.print(Text(line))


def _controls(rows: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """What the strategies must beat."""
    table = Table(
        title=f"Controls: validation {metric}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    for column in ("control", "backbone", "weights"):
        table.add_column(column)
    table.add_column(metric, justify="right")
    sign = -1 if METRICS[metric].larger_is_better else 1
    for row in sorted(rows, key=lambda row: sign * float(row["val"][metric])):
        names = (row["control"], row["backbone"] or "", row["weights"] or "")
        table.add_row(*map(str, names), f"{row['val'][metric]:.4f}")
    return table


def _table(found: Confirmed) -> Table:
    seeds = ", ".join(map(str, found.seeds))
    title = f"Over seeds {seeds}: validation {found.metric}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("", "trial", "strategy", "backbone", "mean", "+-", "of each seed"):
        table.add_column(column, justify="left" if column in ("strategy", "backbone") else "right")
    chosen = {candidate.number for candidate in found.chosen.values()}
    for candidate in found.candidates:
        mark = "*" if candidate.number in chosen else ""
        table.add_row(mark, *_cells(candidate))
    return table


def _cells(candidate: Candidate) -> list[str]:
    error = candidate.standard_error
    return [
        str(candidate.number),
        TITLES[candidate.strategy],
        str(candidate.configuration["backbone"]),
        f"{candidate.mean:.4f}",
        "?" if error == float("inf") else f"{error:.4f}",
        " ".join(f"{value:.4f}" for value in candidate.values),
    ]


def remarks(found: Confirmed) -> list[str]:
    """What may be said of the choice, a sentence each."""
    if not found.candidates:
        return ["No training over seeds is complete."]
    by = found.chooser.replace("_", " ")
    how = f"best mean {by}"
    if found.how == "cheapest":
        how = f"cheapest within one standard error of the difference in {by}"
    lines = [f"* chosen within its strategy ({how}); +- is the standard error of the mean."]
    missing = set(TITLES) - set(found.chosen)
    if missing:
        names = ", ".join(TITLES[name] for name in sorted(missing))
        lines.append(f"Nothing is confirmed of {names}.")
    return [*lines, *seed_remarks(found, TITLES)]


def comparison_lines(verdict: Verdict) -> list[str]:
    """The two choices against each other on validation images, and what that is worth."""
    found = verdict.comparison
    if found is not None:
        return [f"{found.sentence} The test images decide."]
    if verdict.confirmed.resplit and len(verdict.confirmed.chosen) == len(TITLES):
        return ["Each seed had validation images of its own: the test images will compare."]
    return []


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """`confirm --json`."""
    return {
        **verdict.confirmed.as_json(),
        "controls": control_rows(verdict.controls),
        "difference": None if verdict.comparison is None else verdict.comparison.as_json(),
        "alarms": alarms(verdict.learned, TITLES),
        "notes": call_notes(verdict.learned, TITLES),
    }
