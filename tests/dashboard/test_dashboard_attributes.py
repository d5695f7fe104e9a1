"""The dashboard's answers have attributes for people alone, whatever else they have."""

import csv
import io
import json

import optuna
import pytest
from dashboards import ask, detail, running

from studies.dashboard.attributes import HIDDEN, without_records
from studies.database.storage import open_storage
from studies.database.study import STUDY_ATTRIBUTES
from studies.database.trials import RECORD_ATTRIBUTES

LONG = {"history": ["x" * 200_000]}


@pytest.fixture
def database(tmp_path):
    storage = open_storage(str(tmp_path / "studies.db"))
    study = optuna.create_study(storage=storage.database, study_name="s")
    for key in (*STUDY_ATTRIBUTES, "decoding_seconds"):
        study.set_user_attr(key, LONG)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for key in RECORD_ATTRIBUTES:
        trial.set_user_attr(key, LONG)
    trial.set_user_attr("seconds", 1.5)
    trial.set_user_attr("reason", 'says "no", twice\nand more')
    study.tell(trial, 1.0)
    storage.database.engine.dispose()
    return tmp_path / "studies.db"


def keys(attributes):
    return {attribute["key"] for attribute in attributes}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_study_shows_columns_for_people_and_no_record(database, read_only):
    with running(database, read_only=read_only) as server:
        found = detail(server)
        listed = json.loads(ask(server, "api/studies")[2])["study_summaries"]
    assert keys(found["user_attrs"]) == {"decoding_seconds"}
    assert keys(listed[0]["user_attrs"]) == {"decoding_seconds"}
    for part in (found["trials"][0], found["best_trials"][0]):
        assert keys(part["user_attrs"]) == {"seconds", "reason"}
    assert keys(found["union_user_attrs"]) == {"seconds", "reason"}
    assert found["trials"][0]["params"][0]["name"] == "x"
    assert found["trials"][0]["values"] == [1.0]


def test_the_table_as_csv_has_the_same_columns(database):
    with running(database) as server:
        status, headers, content = ask(server, "csv/1")
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert status == 200 and int(headers["Content-Length"]) == len(content)
    assert set(rows[0]) == {
        "Number",
        "State",
        "Value",
        "Param x",
        "UserAttribute seconds",
        "UserAttribute reason",
    }
    assert rows[0]["UserAttribute reason"] == 'says "no", twice\nand more'


def test_an_answer_that_is_no_success_is_left_as_it_is(database):
    with running(database) as server:
        status, _, content = ask(server, "api/studies/99")
        assert status == 404 and "study_id=99" in json.loads(content)["reason"]
        assert ask(server, "csv/99")[0] == 404


def test_other_answers_and_requests_pass_untouched():
    seen = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "9")])
        return [b"not json!"]

    for method, path in (("GET", "/artifacts/1/2"), ("POST", "/api/studies"), ("GET", "/")):
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
        parts = without_records(app)(environ, lambda status, headers: seen.append(headers))
        assert parts == [b"not json!"]
    assert seen == [[("Content-Length", "9")]] * 3


def test_what_is_hidden_is_what_records_are_stored_under():
    """And none of the columns."""
    assert {"claim", "provenance", "result", "identity", "data_card"} <= HIDDEN
    assert not HIDDEN & {"seconds", "reason", "duplicate_of", "peak_memory_mb"}
