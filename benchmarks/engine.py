"""How much faster a study's trainings are than the usual script's, side by side in one run.

Ours is timed from the first byte of decoding to the last epoch with an empty cache folder; test
images are decoded too, which the usual script never opens. The usual script (usual_script.py) is
timed for a few epochs, which are multiplied, with each number of --workers: the best one counts
(of a single epoch the workers' start is multiplied too; --usual-epochs takes more).
Both train MobileNetV2 on the same images, splits, learning rates and threads, in turn, so that a
ratio holds on a noisy machine. Files are in the page cache; imports are not timed.

    python benchmarks/engine.py --data ../shared/data/chest_xray --weights-dir ../shared/weights

prints a paragraph for each of ROWS; --json FILE keeps every number that was measured.
"""

import argparse
import json
import math
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import usual_script
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from usual_script import Epoch

from studies import preparation, runner
from studies.objective import Objective
from studies.progress import LineProgress
from studies.settings import StudyOptions
from studies.signals import StopSignals
from transfer.activations import Activations
from transfer.config import TransferConfig
from transfer.data.loading import ImageData, load_data
from transfer.data.sources import open_source
from transfer.device import choose_device, versions
from transfer.training import TrainingResult, train
from transfer.weights import find_weights

BACKBONE, BATCH_SIZE, FINE_TUNING_RATE = "mobilenet_v2", 32, 1e-4
LIST_RATES, LIST_DEPTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (2, 4, 9, 14, 19)
SPACE = f"""name = "list"
backbone.choices = ["{BACKBONE}"]
strategy.choices = ["feature_extraction", "fine_tuning"]
batch_size.choices = [{BATCH_SIZE}]
learning_rate.feature_extraction.choices = {list(LIST_RATES)}
learning_rate.fine_tuning.choices = [{FINE_TUNING_RATE}]
num_unfrozen_layers.fine_tuning.choices = {list(LIST_DEPTHS)}
"""

Result = dict[str, Any]
MeasuredEpochs = list[dict[int, Epoch]]  # by number of workers


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What both sides share: ``data`` says which images of ``folder`` train and validate."""

    folder: Path
    data: ImageData
    weights_dir: Path
    workers: tuple[int, ...]
    usual_epochs: int | None
    precision: str | None


@dataclass(kw_only=True)
class Run:
    """What ours does for a row: its trainings, wall time, and when which part of it ran."""

    precision: str | None
    seconds: float = 0.0
    activation_seconds: float = 0.0
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    trainings: list[Result] = field(default_factory=list)

    def load_data(self, *arguments: Any, **options: Any) -> ImageData:
        with self._timed("decoding"):
            return load_data(*arguments, **options)

    def train(
        self, config: TransferConfig, activations: Activations, **options: Any
    ) -> TrainingResult:
        config = in_precision(config, self.precision)
        with self._watched():
            result = train(config, activations, **options)
        self.activation_seconds += result.activation_seconds
        self.trainings.append(
            {
                "k": config.num_unfrozen_layers,
                "learning_rate": config.learning_rate,
                "precision": str(getattr(config, "precision", "fp32")),
                "seconds": [r.training_seconds + r.validation_seconds for r in result.history],
                "val_accuracies": [r.val["accuracy"] for r in result.history],
            }
        )
        return result

    def parts(self) -> dict[str, float]:
        """Seconds of wall time, and the share that neither decodes nor runs a network."""
        seconds = {part: covered_seconds(spans) for part, spans in self.spans.items()}
        networks = [s for part in ("decoding", "forward", "backward") for s in self.spans[part]]
        seconds |= {"activations": self.activation_seconds, "all": self.seconds}
        return {**seconds, "non-arithmetic share": 1 - covered_seconds(networks) / self.seconds}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.spans.setdefault(part, []).append((started, perf_counter()))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note outermost forward calls, in any thread, backward calls, and optimizer steps."""
        thread, backward = threading.local(), torch.Tensor.backward

        def before(*_: object) -> None:
            thread.starts = [*getattr(thread, "starts", ()), perf_counter()]

        def after(part: str, *_: object) -> None:
            started = thread.starts.pop()
            if not thread.starts:
                self.spans.setdefault(part, []).append((started, perf_counter()))

        def timed_backward(*arguments: Any, **options: Any) -> None:
            with self._timed("backward"):
                backward(*arguments, **options)

        handles = (
            module_hooks.register_module_forward_pre_hook(before),
            module_hooks.register_module_forward_hook(partial(after, "forward"), always_call=True),
            optimizer_hooks.register_optimizer_step_pre_hook(before),
            optimizer_hooks.register_optimizer_step_post_hook(partial(after, "steps")),
        )
        try:
            with patch.object(torch.Tensor, "backward", timed_backward):
                yield
        finally:
            for handle in handles:
                handle.remove()


def covered_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of (start, end): what runs at once, in several threads, counts once."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def in_precision(config: TransferConfig, precision: str | None) -> TransferConfig:
    """With the precision asked for, where layers train and this version has a choice."""
    has_choice = any(f.name == "precision" for f in fields(config))
    if precision is None or not has_choice or config.num_unfrozen_layers == 0:
        return config
    return replace(config, precision=precision)


