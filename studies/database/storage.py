"""Open the study's database safely, and the folder beside it for artifacts and locks.

SQLite gets a write-ahead log, 60 s of patience with other writers and full synchronisation. A file
that isn't ours is refused, never written over. Knows studies by name, not what is stored of them.
"""

import os
import shlex
import sqlite3
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import optuna
from filelock import FileLock
from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel as OptunaTables
from optuna.storages._rdb.models import StudyModel
from optuna.study import StudyDirection
from sqlalchemy import update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError

from studies.errors import UserError
from studies.settings import DEFAULT_STORAGE

BUSY_TIMEOUT_SECONDS = 60
SMALLEST_PAGE_BYTES = 512


@dataclass(frozen=True, kw_only=True)
class StudyStorage:
    """An open database; ``files`` is the folder beside it, ``path`` its file where it has one."""

    url: str
    path: Path | None
    files: Path
    database: RDBStorage

    @property
    def shown_url(self) -> str:
        """The URL for people to read: without its password."""
        return without_password(self.url)

    @property
    def artifacts(self) -> FileSystemArtifactStore:
        folder = self.files / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        return FileSystemArtifactStore(str(folder))

    @property
    def locks(self) -> Path:
        folder = self.files / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_storage(text: str) -> StudyStorage:
    """Open the database for a study, and create it where there is none.

    Raises:
        UserError: not a database URL, a damaged or foreign file, or a folder that is read-only.
    """
    url, path, files = _parse(text)
    if path is not None:
        _check_writable(path)
    try:
        files.joinpath("locks").mkdir(parents=True, exist_ok=True)
        # Several processes that create the schema at once fail: only one may.
        with FileLock(files / "locks" / "open.lock"):
            if path is not None:
                _check_file(path)
            storage = _opened(url, path, files)
            if path is not None:
                _use_write_ahead_log(storage.database, path)
            return storage
    except OSError as error:
        raise UserError(f"{files} can't be written ({error.strerror}).") from None


def check_place(text: str) -> None:
    """Raise ``UserError`` where `open_storage` could not create a database, and create none."""
    _, path, _ = _parse(text)
    if path is not None:
        _check_writable(path)


def database_file(text: str) -> Path | None:
    """The file of the database, whether it is there or not; None where it isn't SQLite."""
    return _parse(text)[1]


def has_database(text: str) -> bool:
    """Whether there is something to open: an empty file is a database yet to be created."""
    _, path, _ = _parse(text)
    return path is None or path.is_dir() or (path.exists() and path.stat().st_size > 0)


def _use_write_ahead_log(database: RDBStorage, path: Path) -> None:
    """To be called when the schema is known to be ours: it writes to the file."""
    try:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    except OperationalError:
        raise UserError(_locked(path)) from None


def open_existing(text: str) -> StudyStorage:
    """Open a database to read from it. Never creates one.

    Raises:
        UserError: there is none, or it is damaged or foreign.
    """
    url, path, files = _parse(text)
    if path is None:
        return _opened(url, path, files, read_only=True)
    if not has_database(text):
        raise UserError(f"No study database at {path}; start one with `python -m studies run`.")
    _check_file(path)
    return _opened(url, path, files, read_only=True)


def _parse(text: str) -> tuple[str, Path | None, Path]:
    """The URL, the database file (None unless SQLite) and the folder beside it."""
    try:
        shown = text if "://" in text else f"sqlite:///{text.replace('%', '%25')}"
        url = make_url(shown)
    except ArgumentError:
        raise UserError(f"Not a database URL: '{text}'; write sqlite:///FILE.") from None
    if not url.drivername.startswith("sqlite"):
        return url.render_as_string(hide_password=False), None, Path(f"{_label(url)}.files")
    if not url.database or url.database == ":memory:":
        raise UserError("--storage must name a file: a database in memory can't be resumed.")
    path = Path(url.database)
    # By whatever link it is opened: its locks and artifacts are in one place.
    real = os.path.realpath(path)
    beside = path if real == os.path.abspath(path) else Path(real)
    files, before = beside.with_suffix(".files"), path.with_suffix(".files")
    if before.is_dir() and not files.exists():
        files = before  # As it was kept when links had folders of their own.
    return shown, path, files


