"""Milliseconds of bookkeeping a trial: everything but decoding and networks.

Runs a study through the real runner with a training that returns at once: hand-out, sampler,
provenance, six reports, pruning rule, predictions artifact, result, state. SQLite on this disk.

    python benchmarks/bookkeeping.py [--trials 100]
"""

import argparse
import platform
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import optuna

from studies.search import run as runner
from studies.search import worker as worker
from studies.search.objective import Objective
from studies.settings import read_options
from studies.signals import StopSignals
from studies.terminal.progress import LineProgress
from studies.workflow import FACES
from transfer.training.result import EpochRecord, TrainingResult

NUM_EPOCHS, NUM_VAL = 6, 400


def instant_train(config, activations, on_epoch, limits):
    """Report six epochs whose accuracy depends on the configuration; train nothing."""
    quality = 0.8 + 0.02 * np.sin(1e4 * config.learning_rate)
    metrics = dict.fromkeys(("loss", "accuracy", "balanced_accuracy", "auroc", "f1"), quality)
    history = []
    for epoch in range(1, NUM_EPOCHS + 1):
        record = EpochRecord(
            epoch=epoch,
            train=metrics,
            val={**metrics, "accuracy": quality + 0.01 * epoch},
            val_logits_NC=np.zeros((NUM_VAL, 2), np.float32),
            training_seconds=0.0,
            validation_seconds=0.0,
        )
        history.append(record)
        if on_epoch(record):
            break
    return TrainingResult(
        history=tuple(history),
        best_epoch=len(history),
        num_trainable_parameters=2562,
        activation_seconds=0.0,
        peak_memory_bytes=0,
        micro_batch_size=config.batch_size,
        batch_norm_trains=False,
        start_boundary=0,
        kept_bytes=0,
        was_at_hand=False,
        trained_state={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    num_trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        options = read_options(
            {
                "data": f"phantom:train={5 * NUM_VAL},test=20,size=32",
                "space": "default",
                "weights": "random",
                "trials": num_trials,
                "confirm": False,
                "epochs": NUM_EPOCHS,
                "storage": f"sqlite:///{folder}/studies.db",
                "cache_dir": Path(folder) / "cache",
            }
        )
        quiet = LineProgress()
        ends = [perf_counter()]
        patched = patch.object(worker, "Objective", partial(Objective, train=instant_train))
        watch = patch.object(quiet, "trial_finished", lambda *_: ends.append(perf_counter()))
        with StopSignals() as signals, patched, watch:
            runner.run_study(options, quiet, signals, faces=FACES)
    milliseconds = 1000 * np.diff(ends[1:])
    print(f"Optuna {optuna.__version__}, Python {platform.python_version()}, {num_trials} trials")
    for name, part in (("all", milliseconds), ("last 20", milliseconds[-20:])):
        low, middle, high = np.percentile(part, [5, 50, 95])
        print(f"{name}: median {middle:.0f} ms a trial (5 % {low:.0f}, 95 % {high:.0f})")


if __name__ == "__main__":
    main()
