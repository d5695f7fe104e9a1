"""Our side of `engine.py`: trainings and a whole study, with every part of them timed.

Forward and backward calls are noted by torch's global hooks, decoding around the loader. Knows
nothing of the usual script.
"""

import math
import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

from studies import data_check
from studies.search import run as runner
from studies.search import setup as preparation
from studies.search import worker as worker
from studies.search.objective import Objective
from studies.settings import StudyOptions
from studies.signals import StopSignals
from studies.terminal.progress import LineProgress
from studies.workflow import FACES
from transfer.activations.activations import Activations
from transfer.config import TransferConfig
from transfer.data.loading import ImageData, load_data
from transfer.data.sources.open import open_source
from transfer.device import choose_device
from transfer.training.precision import choose_precision
from transfer.training.result import TrainingResult
from transfer.training.train import train
from transfer.weights.find import find_weights

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


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What both sides share: images in ``folder``, of which ``names`` train and validate."""

    folder: Path
    names: Mapping[str, Sequence[str]]
    weights_dir: Path
    image_size: int
    threads: int
    precision: str = "auto"


@dataclass(kw_only=True)
class Run:
    """What ours does for a row: its trainings, wall time, and when which part of it ran."""

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
        with self._watched():
            result = train(config, activations, **options)
        self.activation_seconds += result.activation_seconds
        self.trainings.append(
            {
                "k": config.num_unfrozen_layers,
                "learning_rate": config.learning_rate,
                "precision": config.precision,
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


RunAll = Callable[[Setup, Sequence[TransferConfig]], Run]


def covered_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of (start, end): what runs at once, in several threads, counts once."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def in_own_process(run: RunAll, setup: Setup, configs: Sequence[TransferConfig]) -> Run:
    """What ``run`` gives in a new process: memory that an earlier one left is of no help to it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (setup.threads,)) as process:
        return process.submit(run, setup, configs).result()


def run_trainings(setup: Setup, configs: Sequence[TransferConfig]) -> Run:
    """Decode, compute what is shared, and train one configuration after the other."""
    run = Run()
    with tempfile.TemporaryDirectory() as folder:
        source, cache_dir = open_source(str(setup.folder)), Path(folder)
        size, device = setup.image_size, choose_device("cpu")
        precision = _precision(setup, configs, cache_dir)
        started = perf_counter()
        activations = Activations(
            data=run.load_data(source, image_size=size, seed=0, cache_dir=cache_dir),
            weights={BACKBONE: find_weights(BACKBONE, weights_dir=setup.weights_dir)},
            cache_dir=cache_dir,
            device=device,
        )
        for config in configs:
            is_tuned = config.num_unfrozen_layers > 0
            run.train(replace(config, precision=precision if is_tuned else "fp32"), activations)
        run.seconds = perf_counter() - started
    return run


def _precision(setup: Setup, configs: Sequence[TransferConfig], cache_dir: Path) -> str:
    """What layers train in; measured outside of the clock, as that is done once on a machine."""
    if not any(config.num_unfrozen_layers for config in configs):
        return "fp32"
    device, size = choose_device("cpu"), setup.image_size
    return choose_precision(
        setup.precision, BACKBONE, device, image_size=size, cache_dir=cache_dir
    )


def run_list(setup: Setup, configs: Sequence[TransferConfig]) -> Run:
    """The same as a study, through the real runner, with the whole space as its opening."""
    run = Run()
    patches = (
        (data_check, "load_data", run.load_data),
        (preparation, "opening", lambda space: list(space.configurations())),
        (worker, "Objective", partial(Objective, train=run.train)),
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "space.toml").write_text(SPACE)
        options = StudyOptions(
            data=str(setup.folder),
            space=str(folder / "space.toml"),
            trials=len(configs),
            epochs=configs[0].epochs,
            patience=configs[0].epochs,
            image_size=setup.image_size,
            storage=f"sqlite:///{folder}/studies.db",
            weights_dir=setup.weights_dir,
            device="cpu",
            cache_dir=folder / "cache",
            pruner="none",
            confirm=False,
            precision=setup.precision,
        )
        for module, name, value in patches:
            stack.enter_context(patch.object(module, name, value))
        _precision(setup, configs, folder / "cache")
        signals, started = stack.enter_context(StopSignals()), perf_counter()
        runner.run_study(options, LineProgress(), signals, faces=FACES)
        run.seconds = perf_counter() - started
    assert len(run.trainings) == len(configs), "a trial of the list failed"
    return run
