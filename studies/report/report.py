"""Write a study's report: one HTML file, the same as Markdown, tables as CSV, figures.

Knows the order of sections and where files go. Never imports torch.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from studies.document.blocks import Cell, Drawing, Report, Table, words
from studies.document.drawing import save
from studies.document.html import to_html
from studies.document.markdown import to_markdown
from studies.document.numbers import TASKS
from studies.errors import UserError
from studies.report.appendix import appendix
from studies.report.head import head
from studies.report.task_a import task_a
from studies.report.task_b_c import task_of
from studies.report.task_d import task_d
from studies.report.task_e import task_e
from studies.results.study import StoredStudy, open_study
from transfer.cache import written_whole

HTML, MARKDOWN, TABLES, FIGURES = "report.html", "report.md", "tables", "figures"


@dataclass(frozen=True, kw_only=True)
class Written:
    """Where the report is, and what it says in one sentence."""

    study: str
    folder: Path
    verdict: str

    def as_json(self) -> dict[str, Any]:
        """`report --json`."""
        return {
            "study": self.study,
            "html": str(self.folder / HTML),
            "markdown": str(self.folder / MARKDOWN),
            "tables": str(self.folder / TABLES),
            "verdict": self.verdict,
        }

    def lines(self) -> list[str]:
        """In words."""
        return [
            self.verdict,
            f"Report: {self.folder / HTML} ({MARKDOWN}, {TABLES}/, {FIGURES}/ beside it)",
        ]


def report_study(
    name: str | None, storage: str, *, out: Path | None = None, figures: Path | None = None
) -> Written:
    """Write the report of a study; without a name of the only or the latest one.

    Args:
        out: the folder, ``reports/NAME`` if left out.
        figures: a folder for the figures as PNG and SVG.

    Raises:
        UserError: there is no such study, or a folder can't be written.
    """
    return write_report(open_study(name, storage), out=out, figures=figures)


def write_report(
    study: StoredStudy, *, out: Path | None = None, figures: Path | None = None
) -> Written:
    """As `report_study`, of a study that was read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    report = make_report(study)
    folder = out or Path("reports") / study.name
    _written(folder / HTML, to_html(report))
    _written(folder / MARKDOWN, to_markdown(report, FIGURES))
    for table in report.tables:
        _written(folder / TABLES / f"{table.name}.csv", csv_text(table))
    for drawing in report.drawings:
        _written(folder / FIGURES / f"{drawing.name}.svg", drawing.svg)
        if figures is not None:
            _saved(figures, drawing)
    return Written(study=study.name, folder=folder, verdict=verdict_text(report))


def make_report(evidence: StoredStudy) -> Report:
    """All sections."""
    settings = evidence.study.settings
    return Report(
        title=f"Transfer learning on {evidence.name}: fine-tuning or feature extraction?",
        facts=[
            ("study", evidence.name),
            ("data", str(evidence.study.identity["data"]["source"])),
            (
                "images",
                f"{evidence.num_images('train'):,} + {evidence.num_images('val'):,} + "
                f"{evidence.num_images('test'):,} (train, validation, test)",
            ),
            ("metric", evidence.metric),
            ("seed", str(settings["seed"])),
        ],
        sections=[
            *head(evidence),
            task_a(evidence),
            *(task_of(evidence, strategy) for strategy in TASKS),
            task_d(evidence),
            *task_e(evidence),
            appendix(evidence),
        ],
        footer="For research, not for diagnosis. Every number comes from the study's database, "
        "its artifacts and the ledger of test openings.",
    )


def verdict_text(report: Report) -> str:
    """The verdict as plain text."""
    for section in report.sections:
        for block in section.blocks:
            if getattr(block, "kind", "") == "verdict":
                return "".join(cell.text for cell in words(block.content))  # type: ignore[union-attr]
    raise AssertionError("a report has a verdict")


def csv_text(table: Table) -> str:
    """A table as CSV; intervals take three columns, numbers are not rounded."""
    rows = [[words(given) for given in row] for row in table.rows]
    wide = [any(cell.bounds for row in rows for cell in row[i]) for i in range(len(table.columns))]
    header: list[str] = []
    for column, has_bounds in zip(table.columns, wide, strict=True):
        header += [column, f"{column} low", f"{column} high"] if has_bounds else [column]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        out: list[object] = []
        for cells, has_bounds in zip(row, wide, strict=True):
            out.append(_value(cells))
            if has_bounds:
                out += cells[0].bounds or ("", "")
        writer.writerow(out)
    return buffer.getvalue()


def _value(cells: Sequence[Cell]) -> object:
    if len(cells) == 1 and isinstance(cells[0].key, int | float):
        return cells[0].key
    return _harmless("".join(cell.text for cell in cells))


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    may_be_formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and text != "-"
    return f"'{text}" if may_be_formula else text


def _saved(folder: Path, drawing: Drawing) -> None:
    try:
        save(
            drawing.figure,
            folder,
            drawing.name,
            title=drawing.caption,
            description=drawing.description,
        )
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror or error}).") from None


def _written(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror or error}).") from None
