"""Who owns a trial: a lock beside the database that the kernel frees when its process dies.

Knows locks and owners; nothing of what a trial does.
"""

import hashlib
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from studies.database.storage import StudyStorage
from studies.database.trials import INTERRUPTED, TrialRecord, write_reason


@contextmanager
def owner_lock(storage: StudyStorage) -> Iterator[str]:
    """Hold the lock of a new worker; yields its id, `HOST:PROCESS:RANDOM`."""
    worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    path = _lock_path(storage, worker)
    try:
        with FileLock(path):
            yield worker
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def at_work(storage: StudyStorage, name: str, worker: str) -> Iterator[None]:
    """Hold a lock that says that ``worker`` is at work on the study ``name``.

    Between two trials, and while controls are fitted, no running trial would tell.
    """
    path = storage.locks / f"{_work_on(name)}{_file_name(worker)}"
    try:
        with FileLock(path):
            yield
    finally:
        path.unlink(missing_ok=True)


def workers_at(storage: StudyStorage, name: str) -> list[str]:
    """Who is at work on the study ``name``, as `HOST-PROCESS`, on this host."""
    prefix, found = _work_on(name), []
    for path in sorted(storage.locks.glob(f"{prefix}*.lock")):
        if _is_held(path):
            found.append(path.name.removeprefix(prefix).rpartition("-")[0])
        else:
            path.unlink(missing_ok=True)  # Of a process that was killed.
    return found


@contextmanager
def hand_out_lock(storage: StudyStorage) -> Iterator[None]:
    """One worker at a time asks for a trial: SQLite would hand the same one out twice."""
    with FileLock(storage.locks / "suggest_next.lock"):
        yield


def fail_orphans(
    storage: StudyStorage,
    study: optuna.Study,
    records: Sequence[TrialRecord],
    worker: str | None,
) -> list[int]:
    """Fail every running trial whose worker on this host is gone; returns their numbers.

    To be called under the hand-out lock: a trial without an owner is then one whose process died
    between creating it and signing it.

    Args:
        worker: the caller, whose own lock is not tried.
    """
    orphans = [r for r in records if r.state == "RUNNING" and _is_orphan(storage, r, worker)]
    for orphan in orphans:
        write_reason(storage, study, orphan.number, INTERRUPTED)
        study.tell(orphan.number, state=TrialState.FAIL)
    return [orphan.number for orphan in orphans]


def _is_orphan(storage: StudyStorage, record: TrialRecord, worker: str | None) -> bool:
    if record.worker is None:
        return True
    if record.worker == worker or is_elsewhere(record.worker):
        return False
    path = _lock_path(storage, record.worker)
    if _is_held(path):
        return False
    path.unlink(missing_ok=True)
    return True


def is_elsewhere(worker: str) -> bool:
    """Whether it is on another host, where nobody can see from here if it is alive."""
    return worker.partition(":")[0] != socket.gethostname()


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _lock_path(storage: StudyStorage, worker: str) -> Path:
    return storage.locks / _file_name(worker)


def _file_name(worker: str) -> str:
    return f"{worker.replace(':', '-')}.lock"


def _work_on(name: str) -> str:
    """What the files begin with that say who is at work on a study: any name fits in one."""
    return f"study-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"
