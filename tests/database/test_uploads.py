"""Files stored with trials and studies: whole, named, and none that a browser would run."""

import json

import optuna
import pytest

from studies.database.artifacts import upload
from studies.database.storage import open_storage


@pytest.fixture
def storage(tmp_path):
    return open_storage(str(tmp_path / "studies.db"))


@pytest.fixture
def study(storage):
    return optuna.create_study(storage=storage.database, study_name="s")


def artifacts_of(attributes):
    return [json.loads(v) for k, v in attributes.items() if k.startswith("artifacts:")]


@pytest.mark.parametrize("name", ["a.png", "a.csv", "a.json", "a.npz", "a.safetensors"])
def test_a_file_of_a_trial_has_its_name_and_content(storage, study, name):
    trial = study.ask()
    artifact = upload(storage, trial, name, lambda path: path.write_bytes(b"content"))
    (found,) = artifacts_of(study.get_trials()[0].system_attrs)
    assert (found["artifact_id"], found["filename"]) == (artifact, name)
    assert (storage.files / "artifacts" / artifact).read_bytes() == b"content"


def test_a_file_of_a_study_is_stored_with_it(storage, study):
    artifact = upload(storage, study, "a.json", lambda path: path.write_text("{}"))
    (found,) = artifacts_of(storage.database.get_study_system_attrs(1))
    assert found["artifact_id"] == artifact


@pytest.mark.parametrize("name", ["page.html", "figure.svg", "a.csv.htm", "png", ""])
def test_what_a_browser_might_run_is_refused_before_it_is_written(storage, study, name):
    written = []
    with pytest.raises(ValueError, match=f"but got '{name}'"):
        upload(storage, study, name, written.append)
    assert written == [] and artifacts_of(storage.database.get_study_system_attrs(1)) == []
