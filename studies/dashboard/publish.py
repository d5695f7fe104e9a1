"""Keep what the dashboard shows of a study up to date: notes and figures, written while it runs.

Reads what is stored and writes what is missing or has changed, so that it may be done at any time
and by any process. Knows how optuna-dashboard stores notes and figures. Never imports torch.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError

from studies.dashboard.notes import confirm_note, controls_note, search_note, trial_note
from studies.dashboard.plots import PLOTS
from studies.database.beside import beside
from studies.database.storage import StudyStorage, load_study, study_names
from studies.database.trials import records_of
from studies.errors import UserError
from studies.results.choice import CONFIRM
from studies.results.controls import CONTROLS_STUDY
from studies.results.study import StoredStudy, read_evidence

# While a study runs: no more often, and with no larger share of its time.
SHORTEST_SECONDS, LARGEST_SHARE = 5.0, 0.02
# For another process that is at it, and may stand still: a study must not wait for its notes.
WAIT_SECONDS = 3.0
MOST_FAILURES = 3  # told; the rest is counted

# A line that Markdown does not show. With it a note is ours as long as nobody has edited it.
_MARK = "\n[//]: # (transfer-studies {})\n"
_MARKED = re.compile(r"(?s)(.*)\n\[//\]: # \(transfer-studies ([0-9a-f]{16})\)\n")
_NOTE, _VERSION = "dashboard:note_str:", "dashboard:note_ver"


class Publisher:
    """Publishes a study now and then while it runs, and when it ends.

    What can't be written is told once, and no reason to end a study.
    """

    def __init__(self, storage: StudyStorage, name: str, say: Callable[[str], None]) -> None:
        self._storage, self._name, self._say = storage, name, say
        self._due = perf_counter()
        self._said = ""

    def publish_if_due(self) -> None:
        """Publish unless that was done just now, or would take too much of the time."""
        if perf_counter() >= self._due:
            self.publish(wait_seconds=0)

    def publish(self, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """Publish what is stored by now."""
        started = perf_counter()
        try:
            failures = publish(self._storage, self._name, wait_seconds=wait_seconds)
        except Exception as error:
            failures = [f"{type(error).__name__}: {error}"]
        told = _told(failures)
        if told != self._said:
            self._say(told)
        self._said = told
        ended = perf_counter()
        self._due = ended + max(SHORTEST_SECONDS, (ended - started) / LARGEST_SHARE)


def publish_all(storage: StudyStorage, say: Callable[[str], None]) -> None:
    """Publish every study of this program in a database."""
    for name in study_names(storage):
        try:
            failures = publish(storage, name)
        except UserError:  # Of another program, or hardly begun.
            continue
        except Exception as error:
            failures = [f"{type(error).__name__}: {error}"]
        if failures:
            say(_told(failures))


def _told(failures: list[str]) -> str:
    if not failures:
        return ""
    more = len(failures) - MOST_FAILURES
    shown = [*failures[:MOST_FAILURES], *([f"{more} more"] if more > 0 else [])]
    return f"Notes and figures of the dashboard are not up to date: {'; '.join(shown)}"


def publish(storage: StudyStorage, name: str, *, wait_seconds: float = WAIT_SECONDS) -> list[str]:
    """Write notes and figures of ``name``, its repeats and its controls that are not there yet.

    Args:
        wait_seconds: for another process that is at it; then it is left to that one.

    Returns:
        What could not be made, and why: everything else is written.

    Raises:
        UserError: there is no such study, or it was not made by this program.
        StorageInternalError: the database can't be written.
    """
    try:
        with FileLock(storage.locks / "publish.lock", timeout=wait_seconds):
            return _publish(storage, name)
    except Timeout:
        return ["another process is at them"] if wait_seconds else []


def _publish(storage: StudyStorage, name: str) -> list[str]:
    evidence, failures = read_evidence(storage, name), _Failures()
    search = _Page(storage, load_study(storage, name))
    search.note_trials(evidence, "", failures)
    epochs = int(evidence.study.settings["epochs"])
    for key, draw in PLOTS.items():
        with failures.told(f"figure {key}"):
            figure = draw(evidence.trials, evidence.metric, epochs)
            if figure.data:
                search.plot(key, figure.to_json())
    with failures.told("note of the study"):
        search.note(search_note(evidence))
    confirm, controls = (
        beside(storage, name, purpose, evidence.study.search_id)
        for purpose in (CONFIRM, CONTROLS_STUDY)
    )
    if confirm is not None and evidence.confirmed is not None:
        page = _Page(storage, confirm)
        page.note_trials(evidence, CONFIRM, failures)
        with failures.told("note of the repeats"):
            page.note(confirm_note(evidence))
    if controls is not None:
        page = _Page(storage, controls)
        page.note_trials(evidence, CONTROLS_STUDY, failures)
        with failures.told("note of the controls"):
            page.note(controls_note(evidence))
    return failures


class _Failures(list[str]):
    """One thing that can't be made keeps no other from being written."""

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        try:
            yield
        except StorageInternalError:
            raise
        except Exception as error:
            self.append(f"{what}: {type(error).__name__}: {error}")


