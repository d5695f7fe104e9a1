"""What a training leaves: its epochs, which of them is the best, and the trained part.

Knows metrics by name; nothing of how anything was trained.

Legend: N validation images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from transfer.config import is_better


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch, counted from 1. ``train`` is measured on the way: dropout, views and mixup.

    ``all_layers_train`` is false while layers are still being unfrozen gradually.
    """

    epoch: int
    train: dict[str, float]
    val: dict[str, float]
    val_logits_NC: NDArray[np.float32]
    training_seconds: float
    validation_seconds: float
    all_layers_train: bool = True

    def as_json(self) -> dict[str, Any]:
        """All but the predictions."""
        return {
            "epoch": self.epoch,
            "all_layers_train": self.all_layers_train,
            "train": self.train,
            "val": self.val,
            "training_seconds": self.training_seconds,
            "validation_seconds": self.validation_seconds,
        }


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run leaves: ``trained_state`` holds the best epoch's trained blocks and head.

    ``micro_batch_size`` images trained at a time, a whole batch unless memory was short; BatchNorm
    took its statistics over them where ``batch_norm_trains``.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    num_trainable_parameters: int
    activation_seconds: float
    peak_memory_bytes: int
    micro_batch_size: int
    batch_norm_trains: bool
    start_boundary: int
    kept_bytes: int
    was_at_hand: bool
    trained_state: dict[str, Tensor] = field(repr=False)

    @property
    def best(self) -> EpochRecord:
        return self.history[self.best_epoch - 1]


def best_epoch(history: Sequence[EpochRecord], metric: str) -> int:
    """The epoch with the best ``metric``; ties go to the lower validation loss.

    Epochs in which not all layers trained don't count; while there are no others, the last does.
    """
    best, *others = [record for record in history if record.all_layers_train] or history[-1:]
    for record in others:
        value, than = record.val[metric], best.val[metric]
        tie = value == than and record.val["loss"] < best.val["loss"]
        best = record if tie or is_better(metric, value, than) else best
    return best.epoch
