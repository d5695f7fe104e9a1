"""Files of trials and studies, in the folder beside the database: written whole, and read.

Of kinds that run nothing. Knows Optuna's artifact store, where files lie and what an array file
holds; not what follows from it. Never imports torch.
"""

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.artifacts import upload_artifact

from studies.database.storage import StudyStorage
from studies.database.trials import TrialRecord
from studies.errors import UserError
from studies.statistics.calibration import uncalibrated
from studies.statistics.metrics import Floats, Labels

# Of opened test images, as `evaluate` names them in the ledger.
TEST_PREDICTIONS, TEST_FEATURES, TEST_THUMBNAILS = (
    "test_predictions.npz",
    "test_features.npz",
    "test_thumbnails.npz",
)


class StoredPredictions(NamedTuple):
    """Logits (E, N, C) of every epoch for the validation images, labels and groups (N,).

    Groups are None where nobody knows whose pictures they are.
    """

    logits_ENC: NDArray[np.float32]
    labels_N: Labels
    groups_N: Labels | None = None


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
    return StoredPredictions(stored["logits_ENC"], stored["labels_N"], stored.get("groups_N"))


def best_epoch(
    storage: StudyStorage, run: TrialRecord
) -> tuple[Labels, Floats, Labels | None] | None:
    """Labels (N,), probabilities (N, C) at a training's best epoch, groups; None without any.

    Before temperature, as validation metrics are.
    """
    try:
        stored = read_predictions(storage, run)
    except UserError:
        return None
    assert run.best_epoch is not None
    of_best_NC = uncalibrated(stored.logits_ENC[run.best_epoch - 1])
    return stored.labels_N, of_best_NC, stored.groups_N


# Never HTML or SVG: opened from a dashboard they run their scripts in its origin.
KINDS = (".png", ".csv", ".json", ".npz", ".safetensors")


def upload(
    storage: StudyStorage,
    owner: optuna.Study | optuna.Trial,
    name: str,
    write: Callable[[Path], object],
) -> str:
    """Store a file with a study or a running trial; returns the artifact's id.

    Args:
        name: what the file is called in the dashboard.
        write: writes the file at the path that it is given.

    Raises:
        ValueError: the name's ending is none of ``KINDS``.
    """
    if not name.endswith(KINDS):
        raise ValueError(f"Only {', '.join(KINDS)} files are stored, but got '{name}'.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return upload_artifact(
            artifact_store=storage.artifacts, file_path=str(path), study_or_trial=owner
        )
