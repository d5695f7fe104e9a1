"""Delete or rename a study, with all that belongs to it.

That is the search, the studies beside it, and their files; the ledger of openings stays as it is.
Knows what belongs to a study; asks nobody.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.storages._rdb.models import (
    StudyModel,
    StudySystemAttributeModel,
    TrialModel,
    TrialSystemAttributeModel,
)
from sqlalchemy import select

from studies.database.ledger import openings
from studies.database.owners import hand_out_lock, is_elsewhere, workers_at
from studies.database.storage import (
    StudyStorage,
    load_study,
    open_existing,
    open_storage,
    rename_studies,
)
from studies.database.study import is_foreign, read_search, read_study
from studies.database.trials import read_trials
from studies.errors import UserError
from studies.settings import DEFAULT_STORAGE, read_options

# As Optuna names them: a database may name any file as an artifact, but not have it deleted.
_ARTIFACT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """All that is a study's: its Optuna studies with their numbers of trials, and its files.

    ``running_elsewhere`` are trials that run on other hosts, or whose process has died there;
    ``num_openings`` of its test images the ledger keeps. ``not_its_own`` stand beside it and are
    of another search that had its name: they stay.
    """

    name: str
    num_trials: Mapping[str, int]
    files: Sequence[Path]
    num_bytes: int
    running_elsewhere: Sequence[str]
    num_openings: int
    not_its_own: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "study": self.name,
            "trials": dict(self.num_trials),
            "files": len(self.files),
            "bytes": self.num_bytes,
            "openings_kept": self.num_openings,
            "not_its_own": list(self.not_its_own),
        }

    def lines(self) -> list[str]:
        """In words, a line each."""
        studies = ", ".join(f"{name} ({_trials(num)})" for name, num in self.num_trials.items())
        lines = [f"{studies}; {len(self.files)} files, {self.num_bytes / 1e6:.1f} MB."]
        if self.running_elsewhere:
            lines.append(
                f"Running on other hosts, as far as is known: {', '.join(self.running_elsewhere)}."
            )
        if self.num_openings:
            times = "once" if self.num_openings == 1 else f"{self.num_openings} times"
            lines.append(f"That its test images were opened {times} stays in the ledger.")
        if self.not_its_own:
            lines.append(
                f"Of another study that had this name, and left as it is: "
                f"{', '.join(self.not_its_own)}."
            )
        return lines


def find_belongings(storage: StudyStorage, name: str) -> Belongings:
    """What belongs to the study ``name``; what is left of one whose search is gone is found, too.

    Raises:
        UserError: there is none, it is another program's, or a process on this host is at work
            on it.
    """
    every = optuna.get_all_study_names(storage.database)
    beside = [other for other in every if other.startswith(f"{name}/")]
    others: list[str] = []
    if name in every or not beside:
        search = load_study(storage, name)
        _check_ours(search)
        others = [each for each in beside if not _is_beside(load_study(storage, each), search)]
    names = [each for each in beside if each not in others]
    if name in every:
        names.append(name)  # The search last: what is cut short can be done again.
    workers = workers_at(storage, name)
    if workers:
        raise UserError(
            f"Study '{name}' is being worked on (process {', '.join(workers)}); stop it first."
        )
    num_trials, elsewhere = {}, []
    for each in names:
        records = read_trials(load_study(storage, each))
        num_trials[each] = len(records)
        elsewhere += [
            f"trial {record.number} of {each} ({record.worker})"
            for record in records
            if record.state == "RUNNING" and record.worker and is_elsewhere(record.worker)
        ]
    files = _files(storage, names)
    return Belongings(
        name=name,
        num_trials=dict(sorted(num_trials.items())),
        files=files,
        num_bytes=sum(path.stat().st_size for path in files),
        running_elsewhere=elsewhere,
        num_openings=_num_openings(storage, name) if name in names else 0,
        not_its_own=others,
    )


def delete_study(name: str, storage: str = DEFAULT_STORAGE) -> Belongings:
    """Delete a study with its repeats, its controls and their files; nobody is asked.

    The ledger keeps that its test images were opened. Reports and bundles stay where they are.

    Returns:
        What was deleted.

    Raises:
        UserError: there is no such study, it is another program's, or it is being worked on.
    """
    with _opened(storage) as database:
        found = find_belongings(database, name)
        for path in found.files:
            path.unlink(missing_ok=True)
        for each in sorted(found.num_trials, key=lambda each: each == name):
            optuna.delete_study(study_name=each, storage=database.database)
        return found


def rename_study(old: str, new: str, storage: str = DEFAULT_STORAGE) -> Belongings:
    """Rename a study with its repeats and its controls. Its bundles still know it.

    Returns:
        What was renamed, by the old names.

    Raises:
        UserError: there is no study ``old``, it is another program's, or it is being worked on;
            ``new`` is no name for a study, or is taken.
    """
    read_options({"name": new})
    with _opened(storage) as database:
        found = find_belongings(database, old)
        renamed = {name: new + name[len(old) :] for name in found.num_trials}
        every = optuna.get_all_study_names(database.database)
        taken = sorted({new, *renamed.values()} & set(every))
        if taken:
            raise UserError(
                f"There is '{taken[0]}' in {database.shown_url} already; choose another name, or "
                f"delete study '{new}' first."
            )
        rename_studies(database, renamed)
    return found


@contextmanager
def _opened(text: str) -> Iterator[StudyStorage]:
    """A database that is there, to write to while nobody else hands out trials."""
    open_existing(text)
    storage = open_storage(text)
    with hand_out_lock(storage):
        yield storage


def _is_beside(study: optuna.Study, search: optuna.Study) -> bool:
    """Whether it is of this search, or nobody's yet."""
    record = read_study(search, allow_older=True)
    mine, found = None if record is None else record.search_id, read_search(study)
    return found == mine or (found is None and not study.get_trials(deepcopy=False))


