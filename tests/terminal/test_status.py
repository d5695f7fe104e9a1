"""Status: studies and trials of a database, read and never changed."""

import io

import optuna
import pytest
from rich.console import Console

from studies.database.ledger import open_entry
from studies.database.storage import open_storage
from studies.database.study import write_identity, write_totals
from studies.database.trials import write_owner, write_reason
from studies.errors import UserError
from studies.terminal.status import print_status, status_json

CHECK = {"allowed": [], "left_out": {}}
DATA = {"test_fingerprint": "a" * 64, "check": CHECK}


@pytest.fixture
def database(tmp_path):
    """Two studies: `done` with a complete and a failed trial, `other` without any."""
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    for name in ("done", "other"):
        study = optuna.create_study(storage=storage.database, study_name=name)
        settings = {"metric": "auroc", "image_size": 64, "resize": "pad"}
        identity = {"settings": settings, "opening": [], "data": DATA}
        write_identity(study, identity)
        write_totals(study, 9, None)
        if name == "done":
            for number in range(2):
                trial = study.ask()
                write_owner(trial, worker="host:1:ab", logical_number=number)
                trial.suggest_categorical("strategy", ["fine_tuning"])
                if number == 0:
                    study.tell(trial, 0.75)
                else:
                    write_reason(storage, study, number, "out of memory")
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    optuna.create_study(storage=storage.database, study_name="foreign")
    return storage.url


def text_of(database, name):
    console = Console(width=80, file=io.StringIO(), record=True)
    print_status(console, database, name)
    return console.export_text()


def test_without_a_name_all_studies_are_counted(database):
    studies = {s["study"]: s for s in status_json(database, None)["studies"]}
    counts = {"complete": 1, "pruned": 0, "fail": 1, "running": 0}
    assert studies["done"] == {"study": "done", "metric": "auroc", "trials": counts}
    assert set(studies["other"]["trials"].values()) == {0}
    assert studies["foreign"]["metric"] is None


def test_with_a_name_its_trials_are_listed(database):
    value = status_json(database, "done")
    assert value["study"] == "done"
    assert value["settings"]["resize"] == "pad"
    assert [(t["number"], t["state"], t["value"], t["reason"]) for t in value["trials"]] == [
        (0, "COMPLETE", 0.75, None),
        (1, "FAIL", None, "out of memory"),
    ]


def test_the_tables_say_the_same(database):
    assert all(name in text_of(database, None) for name in ("done", "other", "foreign", "auroc"))
    text = text_of(database, "done")
    assert "Images of 64 px, padded to a square." in text
    assert "0.7500" in text and "1 complete, 0 pruned, 1 fail" in text and "9 trials" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "there are: .*done"), ("foreign", "not made by transfer-studies")],
)
def test_a_study_that_cannot_be_shown_is_refused(database, name, said):
    with pytest.raises(UserError, match=said):
        status_json(database, name)


def test_a_missing_database_is_an_error_and_none_is_created(tmp_path):
    with pytest.raises(UserError, match="No study database"):
        status_json(f"sqlite:///{tmp_path / 'studies.db'}", None)
    assert list(tmp_path.iterdir()) == []


def test_every_opening_of_the_test_images_is_told(database):
    assert status_json(database, "done")["openings"] == []
    assert "The test images are sealed." in text_of(database, "done")
    open_entry(
        open_storage(database),
        test_fingerprint=DATA["test_fingerprint"],
        study="other",
        bundle="c" * 64,
        reason=None,
        predicted={},
    )
    (opening,) = status_json(database, "done")["openings"]
    assert (opening["opening"], opening["study"], opening["is_finished"]) == (1, "other", False)
    assert "The test images were opened, on 20" in text_of(database, "done")


def test_a_study_of_an_older_version_is_still_shown_and_its_openings_count(database):
    storage = open_storage(database)
    study = optuna.load_study(storage=storage.database, study_name="done")
    settings = {"metric": "auroc", "image_size": 64}
    older = {**study.user_attrs["identity"], "schema": 1, "settings": settings}
    study.set_user_attr("identity", older)
    open_entry(
        storage,
        test_fingerprint="a" * 64,
        study="done",
        bundle="b" * 64,
        reason=None,
        predicted={},
    )
    assert "opened" in text_of(database, "done") and "1 complete" in text_of(database, "done")
    assert "squeezed to a square" in text_of(database, "done")
    assert {s["study"] for s in status_json(database, None)["studies"]} >= {"done", "other"}


def test_brackets_in_the_name_of_a_folder_are_shown_as_they_are(tmp_path):
    """Rich takes [/b] for the end of something bold."""
    folder = tmp_path / "[b]scans[" / "b]"
    folder.mkdir(parents=True)
    storage = open_storage(f"sqlite:///{folder / 's.db'}")
    optuna.create_study(storage=storage.database, study_name="one")
    console = Console(width=400, file=io.StringIO(), record=True)
    print_status(console, storage.url, None)
    assert "[b]scans[/b]/s.db" in console.export_text()