class _Page:
    """The pages of one Optuna study, as optuna-dashboard 0.21 reads them.

    Its own functions read all notes before they write one (80 ms for the thousandth trial), and
    cut a figure into pieces that are written one by one: who polls meanwhile gets half of it.
    Here each is one value, written at once.
    """

    def __init__(self, storage: StudyStorage, study: optuna.Study) -> None:
        self._storage, self._study = storage.database, study
        self._id = storage.database.get_study_id_from_name(study.study_name)
        self._stored = self._read()

    def _read(self) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(self._id)

    def note_trials(self, evidence: StoredStudy, purpose: str, failures: _Failures) -> None:
        """Write a note on every finished trial that has none."""
        depths = evidence.study.identity["space"]["depths"]
        for trial in self._study.get_trials(deepcopy=False):
            text, version = (
                f"dashboard:{trial._trial_id}:{what}" for what in ("note_str:0", "note_ver")
            )
            is_noted = version in self._stored and self._stored.get(text)
            if not trial.state.is_finished() or is_noted:
                continue
            with failures.told(f"note of trial {trial.number} of {self._study.study_name}"):
                note = trial_note(
                    records_of([trial])[0],
                    metric=evidence.metric,
                    num_val=evidence.num_images("val"),
                    depths=depths,
                    purpose=purpose,
                    subjects=None if evidence.subjects is None else evidence.subjects["val"],
                )
                self._write(text, note)
                if version not in self._stored:
                    self._write(version, 1)

    def note(self, text: str) -> None:
        """Write the study's note, unless a person has written or edited it.

        Its version stays: an editor that is open would have to discard what was typed into it.
        """
        body, stored = _marked(text), self._read()  # Anew: a person may have saved one meanwhile.
        pieces = {key: value for key, value in stored.items() if key.startswith(_NOTE)}
        current = "".join(pieces[f"{_NOTE}{number}"] for number in range(len(pieces)))
        if (current and not _is_ours(current)) or (current == body and _VERSION in stored):
            return
        for key in pieces:
            if key != f"{_NOTE}0" and pieces[key]:
                self._write(key, "")
        self._write(f"{_NOTE}0", body)
        if _VERSION not in stored:
            self._write(_VERSION, 1)

    def plot(self, key: str, figure_json: str) -> None:
        """Write a figure that has changed."""
        place = f"dashboard:plot_data:{key}:0"
        if self._stored.get(place) != figure_json:
            self._write(place, figure_json)

    def _write(self, key: str, value: str | int) -> None:
        self._storage.set_study_system_attr(self._id, key, value)


def _marked(text: str) -> str:
    return text + _MARK.format(_digest(text))


def _is_ours(body: str) -> bool:
    found = _MARKED.fullmatch(body)
    return found is not None and _digest(found[1]) == found[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
