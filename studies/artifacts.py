"""Artifacts of trials and studies, read: files in the folder beside the database.

Knows where they lie and what an array file holds; not what follows from it. Never imports torch.
"""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studies.calibration import Labels
from studies.errors import UserError
from studies.records import TrialRecord
from studies.storage import StudyStorage

# What the final evaluation keeps as artifacts of the study.
TEST_PREDICTIONS, TEST_FEATURES, TEST_THUMBNAILS = (
    "test_predictions.npz",
    "test_features.npz",
    "test_thumbnails.npz",
)


class StoredPredictions(NamedTuple):
    """Logits (E, N, C) of every epoch for the validation images, and the labels (N,)."""

    logits_ENC: NDArray[np.float32]
    labels_N: Labels


def artifact_bytes(storage: StudyStorage, artifact: str | None, what: str) -> bytes:
    """An artifact's content.

    Raises:
        UserError: it is missing; ``what`` says what it is.
    """
    check_artifact(storage, artifact, what)
    return (storage.files / "artifacts" / (artifact or "")).read_bytes()


def check_artifact(storage: StudyStorage, artifact: str | None, what: str) -> None:
    """Raise ``UserError`` unless the artifact is there."""
    path = storage.files / "artifacts" / (artifact or "")
    if artifact is None or not path.is_file():
        raise UserError(
            f"The {what} are missing at {path}; take the folder {storage.files} back from a copy."
        )


def read_arrays(storage: StudyStorage, artifact: str | None, what: str) -> Mapping[str, Any]:
    """The arrays of an npz artifact by name. Nothing in it is run.

    Raises:
        UserError: it is missing.
    """
    content = artifact_bytes(storage, artifact, what)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def read_predictions(storage: StudyStorage, run: TrialRecord) -> StoredPredictions:
    """What a training said of its validation images, epoch by epoch.

    Raises:
        UserError: it is missing.
    """
    stored = read_arrays(storage, run.predictions, f"predictions of trial {run.number}")
    return StoredPredictions(stored["logits_ENC"], stored["labels_N"])
