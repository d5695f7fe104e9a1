"""Files stored with a trial or a study: written whole, and of kinds that run nothing.

Knows Optuna's artifact store; not what a file says. Never imports torch.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact

from studies.database.storage import StudyStorage

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
