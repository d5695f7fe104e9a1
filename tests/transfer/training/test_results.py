"""The best epoch is the best of those in which all layers trained. See also test_training.py."""

import numpy as np
import pytest

from transfer.training.result import EpochRecord, TrainingResult, best_epoch


def record(epoch, accuracy, loss=0.5, all_layers_train=True):
    return EpochRecord(
        epoch=epoch,
        train={},
        val={"accuracy": accuracy, "loss": loss},
        val_logits_NC=np.zeros((1, 2), np.float32),
        training_seconds=1.0,
        validation_seconds=0.5,
        all_layers_train=all_layers_train,
    )


@pytest.mark.parametrize(
    ("history", "metric", "best"),
    [
        ([record(1, 0.7), record(2, 0.9), record(3, 0.8)], "accuracy", 2),
        ([record(1, 0.7, 0.3), record(2, 0.9, 0.4)], "loss", 1),
        ([record(1, 0.9, 0.4), record(2, 0.9, 0.3)], "accuracy", 2),
        ([record(1, 0.9), record(2, 0.9)], "accuracy", 1),
        ([record(1, 0.9, all_layers_train=False), record(2, 0.6)], "accuracy", 2),
        ([record(1, 0.9, all_layers_train=False)], "accuracy", 1),
    ],
)
def test_the_best_epoch(history, metric, best):
    assert best_epoch(history, metric) == best


def test_a_result_knows_its_best_epoch():
    history = (record(1, 0.7), record(2, 0.9))
    result = TrainingResult(
        history=history,
        best_epoch=2,
        num_trainable_parameters=1,
        activation_seconds=0.0,
        peak_memory_bytes=0,
        micro_batch_size=1,
        batch_norm_trains=False,
        start_boundary=0,
        kept_bytes=0,
        was_at_hand=False,
        trained_state={},
    )
    assert result.best is history[1]
