"""How much faster a study's trainings are than the usual script's, side by side in one run.

Ours is timed from the first byte of decoding to the last epoch with an empty cache folder; test
images are decoded too, which the usual script never opens. The usual script (usual_script.py) is
timed for a few epochs, which are multiplied, with each number of --workers: the best one counts
(of a single epoch the workers' start is multiplied too; --usual-epochs takes more).
Both train MobileNetV2 on the same images, splits, learning rates and threads, in turn, so that a
ratio holds on a noisy machine, each in a process of its own. Files are in the page cache; imports
are not timed.

    python benchmarks/engine.py --data ../shared/data/chest_xray --weights-dir ../shared/weights

prints a paragraph for each of ROWS; --json FILE keeps every number that was measured.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import usual_script
from ours import (
    BACKBONE,
    BATCH_SIZE,
    FINE_TUNING_RATE,
    LIST_DEPTHS,
    LIST_RATES,
    Result,
    Run,
    RunAll,
    Setup,
    in_own_process,
    run_list,
    run_trainings,
)
from usual_script import Epoch

from transfer.config import TransferConfig
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.device import versions

MeasuredEpochs = list[dict[int, Epoch]]  # by number of workers
# Tells glibc what ours tells it by itself (transfer/device.py).
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}


def configuration(num_unfrozen_layers: int, epochs: int, learning_rate: float) -> TransferConfig:
    return TransferConfig(
        backbone=BACKBONE,
        strategy="fine_tuning" if num_unfrozen_layers else "feature_extraction",
        num_unfrozen_layers=num_unfrozen_layers,
        learning_rate=learning_rate,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        patience=epochs,
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A piece of work. ``num_usual`` epochs of the usual script are measured, and ours so often.

    ``measured_epochs`` of ours are trained where that is less than all.
    """

    what: str
    configs: tuple[TransferConfig, ...]
    run: RunAll = run_trainings
    num_usual: int = 1
    num_runs: int = 1
    measured_epochs: int | None = None

    def usual(self, k: int) -> TransferConfig:
        """The one that stands, on the usual side, for all that train so many layers."""
        like = [config for config in self.configs if config.num_unfrozen_layers == k]
        return like[len(like) // 2]


ROWS = {
    "last4": Row(
        what="fine-tuning, last 4 of 19 layers, 10 epochs",
        configs=(configuration(4, 10, FINE_TUNING_RATE),),
        num_usual=2,
        num_runs=2,
    ),
    "all": Row(
        what="fine-tuning, all layers, 10 epochs",
        configs=(configuration(19, 10, FINE_TUNING_RATE),),
        num_usual=2,
        num_runs=2,
        measured_epochs=2,
    ),
    "probes": Row(
        what="ten feature extractions of 20 epochs",
        configs=tuple(configuration(0, 20, float(rate)) for rate in np.geomspace(1e-3, 1e-1, 10)),
    ),
    "list": Row(
        what=f"a study of 5 probes and k = {', '.join(map(str, LIST_DEPTHS))}, 8 epochs each",
        configs=(
            *(configuration(0, 8, rate) for rate in LIST_RATES),
            *(configuration(k, 8, FINE_TUNING_RATE) for k in LIST_DEPTHS),
        ),
        run=run_list,
    ),
}


class UsualScript:
    """The usual script in a process of its own, as a user has it, an epoch at a time.

    In a process in which ours ran before, it finds memory that ours left and is up to four times
    as fast.
    """

    def __init__(
        self,
        setup: Setup,
        config: TransferConfig,
        *,
        epochs: int,
        num_workers: int,
        keeps_memory: bool,
    ) -> None:
        self._files = TemporaryDirectory()
        split = Path(self._files.name) / "split.json"
        split.write_text(json.dumps(dict(setup.names)))
        options = {
            "data": setup.folder,
            "weights-dir": setup.weights_dir,
            "split": split,
            "unfrozen": config.num_unfrozen_layers,
            "learning-rate": config.learning_rate,
            "batch-size": config.batch_size,
            "image-size": setup.image_size,
            "epochs": epochs,
            "workers": num_workers,
            "threads": setup.threads,
        }
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        self._process = subprocess.Popen(
            [sys.executable, usual_script.__file__, *flags, "--step"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(KEEP_FREED_MEMORY if keeps_memory else {})},
        )

    def epoch(self) -> Epoch:
        """Train and validate for one more epoch."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write("\n")
        stdin.flush()
        return Epoch(**json.loads(stdout.readline()))

    def close(self) -> None:
        self._process.communicate()
        self._files.cleanup()


def measure(
    setup: Setup,
    row: Row,
    workers: Sequence[int],
    num_usual: int | None = None,
    *,
    keeps_memory: bool = False,
) -> tuple[dict[int, MeasuredEpochs], list[Run]]:
    """Epochs of the usual script by number of trained layers, and our runs, in turn."""
    num_usual = num_usual or row.num_usual
    ks = sorted({config.num_unfrozen_layers for config in row.configs})
    epochs: dict[int, MeasuredEpochs] = {k: [] for k in ks}
    turns, runs = ks * num_usual, []
    ours = [replace(c, epochs=row.measured_epochs or c.epochs) for c in row.configs]
    # Each run of ours stands in the middle of its share of the usual script's epochs.
    due = [math.ceil(len(turns) * (i + 0.5) / row.num_runs) for i in range(row.num_runs)]
    with ExitStack() as stack:
        usual = {
            (k, n): UsualScript(
                setup,
                row.usual(k),
                epochs=num_usual,
                num_workers=n,
                keeps_memory=keeps_memory,
            )
            for k in ks
            for n in workers
        }
        for script in usual.values():
            stack.callback(script.close)
        for turn, k in enumerate(turns, start=1):
            epochs[k].append({n: usual[k, n].epoch() for n in workers})
            runs += [in_own_process(row.run, setup, ours) for place in due if place == turn]
    return epochs, runs


def mean_seconds(measured: MeasuredEpochs) -> dict[int, float]:
    """Seconds of an epoch by number of workers."""
    return {n: fmean(by_workers[n].seconds for by_workers in measured) for n in measured[0]}


def usual_seconds(config: TransferConfig, measured: MeasuredEpochs) -> float:
    """A whole training with the best number of workers."""
    seconds, num_workers = min((seconds, n) for n, seconds in mean_seconds(measured).items())
    return measured[0][num_workers].startup_seconds + config.epochs * seconds


def our_seconds(run: Run, configs: Sequence[TransferConfig]) -> float:
    """Wall time of a run, with the epochs that were left out at the median of the others."""
    pairs = zip(configs, (t["seconds"] for t in run.trainings), strict=True)
    return run.seconds + sum((c.epochs - len(epochs)) * median(epochs) for c, epochs in pairs)


def compare(row: Row, usual: Mapping[int, MeasuredEpochs], runs: Sequence[Run]) -> Result:
    """Every number of a row."""
    by_script = sum(usual_seconds(c, usual[c.num_unfrozen_layers]) for c in row.configs)
    by_us = fmean(our_seconds(run, row.configs) for run in runs)
    return {
        "what": row.what,
        "ratio": by_script / by_us,
        "usual_seconds": by_script,
        "our_seconds": by_us,
        "usual": {
            k: {
                "num_epochs": sum(c.epochs for c in row.configs if c.num_unfrozen_layers == k),
                "learning_rate": row.usual(k).learning_rate,
                "mean_seconds": mean_seconds(measured),
                "epochs": [{n: asdict(e) for n, e in by.items()} for by in measured],
            }
            for k, measured in usual.items()
        },
        "ours": [{**run.parts(), "trainings": run.trainings} for run in runs],
    }


def print_row(name: str, result: Result) -> None:
    trainings = [t for run in result["ours"] for t in run["trainings"]]
    precisions = ", ".join(sorted({t["precision"] for t in trainings}))
    print(f"\n{name}: {result['what']}, batch {BATCH_SIZE} (ours: {precisions}, usual: fp32)")
    for k, usual in result["usual"].items():
        print_depth(usual, [t for t in trainings if t["k"] == k])
    for run in result["ours"]:
        seconds = {part: f"{value:.2f}" for part, value in run.items() if part != "trainings"}
        print(f"  ours, seconds: {', '.join(' '.join(item) for item in seconds.items())}")
    print(
        f"  in all: usual {result['usual_seconds']:.1f} s, ours {result['our_seconds']:.2f} s, "
        f"decoding included: {result['ratio']:.1f} x",
        flush=True,
    )


def print_depth(usual: Result, trainings: Sequence[Result]) -> None:
    """An epoch and its accuracy on both sides, of the trainings of one number of layers."""
    seconds, num = usual["mean_seconds"], len(usual["epochs"])
    best = min(seconds, key=seconds.__getitem__)
    ours = median(value for t in trainings for value in t["seconds"])
    same = [t for t in trainings if t["learning_rate"] == usual["learning_rate"]]
    print(
        f"  k = {trainings[0]['k']}: {num} measured epochs x {usual['num_epochs'] / num:g}, "
        f"{', '.join(f'{s:.1f} s with {n} workers' for n, s in seconds.items())}; "
        f"ours {ours:.3g} s an epoch: {seconds[best] / ours:.1f} x\n"
        f"    val accuracy, best of {num}: "
        f"usual {max(by[best]['val_accuracy'] for by in usual['epochs']):.4f}, "
        f"ours {max(max(t['val_accuracies'][:num]) for t in same):.4f}; "
        f"of all epochs: ours {max(max(t['val_accuracies']) for t in trainings):.4f}"
    )


def machine() -> Result:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    info = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = [flag for flag in info.get("flags", "").split() if "bf16" in flag or "amx" in flag]
    return {
        "cpu": info.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "bf16": flags,
        "load": os.getloadavg(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="train/CLASS/ and test/CLASS/")
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--images", type=int, default=400, help="training and validation images")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="usual side's")
    parser.add_argument("--usual-epochs", type=int, help="measured epochs (by row: 2, 2, 1, 1)")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="usual side: start it with the variables that let glibc keep freed memory",
    )
    parser.add_argument("--precision", default="auto", help="of ours, in layers that train")
    parser.add_argument("--json", type=Path, help="file that keeps all numbers")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as name:
        folder = usual_script.linked_subset(arguments.data, arguments.images, Path(name) / "data")
        data = load_data(
            open_source(str(folder)),
            image_size=arguments.image_size,
            seed=0,
            cache_dir=Path(name),
        )
        splits = {"train": data.train, "val": data.val}
        setup = Setup(
            folder=folder,
            names={
                part: [data.names[i] for i in split.positions_N] for part, split in splits.items()
            },
            weights_dir=arguments.weights_dir,
            image_size=arguments.image_size,
            threads=arguments.threads,
            precision=arguments.precision,
        )
        about = {**machine(), "counts": data.counts, "image_size": data.image_size}
        print("\n".join(f"{key}: {value}" for key, value in about.items()))
        results = {}
        for row in arguments.rows:
            results[row] = compare(
                ROWS[row],
                *measure(
                    setup,
                    ROWS[row],
                    arguments.workers,
                    arguments.usual_epochs,
                    keeps_memory=arguments.keep_memory,
                ),
            )
            print_row(row, results[row])
            if arguments.json is not None:
                arguments.json.write_text(
                    json.dumps({"machine": about, "rows": results}, indent=1)
                )


if __name__ == "__main__":
    main()
