"""Files of a trial: what is stored can be read again."""

import json
from dataclasses import replace

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch
from histories import HISTORY

from studies.dashboard.pictures import MOST_CLASSES, trial_pictures
from studies.database.artifacts import read_arrays
from studies.database.storage import open_storage
from studies.search.objective import (
    upload_history,
    upload_pictures,
    upload_predictions,
    upload_weights,
)
from transfer.data.loading import Split

VAL = Split(positions_N=np.array([7, 9, 11]), labels_N=np.array([0, 1, 1]))


@pytest.fixture
def storage(tmp_path):
    return open_storage(str(tmp_path / "studies.db"))


@pytest.fixture
def trial(storage):
    return optuna.create_study(storage=storage.database, study_name="s").ask()


def files(storage, trial):
    attributes = storage.database.get_trial_system_attrs(trial._trial_id)
    found = [json.loads(v) for k, v in attributes.items() if k.startswith("artifacts:")]
    return {a["filename"]: storage.files / "artifacts" / a["artifact_id"] for a in found}


def test_predictions_of_every_epoch_are_one_array(storage, trial):
    logits = [np.full((3, 2), epoch, np.float32) for epoch in range(4)]
    artifact = upload_predictions(storage, trial, logits, VAL)
    path = files(storage, trial)["predictions.npz"]
    assert path.name == artifact
    with np.load(path, allow_pickle=False) as stored:
        assert stored["logits_ENC"].shape == (4, 3, 2) and stored["logits_ENC"][3, 0, 0] == 3
        assert stored["labels_N"].tolist() == [0, 1, 1]
        assert stored["positions_N"].tolist() == [7, 9, 11]


def test_weights_are_read_back_whatever_their_layout(storage, trial):
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    upload_weights(storage, trial, {"w": tensor})
    path = files(storage, trial)["trained.safetensors"]
    assert torch.equal(safetensors.torch.load_file(path)["w"], tensor)


def test_a_matrix_of_many_classes_is_not_drawn():
    given = {
        "metric": "accuracy",
        "strategy": "fine_tuning",
        "labels_N": VAL.labels_N,
        "best_epoch": 1,
    }
    classes = [f"class {number}" for number in range(MOST_CLASSES + 1)]
    logits_NC = np.zeros((3, len(classes)), np.float32)
    pictures = trial_pictures(HISTORY, logits_NC=logits_NC, classes=classes, **given)
    assert set(pictures) == {"learning_curve.png"}


def test_the_course_is_a_table_and_pictures_are_two(storage, trial):
    upload_history(storage, trial, HISTORY)
    pictures = trial_pictures(
        HISTORY,
        metric="accuracy",
        strategy="fine_tuning",
        best_epoch=1,
        logits_NC=np.eye(3, 2, dtype=np.float32),
        labels_N=VAL.labels_N,
        classes=("no", "yes"),
    )
    upload_pictures(storage, trial, pictures)
    found = files(storage, trial)
    assert set(found) == {"history.csv", "learning_curve.png", "confusion_matrix.png"}
    assert found["history.csv"].read_text().count("\n") == 3
    pictures = [
        found[name].read_bytes() for name in ("learning_curve.png", "confusion_matrix.png")
    ]
    assert pictures[0] != pictures[1] and all(png.startswith(b"\x89PNG") for png in pictures)


def test_groups_are_stored_where_they_are_known(storage, trial):
    known = replace(VAL, groups_N=np.array([4, 4, 5]))
    for val in (VAL, known):
        artifact = upload_predictions(storage, trial, [np.zeros((3, 2), np.float32)], val)
        with np.load(storage.files / "artifacts" / artifact, allow_pickle=False) as stored:
            assert ("groups_N" in stored) == (val.groups_N is not None)
    assert stored_groups(storage, artifact) == [4, 4, 5]


def stored_groups(storage, artifact):
    return read_arrays(storage, artifact, "predictions")["groups_N"].tolist()
