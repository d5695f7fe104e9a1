"""Artifacts are read as data, and one that is missing is named with the way out."""

import numpy as np
import pytest
from optuna.artifacts import upload_artifact

from studies.database.artifacts import artifact_bytes, check_artifact, read_arrays
from studies.database.storage import create_study, open_storage
from studies.errors import UserError


@pytest.fixture
def storage(tmp_path):
    return open_storage(str(tmp_path / "studies.db"))


def stored(storage, tmp_path, **arrays):
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    study = create_study(storage, "s", "accuracy")
    return upload_artifact(
        artifact_store=storage.artifacts, file_path=str(path), study_or_trial=study
    )


def test_arrays_come_back_as_they_were(storage, tmp_path):
    artifact = stored(storage, tmp_path, a=np.arange(3), names=np.array(["x", "y"]))
    check_artifact(storage, artifact, "arrays")
    found = read_arrays(storage, artifact, "arrays")
    assert found["a"].tolist() == [0, 1, 2] and found["names"].tolist() == ["x", "y"]
    assert artifact_bytes(storage, artifact, "arrays") == (tmp_path / "arrays.npz").read_bytes()


@pytest.mark.parametrize("artifact", [None, "nothing", ""])
def test_what_is_missing_is_named(storage, artifact):
    with pytest.raises(UserError, match=r"The pictures are missing at .*studies.files"):
        check_artifact(storage, artifact, "pictures")
    with pytest.raises(UserError, match="The pictures are missing"):
        artifact_bytes(storage, artifact, "pictures")


def test_pickles_are_not_run(storage, tmp_path):
    artifact = stored(storage, tmp_path, a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(storage, artifact, "arrays")
