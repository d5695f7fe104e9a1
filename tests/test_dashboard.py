"""The dashboard: on this machine alone, on the next free port, of a database that is there."""

import socket

import optuna
import optuna_dashboard
import pytest

from studies.dashboard import HOST, serve
from studies.errors import UserError
from studies.storage import open_storage


@pytest.fixture
def served(monkeypatch):
    """What the server was started with, instead of a server."""
    calls = []

    def run_server(storage, **options):
        calls.append({"storage": storage, **options})

    monkeypatch.setattr(optuna_dashboard, "run_server", run_server)
    return calls


@pytest.fixture
def database(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    optuna.create_study(storage=storage.database, study_name="s")
    return storage.url


@pytest.fixture
def taken_port():
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def start(database, port=18080):
    said = []
    serve(database, port, open_browser=False, announce=said.append)
    return said


def test_it_listens_on_this_machine_alone(served, database):
    (said,) = start(database)
    (call,) = served
    assert call["host"] == "127.0.0.1"
    assert f"http://127.0.0.1:{call['port']}/" in said and database in said


def test_it_shows_the_studies_and_artifacts_of_the_database(served, database):
    start(database)
    (call,) = served
    assert optuna.get_all_study_names(call["storage"]) == ["s"]
    assert call["artifact_store"] is not None


def test_a_taken_port_moves_on_to_the_next(served, database, taken_port):
    start(database, taken_port)
    assert taken_port < served[0]["port"] < taken_port + 100


@pytest.mark.parametrize("asked", [True, False])
def test_a_browser_is_opened_only_if_asked_for(served, database, monkeypatch, asked):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    serve(database, 18080, open_browser=asked, announce=lambda text: None)
    assert len(opened) == asked


def test_a_missing_database_is_an_error_and_none_is_created(served, tmp_path):
    with pytest.raises(UserError, match="No study database"):
        start(f"sqlite:///{tmp_path / 'studies.db'}")
    assert served == [] and list(tmp_path.iterdir()) == []
