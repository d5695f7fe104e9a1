"""The dashboard: what it says, whom it shows, and that a study never feels it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import optuna
import pytest
from browser import visited
from dashboards import ask, detail, running, shown_studies

from studies.dashboard import snapshot
from studies.dashboard.server import Server, announcement, find_place, listen, serve
from studies.database.storage import open_storage
from studies.errors import UserError


@pytest.fixture
def database(tmp_path):
    """A study of three trials with two artifacts; its file."""
    storage = open_storage(str(tmp_path / "studies.db"))
    study = optuna.create_study(storage=storage.database, study_name="s", direction="maximize")
    picture = tmp_path / "curve.txt"
    picture.write_text("a curve", encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text("<script>document.title = 'run'</script>", encoding="utf-8")

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.suggest_int("k", 1, 9)
        for epoch in range(3):
            trial.report(x + epoch, epoch)
        optuna.artifacts.upload_artifact(
            artifact_store=storage.artifacts, file_path=str(picture), study_or_trial=trial
        )
        return x

    study.optimize(objective, n_trials=3)
    optuna.artifacts.upload_artifact(
        artifact_store=storage.artifacts, file_path=str(page), study_or_trial=study
    )
    storage.database.engine.dispose()
    return tmp_path / "studies.db"


def everything(database):
    """All rows of all tables, and the content of all artifacts."""
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        rows = {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()
            for (name,) in tables.fetchall()
        }
    files = database.with_suffix(".files") / "artifacts"
    return rows, {path.name: path.read_bytes() for path in files.iterdir()}


@pytest.mark.parametrize("read_only", [False, True])
def test_it_shows_studies_trials_and_artifacts(database, read_only):
    with running(database, read_only=read_only) as server:
        assert shown_studies(server) == ["s"]
        found = detail(server)
        assert len(found["trials"]) == 3
        (artifact,) = found["trials"][0]["artifacts"]
        trial_id = found["trials"][0]["trial_id"]
        status, _, content = ask(server, f"artifacts/1/{trial_id}/{artifact['artifact_id']}")
        assert (status, content) == (200, b"a curve")


@pytest.mark.parametrize("read_only", [False, True])
def test_it_answers_only_its_own_pages(database, read_only):
    with running(database, read_only=read_only) as server:
        assert ask(server, "api/studies", Host="evil.example")[0] == 403
        assert ask(server, "api/studies", Host="localhost:9")[0] == 200
        refused = ask(server, "api/studies/1", "DELETE", {}, Origin="http://evil.example")
        assert refused[0] == 403
        assert shown_studies(server) == ["s"]


CHANGES = [
    ("DELETE", "api/studies/1", {}),
    ("DELETE", "api/studies/1", {"remove_associated_artifacts": False}),
    ("DELETE", "api/artifacts/1/{trial}/{artifact}", None),
    ("DELETE", "api/artifacts/1/{page}", None),
    ("POST", "api/studies", {"study_name": "t", "directions": ["minimize"]}),
    ("POST", "api/studies/1/rename", {"study_name": "t"}),
    ("POST", "api/artifacts/1", {"file": "data:text/plain;base64,AAAA", "filename": "a.txt"}),
    ("POST", "api/trials/1/user-attrs", {"user_attrs": {"a": 1}}),
    ("POST", "incompatible-rdb-schema", None),
    ("PUT", "api/studies/1/note", {"version": 1, "body": "a note"}),
    ("PATCH", "api/studies/1", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_reading_only_changes_and_deletes_nothing(database, method, path, body):
    before = everything(database)
    with running(database, read_only=True) as server:
        found = detail(server)
        trial = found["trials"][0]
        path = path.format(
            trial=trial["trial_id"],
            artifact=trial["artifacts"][0]["artifact_id"],
            page=found["artifacts"][0]["artifact_id"],
        )
        status, _, content = ask(server, path, method, body)
        assert status == 403 and "--read-only" in json.loads(content)["reason"]
        assert shown_studies(server) == ["s"] and len(detail(server)["trials"]) == 3
    assert everything(database) == before


def test_without_reading_only_a_study_can_be_deleted(database):
    """What the warning says is so: and the test above could fail."""
    with running(database) as server:
        assert ask(server, "api/studies/1", "DELETE", {})[0] == 204
        assert shown_studies(server) == []
    assert everything(database)[1] == {}


def test_reading_only_shows_new_trials_after_a_while(database, monkeypatch):
    monkeypatch.setattr(snapshot, "RENEW_SECONDS", 0)
    with running(database, read_only=True) as server:
        assert shown_studies(server) == ["s"]
        storage = open_storage(str(database))
        optuna.create_study(storage=storage.database, study_name="t")
        assert shown_studies(server) == ["s", "t"]


def test_reading_only_goes_on_with_the_former_snapshot_and_says_so(database, monkeypatch):
    monkeypatch.setattr(snapshot, "RENEW_SECONDS", 0)
    said = []
    with running(database, read_only=True, said=said) as server:
        for suffix in ("", "-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        assert shown_studies(server) == ["s"]
    assert "could not be renewed" in said[-1]


def test_reading_only_leaves_no_file_behind(database, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with running(database, read_only=True) as server:
        assert shown_studies(server) == ["s"]
        assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert list((tmp_path / "temporary").iterdir()) == []


def test_reading_only_needs_sqlite(database):
    url = "postgresql://user:secret@host/db"
    with pytest.raises(UserError, match="--read-only needs a SQLite database") as error:
        running(url, read_only=True).__enter__()
    assert "secret" not in str(error.value)


def test_an_artifact_runs_no_script(database):
    with running(database) as server, visited(server.url) as (page, _):
        path = f"artifacts/1/{detail(server)['artifacts'][0]['artifact_id']}"
        _, headers, content = ask(server, path)
        assert b"<script>" in content and headers["Content-Type"] == "text/html"
        assert headers["X-Content-Type-Options"] == "nosniff"
        page.goto(server.url + path)
        assert page.title() != "run"


def test_a_missing_database_is_an_error_and_none_is_created(tmp_path):
    with pytest.raises(UserError, match="No study database"):
        running(tmp_path / "studies.db").__enter__()
    assert list(tmp_path.iterdir()) == []


def said_of(host, *, read_only, port=18400, url="sqlite:///s.db"):
    place = find_place(host)
    with listen(place, port, lambda environ, start: []) as server:
        said = list(announcement(url, server, place, port, read_only=read_only))
        return said, server


def test_on_this_machine_alone_it_says_where_and_no_more():
    said, server = said_of("127.0.0.1", read_only=False)
    (line,) = said
    assert line.startswith(f"Dashboard of sqlite:///s.db: http://127.0.0.1:{server.server_port}/")
    assert "Ctrl-C" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_snapshot_is_announced(host):
    said, _ = said_of(host, read_only=True)
    assert any("snapshot, renewed at most every 5 s" in line for line in said)


def test_beyond_this_machine_it_says_what_it_exposes():
    said, server = said_of("0.0.0.0", read_only=False)
    warning = next(line for line in said if line.startswith("Warning"))
    assert "no login" in warning and "delete whole studies" in warning
    assert f"port {server.server_port} of 0.0.0.0" in warning
    assert "--read-only" in said[-1]


def test_beyond_this_machine_a_snapshot_can_be_seen_but_not_deleted():
    said, _ = said_of("0.0.0.0", read_only=True)
    warning = next(line for line in said if line.startswith("Warning"))
    assert "no login" in warning and "see every study" in warning and "delete" not in warning


def test_a_taken_port_is_named():
    place = find_place("127.0.0.1")
    with Server(place, 0, lambda environ, start: []) as taken:
        port = taken.server_port
        (line,), server = said_of("127.0.0.1", read_only=False, port=port)
    assert server.server_port > port and f"port {port} is taken" in line


def test_a_password_is_not_shown():
    said, _ = said_of("127.0.0.1", read_only=False, url="postgresql://me:secret@host/db")
    assert "postgresql://me:***@host/db" in said[0]


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_ends_the_command_and_removes_the_snapshot(database, tmp_path, signum, code):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    log = tmp_path / "dashboard.log"
    options = f"--storage {database} --no-browser --read-only --port 18500"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "studies", "dashboard", *options.split()],
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    try:
        end = time.monotonic() + 60
        while "snapshot" not in log.read_text() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signum)
        assert process.wait(timeout=30) == code
    finally:
        process.kill()
    assert len(log.read_text().splitlines()) == 2 and list(temporary.iterdir()) == []


@pytest.mark.parametrize("asked", [True, False])
def test_a_browser_is_opened_only_if_asked_for(database, monkeypatch, asked):
    opened = threading.Event()
    monkeypatch.setattr("webbrowser.open", lambda url: opened.set())
    monkeypatch.setattr(Server, "serve_forever", lambda self: opened.wait(10 if asked else 0.2))
    serve(
        str(database),
        18400,
        host="127.0.0.1",
        read_only=False,
        open_browser=asked,
        announce=lambda line: None,
    )
    assert opened.is_set() == asked


PAGES = {
    "dashboard": "Sort descending",
    "dashboard/studies/1": "Hyperparameter Importance",
    "dashboard/studies/1/analytics": "Slice",
    "dashboard/studies/1/trials": "3 Trials",
    "dashboard/studies/1/trials?numbers=1": "Trial 1 (trial_id=2)",
}


@pytest.mark.slow
@pytest.mark.parametrize("read_only", [False, True])
def test_pages_ask_this_machine_alone_and_complain_of_nothing(database, read_only):
    with running(database, read_only=read_only) as server, visited(server.url) as (page, told):
        for path, text in PAGES.items():
            page.goto(server.url + path)
            page.get_by_text(text).first.wait_for()
            page.wait_for_load_state("networkidle")
        page.get_by_text("curve.txt").first.wait_for()
    assert told == []


def test_a_page_that_asks_elsewhere_or_fails_would_be_noticed(database):
    with running(database) as server, visited(server.url) as (page, told):
        page.goto(server.url + "dashboard")
        page.evaluate("document.createElement('img').src = 'http://192.0.2.1/a.png'")
        page.evaluate("console.error('oh')")
        page.wait_for_timeout(300)
    assert any("192.0.2.1" in line for line in told) and "oh" in told
