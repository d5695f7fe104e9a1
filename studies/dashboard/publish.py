"""Keep what the dashboard shows of a study up to date: notes and figures, written while it runs.

Reads what is stored and writes what is missing or has changed, so that it may be done at any time
and by any process. Knows how optuna-dashboard stores notes and figures. Never imports torch.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import optuna
from filelock import FileLock, Timeout

from studies.confirm import CONFIRM, confirm_progress
from studies.control_rows import CONTROLS_STUDY
from studies.dashboard.plots import plots
from studies.dashboard.study_notes import confirm_note, controls_note, search_note
from studies.dashboard.trial_notes import trial_note
from studies.errors import UserError
from studies.records import read_trials, records_of
from studies.report.evidence import Evidence, read_evidence
from studies.storage import StudyStorage, beside, load_study, study_names

# While a study runs: no more often, and with no larger share of its time.
SHORTEST_SECONDS, LARGEST_SHARE = 5.0, 0.02

# A line that Markdown does not show. With it a note is ours as long as nobody has edited it.
_MARK = "\n[//]: # (transfer-studies {})\n"
_MARKED = re.compile(r"(?s)(.*)\n\[//\]: # \(transfer-studies ([0-9a-f]{16})\)\n")


class Publisher:
    """Publishes a study now and then while it runs, and when it ends."""

    def __init__(self, storage: StudyStorage, name: str, say: Callable[[str], None]) -> None:
        self._storage, self._name, self._say = storage, name, say
        self._due = perf_counter()
        self._said = ""

    def publish_if_due(self) -> None:
        """Publish unless that was done just now, or would take too much of the time."""
        if perf_counter() >= self._due:
            self.publish(wait=False)

    def publish(self, *, wait: bool = True) -> None:
        """Publish what is stored by now. A failure is told, and no reason to end a study."""
        started = perf_counter()
        try:
            publish(self._storage, self._name, wait=wait)
        except Exception as error:
            told = _failure(error)
            if told != self._said:
                self._say(told)
            self._said = told
        ended = perf_counter()
        self._due = ended + max(SHORTEST_SECONDS, (ended - started) / LARGEST_SHARE)


def publish(storage: StudyStorage, name: str, *, wait: bool = True) -> None:
    """Write notes and figures of ``name``, its repeats and its controls that are not there yet.

    Args:
        wait: for another process that is at it; or else leave it to that one.

    Raises:
        UserError: there is no such study, or it was not made by this program.
    """
    try:
        with FileLock(storage.locks / "publish.lock", timeout=-1 if wait else 0):
            _publish(storage, name)
    except Timeout:
        return


def publish_all(storage: StudyStorage, say: Callable[[str], None]) -> None:
    """The same for every study of this program in a database. A failure is told."""
    for name in study_names(storage):
        try:
            publish(storage, name)
        except UserError:  # Of another program, or hardly begun.
            continue
        except Exception as error:
            say(_failure(error))


def _failure(error: Exception) -> str:
    return f"Notes and figures of the dashboard are not up to date: {error}"


def _publish(storage: StudyStorage, name: str) -> None:
    evidence = read_evidence(storage, name)
    search = _Page(storage, load_study(storage, name))
    search.note_trials(evidence, "")
    search.note(search_note(evidence))
    epochs = int(evidence.study.settings["epochs"])
    for key, figure in plots(evidence.trials, evidence.metric, epochs).items():
        search.plot(key, figure.to_json())
    confirm, controls = (beside(storage, name, purpose) for purpose in (CONFIRM, CONTROLS_STUDY))
    if confirm is not None and evidence.confirmed is not None:
        page = _Page(storage, confirm)
        page.note_trials(evidence, CONFIRM)
        page.note(confirm_note(evidence, *confirm_progress(confirm, read_trials(confirm))))
    if controls is not None:
        page = _Page(storage, controls)
        page.note_trials(evidence, CONTROLS_STUDY)
        page.note(controls_note(evidence))


class _Page:
    """The pages of one Optuna study, as optuna-dashboard 0.21 reads them.

    Its own functions read all notes before they write one (80 ms for the thousandth trial), and
    cut a figure into pieces that are written one by one: who polls meanwhile gets half of it.
    Here each is one value, written at once.
    """

    def __init__(self, storage: StudyStorage, study: optuna.Study) -> None:
        self._storage, self._study = storage.database, study
        self._id = storage.database.get_study_id_from_name(study.study_name)
        self._stored: Mapping[str, Any] = storage.database.get_study_system_attrs(self._id)

    def note_trials(self, evidence: Evidence, purpose: str) -> None:
        """Write a note on every finished trial that has none."""
        depths = evidence.study.identity["space"]["depths"]
        for trial in self._study.get_trials(deepcopy=False):
            prefix = f"dashboard:{trial._trial_id}:note_"
            if not trial.state.is_finished() or f"{prefix}ver" in self._stored:
                continue
            text = trial_note(
                records_of([trial])[0],
                metric=evidence.metric,
                num_val=evidence.num_images("val"),
                depths=depths,
                purpose=purpose,
            )
            self._write(f"{prefix}str:0", text)
            self._write(f"{prefix}ver", 1)

    def note(self, text: str) -> None:
        """Write the study's note, unless a person has written or edited it."""
        body = _marked(text)
        stored = self._joined("dashboard:note_str:")
        if stored == body or (stored and not _is_ours(stored)):
            return
        self._write("dashboard:note_str:0", body)
        self._write("dashboard:note_ver", int(self._stored.get("dashboard:note_ver", 0)) + 1)

    def plot(self, key: str, figure_json: str) -> None:
        """Write a figure that has changed."""
        place = f"dashboard:plot_data:{key}:0"
        if self._stored.get(place) != figure_json:
            self._write(place, figure_json)

    def _joined(self, prefix: str) -> str:
        """A text that optuna-dashboard may have stored in pieces."""
        count = sum(key.startswith(prefix) for key in self._stored)
        return "".join(self._stored[f"{prefix}{number}"] for number in range(count))

    def _write(self, key: str, value: str | int) -> None:
        self._storage.set_study_system_attr(self._id, key, value)


def _marked(text: str) -> str:
    return text + _MARK.format(_digest(text))


def _is_ours(body: str) -> bool:
    found = _MARKED.fullmatch(body)
    return found is not None and _digest(found[1]) == found[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
