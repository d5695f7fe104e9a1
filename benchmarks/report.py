"""Time the report of a large study: ``python benchmarks/report.py --trials 1000``.

The study is made up: its trials are written straight into the database, with predictions for 400
validation images in 15 epochs each, and the two best are confirmed. What is measured is a new
process that writes the report, imports included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from studies.database.storage import StudyStorage, create_study, open_storage
from studies.database.study import (
    read_study,
    write_confirm,
    write_identity,
    write_search,
    write_totals,
)

NUM_VAL, NUM_EPOCHS = 400, 15
DEPTH = 19
RANGES = {
    "backbone": CategoricalDistribution(["mobilenet_v2", "efficientnet_lite0"]),
    "strategy": CategoricalDistribution(["feature_extraction", "fine_tuning"]),
    "batch_size": CategoricalDistribution([8, 16, 32, 64]),
}
RATES = {
    "feature_extraction": FloatDistribution(1e-4, 1e-1, log=True),
    "fine_tuning": FloatDistribution(1e-4, 3e-2, log=True),
}
SETTINGS = {
    "metric": "accuracy",
    "epochs": NUM_EPOCHS,
    "patience": 5,
    "image_size": 224,
    "resize": "squeeze",
    "num_views": 1,
    "flip": "horizontal",
    "seed": 0,
    "weights": "imagenet",
    "sampler": "tpe",
    "pruner": "median",
    "precision": "auto",
}


def make_study(storage: StudyStorage, num_trials: int) -> None:
    """A study of so many trials, and ``NAME/confirm`` with three seeds of the best of each."""
    rng = np.random.default_rng(0)
    labels_N = np.arange(NUM_VAL) % 2
    study = create_study(storage, "large", "accuracy")
    counts = {s: {"NORMAL": n // 2, "PNEUMONIA": n // 2} for s, n in SPLITS.items()}
    write_identity(
        study,
        {
            "settings": SETTINGS,
            "space": {
                "name": "made up",
                "depths": {},
                "parameters": [
                    {"name": name, "strategy": None, "choices": list(found.choices), "log": False}
                    for name, found in RANGES.items()
                ],
            },
            "data": {
                "source": "nowhere",
                "classes": ["NORMAL", "PNEUMONIA"],
                "counts": counts,
                "fingerprint": "a" * 64,
                "test_fingerprint": "b" * 64,
            },
            "weights": {},
            "threads": 2,
            "opening": [],
        },
    )
    write_totals(study, num_trials, None)
    trials = [made(storage, rng, labels_N, number) for number in range(num_trials)]
    study.add_trials(trials)
    best = {
        strategy: max(
            (t for t in trials if t.params["strategy"] == strategy and t.value is not None),
            key=lambda t: t.value,
        )
        for strategy in RATES
    }
    numbers = [trials.index(trial) for trial in best.values()]
    confirm = create_study(storage, "large/confirm", "accuracy")
    stored = {"num_seeds": 3, "resplit": False, "choose": "best", "seeds": [1, 2, 3]}
    write_confirm(confirm, {**stored, "candidates": numbers})
    record = read_study(study)
    assert record is not None
    write_search(confirm, record.search_id)
    for number, (strategy, trial) in zip(numbers, best.items(), strict=True):
        for seed in (1, 2, 3):
            confirm.add_trial(
                made(storage, rng, labels_N, 3 * number + seed, strategy, (number, seed), trial)
            )


SPLITS = {"train": 1600, "val": NUM_VAL, "test": 400}


def made(
    storage: StudyStorage,
    rng: np.random.Generator,
    labels_N: np.ndarray,
    number: int,
    strategy: str | None = None,
    repeat: tuple[int, int] | None = None,
    params_of: FrozenTrial | None = None,
) -> FrozenTrial:
    """A complete trial with its history and stored predictions; a repeat has another's params."""
    strategy = strategy or str(rng.choice(list(RATES)))
    rate = RATES[strategy]
    ranges = {**RANGES, f"learning_rate@{strategy}": rate}
    params = {
        name: found.choices[rng.integers(len(found.choices))] for name, found in RANGES.items()
    }
    params |= {"strategy": strategy}
    params[f"learning_rate@{strategy}"] = float(
        np.exp(rng.uniform(*np.log([rate.low, rate.high])))
    )
    if strategy == "fine_tuning":
        ranges["num_unfrozen_layers"] = IntDistribution(1, DEPTH)
        params["num_unfrozen_layers"] = int(rng.integers(1, DEPTH + 1))
    if params_of is not None:
        params = dict(params_of.params)
    if repeat is not None:
        for name, value in zip(("candidate", "seed"), repeat, strict=True):
            ranges[name], params[name] = IntDistribution(0, 2**32 - 1), value
    skill = rng.uniform(1, 3)
    sign_N = np.where(labels_N == 1, 1.0, -1.0)
    margins_EN = skill * sign_N + rng.normal(0, 1.5, (NUM_EPOCHS, NUM_VAL))
    logits_ENC = np.stack([-margins_EN, margins_EN], axis=2).astype(np.float32)
    accuracies = (logits_ENC.argmax(axis=2) == labels_N).mean(axis=1)
    best = int(accuracies.argmax())
    name = f"predictions-{number}-{0 if repeat is None else 1}"
    folder = storage.files / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:
        np.savez(file, logits_ENC=logits_ENC, labels_N=labels_N)
    history = [
        {
            "epoch": epoch + 1,
            "all_layers_train": True,
            "train": {"accuracy": float(accuracy), "loss": 0.3},
            "val": {"accuracy": float(accuracy), "loss": 0.3},
            "training_seconds": 0.1,
            "validation_seconds": 0.01,
        }
        for epoch, accuracy in enumerate(accuracies)
    ]
    timing = {"total": 1.7, "training": 1.5, "validation": 0.15, "activations": 0.0}
    return optuna.create_trial(
        state=TrialState.COMPLETE,
        value=float(accuracies[best]),
        params=params,
        distributions=ranges,
        intermediate_values={e + 1: float(a) for e, a in enumerate(accuracies)},
        user_attrs={
            "claim": {"schema": 1, "worker": "made up", "logical_number": number},
            "provenance": {"config": {}, "versions": {}},
            "result": {
                "history": history,
                "best_epoch": best + 1,
                "timing": timing,
                "predictions": name,
                "cache": {},
                "peak_memory_bytes": 10**9,
            },
            "seconds": 1.7,
            "num_trainable_parameters": 1000,
        },
    )


def main() -> None:
    """Make the study, then time the report in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(str(Path(folder) / "studies.db"))
        make_study(storage, given.trials)
        command = [sys.executable, "-m", "studies", "report", "large"]
        command += ["--storage", str(Path(folder) / "studies.db"), "--out", f"{folder}/report"]
        seconds = []
        for _ in range(given.repeats):
            started = perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(perf_counter() - started)
        size = (Path(folder) / "report" / "report.html").stat().st_size
    print(json.dumps({"trials": given.trials, "seconds": seconds, "html_bytes": size}))


if __name__ == "__main__":
    main()
