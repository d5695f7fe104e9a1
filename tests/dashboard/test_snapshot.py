"""The snapshot: the original as it was at one moment, renewed, and nothing the other way."""

import hashlib
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from studies.dashboard import snapshot
from studies.dashboard.snapshot import Snapshot
from studies.errors import UserError


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "a # b?%20.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
        connection.executemany("INSERT INTO accounts VALUES (?, 0)", [(i,) for i in range(2000)])
    return path


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "copies"
    made.mkdir()
    return made


@pytest.fixture
def at_once(monkeypatch):
    """No pause between renewals."""
    monkeypatch.setattr(snapshot, "RENEW_SECONDS", 0)


def run(path, statement):
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        return connection.execute(statement).fetchall()


def total(path):
    return run(path, "SELECT sum(balance) FROM accounts")[0][0]


def test_it_follows_the_original(database, folder, at_once):
    copy = Snapshot(database, folder)
    assert total(copy.path) == 0
    for balance in (1, 2):
        run(database, f"UPDATE accounts SET balance = {balance}")
        copy.renew()
        assert total(copy.path) == 2000 * balance


def test_it_is_renewed_only_every_few_seconds(database, folder, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    copy = Snapshot(database, folder)
    run(database, "UPDATE accounts SET balance = 1")
    copy.renew()
    assert total(copy.path) == 0
    clock[0] += snapshot.RENEW_SECONDS
    copy.renew()
    assert total(copy.path) == 2000


def test_an_unchanged_original_is_not_copied_again(database, folder, at_once, monkeypatch):
    copies, make = [], Snapshot._copy
    monkeypatch.setattr(Snapshot, "_copy", lambda self: copies.append(make(self)))
    copy = Snapshot(database, folder)
    for _ in range(3):
        copy.renew()
    settled = len(copies)  # Reading creates an empty log beside the original: that looks new once.
    copy.renew()
    assert len(copies) == settled <= 2
    run(database, "UPDATE accounts SET balance = 1")
    copy.renew()
    assert len(copies) == settled + 1


def test_what_is_written_to_the_copy_never_reaches_the_original(database, folder, at_once):
    copy = Snapshot(database, folder)
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    run(copy.path, "DELETE FROM accounts")
    copy.renew()
    assert total(database) == 0 and len(run(database, "SELECT id FROM accounts")) == 2000
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before


def test_it_is_consistent_while_another_process_writes(database, folder, at_once):
    """Money moves between accounts all the time: every copy has all of it."""
    stop, moved = threading.Event(), []

    def move():
        with closing(sqlite3.connect(database, timeout=0)) as connection:
            while not stop.is_set():
                with connection:
                    connection.execute("UPDATE accounts SET balance = balance - 1 WHERE id % 2")
                    connection.execute(
                        "UPDATE accounts SET balance = balance + 1 WHERE NOT id % 2"
                    )
                moved.append(time.monotonic())

    writer = threading.Thread(target=move)
    writer.start()
    try:
        copy, seen = Snapshot(database, folder), set()
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            copy.renew()
            assert total(copy.path) == 0
            assert run(copy.path, "PRAGMA integrity_check") == [("ok",)]
            seen.add(run(copy.path, "SELECT balance FROM accounts WHERE id = 0")[0][0])
    finally:
        stop.set()
        writer.join()
    # The writer had no patience (timeout=0) and never met a lock: else it would have ended.
    assert len(seen) > 3 and moved[-1] > end - 0.5


def test_a_reader_of_the_copy_does_not_hold_up_its_renewal(database, folder, at_once):
    copy = Snapshot(database, folder)
    with closing(sqlite3.connect(copy.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT max(balance) FROM accounts").fetchone() == (0,)
        run(database, "UPDATE accounts SET balance = 1")
        started = time.monotonic()
        copy.renew()
        assert time.monotonic() - started < 5
        assert reader.execute("SELECT max(balance) FROM accounts").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT max(balance) FROM accounts").fetchone() == (1,)


def test_a_failed_renewal_leaves_what_there_was(database, folder, at_once):
    copy = Snapshot(database, folder)
    database.unlink()
    with pytest.raises(sqlite3.Error):
        copy.renew()
    assert total(copy.path) == 0
    assert not database.exists()


def test_a_folder_that_is_not_there_is_an_error_with_the_way_out(database, tmp_path):
    with pytest.raises(UserError, match="TMPDIR"):
        Snapshot(database, tmp_path / "nowhere")