def run_trainings(setup: Setup, configs: Sequence[TransferConfig]) -> Run:
    """Decode, compute what is shared, and train one configuration after the other."""
    run, started = Run(precision=setup.precision), perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source, cache_dir = open_source(str(setup.folder)), Path(folder)
        size = setup.data.image_size
        activations = Activations(
            data=run.load_data(source, image_size=size, seed=0, cache_dir=cache_dir),
            weights={BACKBONE: find_weights(BACKBONE, weights_dir=setup.weights_dir)},
            cache_dir=cache_dir,
            device=choose_device("cpu"),
        )
        for config in configs:
            run.train(config, activations)
        run.seconds = perf_counter() - started
    return run


def run_list(setup: Setup, configs: Sequence[TransferConfig]) -> Run:
    """The same as a study, through the real runner, with the whole space as its opening."""
    run = Run(precision=setup.precision)
    patches = (
        (preparation, "load_data", run.load_data),
        (preparation, "opening", lambda space, n_trials: list(space.configurations())),
        (runner, "Objective", partial(Objective, train=run.train)),
    )
    has_choice = "precision" in StudyOptions.model_fields  # else `run` decides, where it can
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "space.toml").write_text(SPACE)
        options = StudyOptions(
            data=str(setup.folder),
            space=str(folder / "space.toml"),
            trials=len(configs),
            epochs=configs[0].epochs,
            patience=configs[0].epochs,
            image_size=setup.data.image_size,
            storage=f"sqlite:///{folder}/studies.db",
            weights_dir=setup.weights_dir,
            device="cpu",
            cache_dir=folder / "cache",
            pruner="none",
            **({"precision": setup.precision} if has_choice and setup.precision else {}),
        )
        for module, name, value in patches:
            stack.enter_context(patch.object(module, name, value))
        signals, started = stack.enter_context(StopSignals()), perf_counter()
        runner.run_study(options, LineProgress(), signals)
        run.seconds = perf_counter() - started
    assert len(run.trainings) == len(configs), "a trial of the list failed"
    return run


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
    run: Callable[[Setup, Sequence[TransferConfig]], Run] = run_trainings
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


def usual_epochs(setup: Setup, config: TransferConfig, epochs: int) -> Iterator[dict[int, Epoch]]:
    """The usual script an epoch at a time, with each number of workers."""
    dataset = usual_script.image_folder(setup.folder, setup.data.image_size)
    index_of = {Path(path): i for i, (path, _) in enumerate(dataset.samples)}
    names, splits = setup.data.names, (setup.data.train, setup.data.val)
    halves = [[index_of[setup.folder / names[i]] for i in s.positions_N] for s in splits]
    runs = {
        num_workers: usual_script.train(
            dataset,
            *halves,
            weights_dir=setup.weights_dir,
            num_unfrozen=config.num_unfrozen_layers,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            num_workers=num_workers,
            epochs=epochs,
        )
        for num_workers in setup.workers
    }
    for _ in range(epochs):
        yield {num_workers: next(run) for num_workers, run in runs.items()}


def measure(setup: Setup, row: Row) -> tuple[dict[int, MeasuredEpochs], list[Run]]:
    """Epochs of the usual script by number of trained layers, and our runs, in turn."""
    num_usual = setup.usual_epochs or row.num_usual
    ks = sorted({config.num_unfrozen_layers for config in row.configs})
    usual = {k: usual_epochs(setup, row.usual(k), num_usual) for k in ks}
    epochs: dict[int, MeasuredEpochs] = {k: [] for k in ks}
    turns, runs = ks * num_usual, []
    ours = [replace(c, epochs=row.measured_epochs or c.epochs) for c in row.configs]
    # Each run of ours stands in the middle of its share of the usual script's epochs.
    due = [math.ceil(len(turns) * (i + 0.5) / row.num_runs) for i in range(row.num_runs)]
    for turn, k in enumerate(turns, start=1):
        epochs[k].append(next(usual[k]))
        if len(epochs[k]) == num_usual:
            usual[k].close()  # Ends its workers.
        runs += [row.run(setup, ours) for place in due if place == turn]
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
    parser.add_argument("--precision", help="ours in layers that train, where there is a choice")
    parser.add_argument("--json", type=Path, help="file that keeps all numbers")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = usual_script.linked_subset(arguments.data, arguments.images, Path(name) / "data")
        data = load_data(
            open_source(str(folder)),
            image_size=arguments.image_size,
            seed=0,
            cache_dir=Path(name),
        )
        setup = Setup(
            folder=folder,
            data=data,
            weights_dir=arguments.weights_dir,
            workers=tuple(arguments.workers),
            usual_epochs=arguments.usual_epochs,
            precision=arguments.precision,
        )
        about = {**machine(), "counts": data.counts, "image_size": data.image_size}
        print("\n".join(f"{key}: {value}" for key, value in about.items()))
        results = {}
        for row in arguments.rows:
            results[row] = compare(ROWS[row], *measure(setup, ROWS[row]))
            print_row(row, results[row])
            if arguments.json is not None:
                arguments.json.write_text(
                    json.dumps({"machine": about, "rows": results}, indent=1)
                )


if __name__ == "__main__":
    main()
