"""The database: careful, created by one process, never over a file that isn't ours."""

import multiprocessing
import os
import shlex
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages._rdb.models import BaseModel as OptunaTables
from sqlalchemy import text as sql
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from studies.database.storage import (
    StudyStorage,
    has_database,
    load_study,
    open_existing,
    open_storage,
    storage_option,
    study_names,
)
from studies.errors import UserError
from studies.settings import DEFAULT_STORAGE

SQLITE_SYNCHRONOUS_FULL = 2


def url(path):
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory):
    """A database with a study in it, all in one file."""
    path = tmp_path_factory.mktemp("good") / "good.db"
    storage = open_storage(url(path))
    optuna.create_study(storage=storage.database, study_name="kept")
    storage.database.engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


def pragma(storage, name):
    with storage.database.engine.connect() as connection:
        connection.execute(sql("SELECT count(*) FROM studies"))  # Notices the journal's mode.
        return connection.execute(sql(f"PRAGMA {name}")).scalar()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", SQLITE_SYNCHRONOUS_FULL),
        ("busy_timeout", 60_000),
    ],
)
def test_a_new_database_is_careful(tmp_path, name, value):
    assert pragma(open_storage(url(tmp_path / "studies.db")), name) == value


def test_a_plain_path_means_a_sqlite_file(tmp_path):
    storage = open_storage(str(tmp_path / "studies.db"))
    assert storage.url == url(tmp_path / "studies.db")
    assert (tmp_path / "studies.db").is_file()


def test_a_file_of_zero_bytes_is_a_new_database(tmp_path):
    path = tmp_path / "studies.db"
    path.touch()
    storage = open_storage(url(path))
    assert optuna.get_all_study_names(storage.database) == []


def test_artifacts_and_locks_lie_beside_the_database(tmp_path):
    storage = open_storage(url(tmp_path / "studies.db"))
    assert storage.artifacts and storage.locks.is_dir()
    assert {p.name for p in storage.files.iterdir()} == {"artifacts", "locks"}
    assert storage.files.parent == tmp_path


def test_by_whatever_link_a_database_is_opened_its_locks_are_the_same(tmp_path):
    """Else the worker of one path would take the other's running trials for orphans."""
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.db").symlink_to(tmp_path / "data" / "studies.db")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    direct = open_storage(url(tmp_path / "data" / "studies.db"))
    for path in ("here/mine.db", "linked/studies.db"):
        other = open_storage(url(tmp_path / path))
        assert other.locks.samefile(direct.locks) and other.files == direct.files
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["mine.db"]


def foreign_bytes(good):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
        return connection.serialize()


def newer_bytes(good):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(good)
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        connection.commit()
        return connection.serialize()


