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

from transfer.config import score_of


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch, counted from 1. ``train`` is measured on the way: dropout, views and mixup.

    ``val`` has the metrics of the validation images, and their calibrated loss.

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
    took its statistics over them where ``batch_norm_trains``. ``peak_memory_bytes`` were held at a
    time beyond what was held before the run; None where the system doesn't tell.
    ``train_metrics`` are those of the kept network on the training images as it is validated: in
    eval mode, without views and mixing. They took ``train_metrics_seconds``, and are None where
    the caller ended the run.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    num_trainable_parameters: int
    activation_seconds: float
    peak_memory_bytes: int | None
    micro_batch_size: int
    batch_norm_trains: bool
    start_boundary: int
    kept_bytes: int
    was_at_hand: bool
    train_metrics: dict[str, float] | None = None
    train_metrics_seconds: float = 0.0
    trained_state: dict[str, Tensor] = field(repr=False)

    @property
    def best(self) -> EpochRecord:
        return self.history[self.best_epoch - 1]


def best_epoch(history: Sequence[EpochRecord], criterion: str) -> int:
    """The epoch with the best ``criterion``; ties go to the lower validation loss.

    Epochs in which not all layers trained don't count; while there are no others, the last does.
    """
    best, *others = [record for record in history if record.all_layers_train] or history[-1:]
    for record in others:
        value, than = (score_of(criterion, r.val[criterion]) for r in (record, best))
        tie = value == than and record.val["loss"] < best.val["loss"]
        best = record if tie or value > than else best
    return best.epoch
