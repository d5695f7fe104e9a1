"""Stored trials, made up."""

from studies.database.trials import TrialRecord


def epoch(number, accuracy, loss=0.5):
    return {
        "epoch": number,
        "train": {"accuracy": 1.0, "loss": 0.1},
        "val": {"accuracy": accuracy, "loss": loss},
    }


def record(number, strategy, accuracy, backbone="resnet18", state="COMPLETE", **changes):
    fields = {
        "number": number,
        "state": state,
        "value": accuracy,
        "worker": "host:1:ab",
        "logical_number": number,
        "keyed_params": {"backbone": backbone, "strategy": strategy},
        "values": {1: accuracy},
        "config": {},
        "history": [epoch(1, accuracy)],
        "best_epoch": 1,
        "seconds": 10.0,
        "timing": {"training": 6.0, "validation": 2.0},
        "peak_memory_bytes": 1,
        "micro_batch_size": None,
        "batch_norm_trains": None,
        "cache": {},
        "num_trainable_parameters": 1,
        "reason": None,
        "duplicate_of": None,
        "predictions": None,
        "started": None,
        "ended": None,
    }
    return TrialRecord(**{**fields, **changes})