BAD_FILES = {
    "garbage": lambda good: b"not a database at all\n" * 100,
    "a text of few bytes": lambda good: b"x",
    "truncated": lambda good: good[: len(good) // 2],
    "overwritten in the middle": lambda good: good[:4096] + os.urandom(8192) + good[12288:],
    "the database of another program": foreign_bytes,
    "of a newer schema": newer_bytes,
}


@pytest.mark.parametrize("open_it", [open_storage, open_existing])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path, good_bytes, kind, open_it):
    path = tmp_path / "studies.db"
    content = BAD_FILES[kind](good_bytes)
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        open_it(url(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("open_it", [open_storage, open_existing])
@pytest.mark.parametrize("bad", ["a folder", "in a folder that is not there", "in memory", "://"])
def test_what_cannot_be_a_database_is_refused_and_nothing_is_made(tmp_path, bad, open_it):
    text = {
        "a folder": url(tmp_path),
        "in a folder that is not there": url(tmp_path / "missing" / "studies.db"),
        "in memory": "sqlite:///:memory:",
        "://": "no such://thing",
    }[bad]
    with pytest.raises(UserError):
        open_it(text)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_called_a_folder(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        open_storage(url(tmp_path))


@pytest.mark.parametrize("empty", [False, True], ids=["missing", "of zero bytes"])
def test_to_open_an_existing_database_never_creates_one(tmp_path, empty):
    path = tmp_path / "studies.db"
    if empty:
        path.touch()
    with pytest.raises(UserError, match="No study database"):
        open_existing(url(path))
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == (
        [("studies.db", 0)] if empty else []
    )


@pytest.mark.parametrize("folder", ["plain", "two words", "100% sure", "a%20b", "a#b", "Säule"])
def test_an_existing_database_is_read_and_can_not_be_written(tmp_path, good_bytes, folder):
    path = tmp_path / folder / "studies.db"
    path.parent.mkdir()
    path.write_bytes(good_bytes)
    storage = open_existing(str(path))
    assert optuna.get_all_study_names(storage.database) == ["kept"]
    with pytest.raises(optuna.exceptions.StorageInternalError):
        optuna.create_study(storage=storage.database, study_name="new")
    assert path.read_bytes() == good_bytes


def test_another_process_that_writes_for_a_while_is_waited_for(tmp_path, good_bytes):
    path = tmp_path / "studies.db"
    path.write_bytes(good_bytes)
    storage = open_storage(url(path))
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, 1.0))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    optuna.create_study(storage=storage.database, study_name="patient")
    process.join()
    assert (tmp_path / "released").exists()


def _hold(path, seconds):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (path.parent / "held").touch()
        time.sleep(seconds)
        (path.parent / "released").touch()
        connection.execute("COMMIT")


def _open(text, barrier, errors):
    barrier.wait()
    try:
        open_storage(text)
    except Exception as error:
        errors.put(repr(error))


@pytest.mark.slow
def test_eight_processes_open_one_new_database_together(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, errors = context.Barrier(8), context.Queue()
    arguments = (url(tmp_path / "studies.db"), barrier, errors)
    processes = [context.Process(target=_open, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert errors.empty(), errors.get()
    assert [process.exitcode for process in processes] == [0] * 8


def database_with_study(folder):
    storage = open_storage(url(folder / "studies.db"))
    return storage, optuna.create_study(storage=storage.database, study_name="s")


def test_a_study_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    storage, _ = database_with_study(tmp_path)
    with pytest.raises(UserError, match=r"No study 'other'.*there are: s\."):
        load_study(storage, "other")


def test_repeats_and_controls_are_no_studies_of_their_own(tmp_path):
    storage, _ = database_with_study(tmp_path)
    optuna.create_study(storage=storage.database, study_name="s/confirm")
    assert study_names(storage) == ["s"]


def test_the_study_begun_last_is_named_last(tmp_path):
    storage, study = database_with_study(tmp_path)
    later = optuna.create_study(storage=storage.database, study_name="a")
    study.tell(study.ask(), 1.0)
    later.tell(later.ask(), 1.0)
    assert study_names(storage) == ["s", "a"]


@pytest.fixture(params=["studies", "version_info"])
def cut_short(request, tmp_path):
    """A database whose creation was killed: one table is there, the others aren't."""
    path = tmp_path / "studies.db"
    with closing(sqlite3.connect(path)) as connection:
        table = CreateTable(OptunaTables.metadata.tables[request.param])
        connection.execute(str(table.compile(dialect=sqlite.dialect())))
        connection.commit()
    return path


def test_a_database_cut_short_is_completed_by_a_run(cut_short):
    assert has_database(url(cut_short))
    storage = open_storage(url(cut_short))
    optuna.create_study(storage=storage.database, study_name="s")
    assert study_names(open_existing(url(cut_short))) == ["s"]


def test_a_database_cut_short_is_said_to_be_so_to_a_reader(cut_short):
    before = cut_short.read_bytes()
    with pytest.raises(UserError, match=r"not complete.*studies run"):
        open_existing(url(cut_short))
    assert cut_short.read_bytes() == before


def test_an_empty_or_missing_file_is_no_database_yet(tmp_path):
    assert not has_database(url(tmp_path / "none.db"))
    (tmp_path / "empty.db").touch()
    assert not has_database(url(tmp_path / "empty.db"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:///a folder/x.db", "sqlite:///a folder/x.db"),
    ],
)
def test_a_password_is_never_shown(given, shown):
    storage = StudyStorage(url=given, path=None, files=Path("f"), database=None)
    assert storage.shown_url == shown
    assert storage_option(storage) == f" --storage {shlex.quote(shown)}"


def test_the_usual_database_needs_no_option():
    storage = StudyStorage(url=DEFAULT_STORAGE, path=None, files=Path("f"), database=None)
    assert storage_option(storage) == ""
