"""`status`: the studies in a database, or one study's trials. Reads; never creates or changes."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.data_check import allowed_lines
from studies.errors import UserError
from studies.results import StudyRecord, count_states, seal_sentence
from studies.results.study import Listed, list_studies
from studies.results.turns import share_json, share_lines, share_of
from studies.terminal.study import trial_json, trials_table
from transfer.data.decoding import RESIZED


def status_json(storage_text: str, name: str | None) -> dict[str, Any]:
    """`trials` of one study, or `studies` with their counts."""
    _, found = list_studies(storage_text, name)
    if name is None:
        return {"studies": [_overview(listed) for listed in found]}
    study, listed = _ours(found[0]), found[0]
    return {
        "study": name,
        "settings": study.settings,
        "data_check": study.data_check,
        "openings": [opening.as_json() for opening in listed.openings],
        "share": share_json(share_of(study.settings), listed.trials),
        "trials": [trial_json(record) for record in listed.trials],
    }


def print_status(console: Console, storage_text: str, name: str | None) -> None:
    """The same as tables."""
    place, found = list_studies(storage_text, name)
    if name is None:
        console.print(_overview_table(place, found))
        return
    study, listed = _ours(found[0]), found[0]
    records = listed.trials
    console.print(trials_table(records, str(study.settings["metric"])))
    for line in allowed_lines(study.data_check):
        console.print(line, markup=False)
    console.print(seal_sentence(listed.openings), markup=False)
    # Studies of older versions are shown as well, and knew no other way.
    resized = RESIZED[study.settings.get("resize", "squeeze")]
    console.print(f"Images of {study.settings['image_size']} px, {resized}.", markup=False)
    for line in share_lines(share_of(study.settings), records):
        console.print(line, markup=False)
    counts = ", ".join(f"{count} {state}" for state, count in count_states(records).items())
    console.print(f"{name}: {counts}; {study.trials} trials asked for.", markup=False)


def _ours(listed: Listed) -> StudyRecord:
    if listed.study is None:
        raise UserError(
            f"Study '{listed.name}' was not made by transfer-studies, or hardly begun."
        )
    return listed.study


def _overview(listed: Listed) -> dict[str, Any]:
    metric = str(listed.study.settings["metric"]) if listed.study else None
    return {"study": listed.name, "metric": metric, "trials": count_states(listed.trials)}


def _overview_table(place: str, found: Sequence[Listed]) -> Table:
    table = Table(title=Text(f"Studies in {place}"), title_justify="left")
    states = ("complete", "pruned", "fail", "running")
    for column in ("study", "metric", *states):
        table.add_column(column, justify="left" if column in ("study", "metric") else "right")
    for listed in found:
        row = _overview(listed)
        counts = (str(row["trials"][state]) for state in states)
        table.add_row(listed.name, str(row["metric"]), *counts)
    return table
