"""What is printed of confirmed candidates. Knows values, not how they came about."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.confirm import Candidate, Confirmed

SIGNS: Mapping[str, str] = {
    "feature_extraction": "feature extraction",
    "fine_tuning": "fine-tuning",
}


def print_confirmed(console: Console, found: Confirmed) -> None:
    """Print the candidates with the mean and the spread over seeds, the choices marked."""
    console.print(_table(found))
    for line in remarks(found):
        console.print(Text(line))


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
        SIGNS[candidate.strategy],
        str(candidate.configuration["backbone"]),
        f"{candidate.mean:.4f}",
        "?" if error == float("inf") else f"{error:.4f}",
        " ".join(f"{value:.4f}" for value in candidate.values),
    ]


def remarks(found: Confirmed) -> list[str]:
    """What may be said of the choice, a sentence each."""
    if not found.candidates:
        return ["No training over seeds is complete."]
    how = "best mean" if found.how == "best" else "cheapest within one standard error"
    lines = [f"* chosen within its strategy ({how}); +- is the standard error of the mean."]
    missing = set(SIGNS) - set(found.chosen)
    if missing:
        names = ", ".join(SIGNS[name] for name in sorted(missing))
        lines.append(f"Nothing is confirmed of {names}.")
    return lines


def confirmed_json(found: Confirmed) -> dict[str, Any]:
    """`confirm --json`."""
    return found.as_json()