def _check_ours(study: optuna.Study) -> None:
    if is_foreign(study) and read_search(study) is None:
        raise UserError(
            f"Study '{study.study_name}' was not made by transfer-studies; it is left as it is."
        )


def _num_openings(storage: StudyStorage, name: str) -> int:
    record = read_study(load_study(storage, name), allow_older=True)
    if record is None:
        return 0
    return len(openings(storage, record.identity["data"]["test_fingerprint"]))


def _files(storage: StudyStorage, names: Sequence[str]) -> list[Path]:
    """The files of these Optuna studies and their trials that no other study has as well."""
    mine: set[str] = set()
    others: set[str] = set()
    for study, artifact in _artifacts(storage):
        (mine if study in names else others).add(artifact)
    folder = storage.files / "artifacts"
    alone = sorted(filter(_ARTIFACT.fullmatch, mine - others))
    return [path for path in (folder / artifact for artifact in alone) if path.is_file()]


def _artifacts(storage: StudyStorage) -> list[tuple[str, str]]:
    """Every artifact in the database: its Optuna study by name, and its id.

    Optuna lists those of one trial by a query; a study may have thousands.
    """
    trial_key, study_key = TrialSystemAttributeModel.key, StudySystemAttributeModel.key
    of_trials = (
        select(StudyModel.study_name, trial_key)
        .join(TrialModel, TrialModel.study_id == StudyModel.study_id)
        .join(TrialSystemAttributeModel, TrialSystemAttributeModel.trial_id == TrialModel.trial_id)
        .where(trial_key.startswith(ARTIFACTS_ATTR_PREFIX))
    )
    of_studies = (
        select(StudyModel.study_name, study_key)
        .join(StudySystemAttributeModel, StudySystemAttributeModel.study_id == StudyModel.study_id)
        .where(study_key.startswith(ARTIFACTS_ATTR_PREFIX))
    )
    with storage.database.engine.connect() as connection:
        rows = [*connection.execute(of_trials), *connection.execute(of_studies)]
    return [(name, key.removeprefix(ARTIFACTS_ATTR_PREFIX)) for name, key in rows]


def _trials(num: int) -> str:
    return "1 trial" if num == 1 else f"{num} trials"
