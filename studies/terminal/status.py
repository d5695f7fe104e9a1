"""`status`: the studies in a database, or one study's trials. Reads; never creates or changes."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.data_check import allowed_lines
from studies.database.ledger import Opening, openings, seal_sentence
from studies.database.storage import StudyStorage, load_study, open_existing, study_names
from studies.database.study import StudyRecord, read_study
from studies.database.trials import TrialRecord, count_states, read_trials
from studies.errors import UserError
from studies.results.turns import share_json, share_lines, share_of
from studies.terminal.study import trial_json, trials_table
from transfer.data.decoding import RESIZED


def status_json(storage_text: str, name: str | None) -> dict[str, Any]:
    """`trials` of one study, or `studies` with their counts."""
    storage = open_existing(storage_text)
    if name is not None:
        study, records = _read(storage, name)
        return {
            "study": name,
            "settings": study.settings,
            "data_check": study.data_check,
            "openings": [opening.as_json() for opening in _openings(storage, study)],
            "share": share_json(share_of(study.settings), records),
            "trials": [trial_json(record) for record in records],
        }
    return {"studies": [_overview(storage, study) for study in study_names(storage)]}


def print_status(console: Console, storage_text: str, name: str | None) -> None:
    """The same as tables."""
    storage = open_existing(storage_text)
    if name is None:
        console.print(_overview_table(storage))
        return
    study, records = _read(storage, name)
    console.print(trials_table(records, str(study.settings["metric"])))
    for line in allowed_lines(study.data_check):
        console.print(line, markup=False)
    console.print(seal_sentence(_openings(storage, study)), markup=False)
    # Studies of older versions are shown as well, and knew no other way.
    resized = RESIZED[study.settings.get("resize", "squeeze")]
    console.print(f"Images of {study.settings['image_size']} px, {resized}.", markup=False)
    for line in share_lines(share_of(study.settings), records):
        console.print(line, markup=False)
    counts = ", ".join(f"{count} {state}" for state, count in count_states(records).items())
    console.print(f"{name}: {counts}; {study.trials} trials asked for.", markup=False)


def _read(storage: StudyStorage, name: str) -> tuple[StudyRecord, list[TrialRecord]]:
    study = load_study(storage, name)
    record = read_study(study, allow_older=True)
    if record is None:
        raise UserError(f"Study '{name}' was not made by transfer-studies, or hardly begun.")
    return record, read_trials(study)


def _openings(storage: StudyStorage, study: StudyRecord) -> list[Opening]:
    return openings(storage, study.identity["data"]["test_fingerprint"])


def _overview(storage: StudyStorage, name: str) -> dict[str, Any]:
    study = load_study(storage, name)
    record = read_study(study, allow_older=True)
    metric = str(record.settings["metric"]) if record else None
    return {"study": name, "metric": metric, "trials": count_states(read_trials(study))}


def _overview_table(storage: StudyStorage) -> Table:
    table = Table(title=Text(f"Studies in {storage.shown_url}"), title_justify="left")
    states = ("complete", "pruned", "fail", "running")
    for column in ("study", "metric", *states):
        table.add_column(column, justify="left" if column in ("study", "metric") else "right")
    for name in study_names(storage):
        row = _overview(storage, name)
        counts = (str(row["trials"][state]) for state in states)
        table.add_row(name, str(row["metric"]), *counts)
    return table
