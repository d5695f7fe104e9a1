"""Files stored with a trial: its course, predictions and weights, and pictures where they matter.

Legend: E epochs, N validation images, C classes.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from studies.database.storage import StudyStorage
from studies.database.trials import PREDICTIONS, WEIGHTS
from studies.database.uploads import upload
from transfer.data.loading import Split

HISTORY = "history.csv"


def history_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """A row an epoch: its number, metrics of training and validation images, seconds.

    Args:
        history: as a trial stores it; see ``trials.write_result``.
    """
    rows = [
        {
            "epoch": epoch["epoch"],
            **{f"train_{name}": value for name, value in epoch["train"].items()},
            **{f"val_{name}": value for name, value in epoch["val"].items()},
            "training_seconds": epoch["training_seconds"],
            "validation_seconds": epoch["validation_seconds"],
            "all_layers_train": epoch["all_layers_train"],
        }
        for epoch in history
    ]
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(rows[0]) if rows else ["epoch"])
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def upload_history(
    storage: StudyStorage, trial: optuna.Trial, history: Sequence[Mapping[str, Any]]
) -> None:
    """Store the metrics and seconds of every epoch as CSV."""
    text = history_csv(history)
    upload(storage, trial, HISTORY, lambda path: path.write_text(text, "utf-8"))


def upload_predictions(
    storage: StudyStorage,
    trial: optuna.Trial,
    logits: Sequence[NDArray[np.float32]],
    val: Split,
) -> str:
    """Store logits with labels, positions and known groups (N,); returns the artifact's id.

    Args:
        logits: of every epoch (N, C); stored as one array (E, N, C).
    """
    arrays: dict[str, Any] = {
        "logits_ENC": np.stack(logits),
        "labels_N": val.labels_N,
        "positions_N": val.positions_N,
    }
    if val.groups_N is not None:
        arrays["groups_N"] = val.groups_N
    return upload(storage, trial, PREDICTIONS, lambda path: np.savez(path, **arrays))


def upload_weights(
    storage: StudyStorage, trial: optuna.Trial, trained_state: Mapping[str, Tensor]
) -> str:
    """Store trained blocks and head as safetensors; returns the id."""
    # Contiguous copies: safetensors refuses tensors in channels-last order.
    tensors = {key: tensor.cpu().contiguous() for key, tensor in trained_state.items()}
    return upload(storage, trial, WEIGHTS, lambda path: save_file(tensors, path))


def upload_pictures(
    storage: StudyStorage, trial: optuna.Trial, pictures: Mapping[str, bytes]
) -> None:
    """Store PNG files by name."""
    for name, png in pictures.items():
        upload(storage, trial, name, partial(_write, content=png))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