def _label(url: URL) -> str:
    return f"{url.database or url.drivername}"


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UserError(
            f"No folder {folder} for the database {path}; make it or change --storage."
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UserError(f"The database {path} can't be written; change --storage.")


def _check_file(path: Path) -> None:
    """Refuse a file that isn't an undamaged SQLite database of Optuna's. Empty means new.

    SQLite alone may open the file: closing any other handle on it would drop this process's locks
    (POSIX), another process would take itself for the last one and delete the write-ahead log, and
    the database would be damaged (https://sqlite.org/howtocorrupt.html, section 2.2).
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file with --storage.")
    if not path.exists() or path.stat().st_size == 0:
        return
    way_out = "restore it from a copy, or name another file with --storage"
    # SQLite takes a file shorter than its smallest page for an empty one, and would write over it.
    if path.stat().st_size < SMALLEST_PAGE_BYTES:
        raise UserError(f"{path} is too short for a SQLite database; {way_out}.")
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows}
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise UserError(_locked(path)) from None
        raise UserError(f"{path} can't be read as a database ({error}); {way_out}.") from None
    if verdict != "ok":
        raise UserError(f"The database {path} is damaged; {way_out}.")
    if tables and not tables & set(OptunaTables.metadata.tables):
        raise UserError(f"{path} is the database of another program; name another with --storage.")


def _locked(path: Path | None) -> str:
    return (
        f"The database {path} is locked by another process for more than "
        f"{BUSY_TIMEOUT_SECONDS} s; stop that process and run the same command again."
    )


def _engine_url(path: Path, *, read_only: bool) -> str:
    if not read_only:
        return URL.create("sqlite", database=str(path)).render_as_string()
    # SQLite decodes what follows `file:`; an unquoted # or ? would end the path, and the mode.
    uri = f"file:{quote(str(path.resolve()))}"
    query = {"mode": "ro", "uri": "true"}
    return URL.create("sqlite", database=uri, query=query).render_as_string()


def _opened(url: str, path: Path | None, files: Path, *, read_only: bool = False) -> StudyStorage:
    sqlite = path is not None
    arguments = {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}} if sqlite else {}
    engine_url = url if path is None else _engine_url(path, read_only=read_only)
    try:
        database = RDBStorage(
            engine_url, engine_kwargs=arguments, skip_table_creation=sqlite and read_only
        )
    except ImportError:
        driver = make_url(url).drivername
        raise UserError(f"No driver for {driver}:// is installed; install one.") from None
    except RuntimeError as error:  # A schema newer or older than this Optuna's.
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(error.__cause__ or error)
        if "locked" in cause:
            raise UserError(_locked(path)) from None
        if read_only and ("readonly" in cause or "no such table" in cause):
            raise UserError(
                f"The database {path} is not complete: it is being created, or its creation was "
                "cut short; `python -m studies run` completes it."
            ) from None
        raise UserError(f"The database can't be opened: {' '.join(cause.split())[:200]}") from None
    return StudyStorage(url=url, path=path, files=files, database=database)


def storage_option(storage: StudyStorage) -> str:
    """``--storage`` for a command that others will read: a password is left out of it."""
    if storage.url == DEFAULT_STORAGE:
        return ""
    return f" --storage {shlex.quote(storage.shown_url)}"


def without_password(url: str) -> str:
    """A database URL as it may be shown and stored."""
    parts = make_url(url)
    return url if parts.password is None else parts.render_as_string(hide_password=True)


def study_names(storage: StudyStorage) -> list[str]:
    """Names of the studies in the database, the latest last; repeats and controls left out."""
    summaries = optuna.get_all_study_summaries(storage=storage.database, include_best_trial=False)
    names = [s for s in summaries if "/" not in s.study_name]
    names.sort(key=lambda s: (s.datetime_start or datetime.max, s.study_name))
    return [s.study_name for s in names]


def latest_study(storage: StudyStorage) -> str:
    """The name of the only study, or of the one that was begun last.

    Raises:
        UserError: there is none.
    """
    names = study_names(storage)
    if not names:
        raise UserError(
            f"No study in {storage.shown_url}; start one with `python -m studies run`."
        )
    return names[-1]


def load_study(storage: StudyStorage, name: str) -> optuna.Study:
    """The Optuna study ``name``.

    Raises:
        UserError: there is none.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage.database)
    except KeyError:
        names = ", ".join(study_names(storage)) or "none yet"
        raise UserError(f"No study '{name}' in {storage.shown_url}; there are: {names}.") from None


def study_is_there(storage: StudyStorage, name: str) -> bool:
    """Whether the database has an Optuna study of that name."""
    try:
        storage.database.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def rename_studies(storage: StudyStorage, names: Mapping[str, str]) -> None:
    """Give Optuna studies other names, ``names`` by the old ones: all of them or none.

    Optuna has no call for that; nothing else that is stored of them changes.

    Raises:
        UserError: another study has one of the names.
    """
    try:
        with storage.database.engine.begin() as connection:
            for old, new in names.items():
                renamed = update(StudyModel).where(StudyModel.study_name == old)
                connection.execute(renamed.values(study_name=new))
    except IntegrityError:
        taken = ", ".join(repr(new) for new in names.values())
        raise UserError(f"One of the names {taken} is taken; choose another one.") from None


def create_study(storage: StudyStorage, name: str, metric: str) -> optuna.Study:
    """The Optuna study ``name``, created where there is none, its value named by the metric.

    Raises:
        UserError: the one that is there is of another direction.
    """
    study = optuna.create_study(
        storage=storage.database,
        study_name=name,
        direction="minimize" if metric == "loss" else "maximize",
        load_if_exists=True,
    )
    wanted = StudyDirection.MINIMIZE if metric == "loss" else StudyDirection.MAXIMIZE
    if study.directions != [wanted]:
        raise UserError(
            f"There is a study '{name}' in {storage.shown_url} already that does not "
            f"{wanted.name.lower()} {metric}; choose another --name."
        )
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([metric])
    return study
