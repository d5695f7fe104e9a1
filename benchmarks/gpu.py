"""Whether what is promised holds on a GPU, in less than five minutes: the first look at a device.

Runs the README's demo and, with --data, a small study of one's own images; trains a network with
frozen layers and compares them bit for bit; takes memory away until a batch has to be split, and
gives it back; and measures images a second. Everything runs in temporary folders.

    python benchmarks/gpu.py --data ../shared/data/chest_xray --weights-dir ../shared/weights

prints a line a check and exits with 1 if one of them failed; --json FILE keeps the numbers. With
--device cpu all but the shortage of memory runs as well, to try the script.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

import studies
from transfer.activations.activations import Activations
from transfer.backbones.find import find_spec
from transfer.config import Strategy, TransferConfig
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.device import choose_device, describe_device, make_deterministic, versions
from transfer.training.throughput import measure_speedup, measure_throughput
from transfer.training.train import train
from transfer.weights.find import find_weights

BACKBONE = "efficientnet_lite0"
MEASURED = ("mobilenet_v2", "efficientnet_lite0", "resnet18", "resnet50")
IMAGE_SIZE = 224
# So little of the device's memory, beyond what is held, that a batch of BATCH_SIZE has no room.
SHORT_BYTES = 600 * 2**20
MOST_SECONDS = 300
BATCH_SIZE = 64

Found = dict[str, Any]


def run_study(
    data: str, arguments: argparse.Namespace, *, expected: str = "COMPLETE", **options: Any
) -> Found:
    """A study through the public interface: its trials by state, its best ones, its seconds.

    No trial may fail, each strategy must have a result, and a trial must be in state ``expected``.
    """
    started = perf_counter()
    with TemporaryDirectory() as folder:
        summary = studies.run(
            data=data,
            name="gpu",
            storage=f"sqlite:///{folder}/studies.db",
            cache_dir=Path(folder) / "cache",
            device=arguments.device,
            weights_dir=arguments.weights_dir,
            confirm=False,
            **options,
        )
    states = [record.state for record in summary.records]
    best: dict[str, float] = {}
    for record in summary.records:
        if record.state == "COMPLETE" and record.value is not None:
            best[str(record.strategy)] = max(record.value, best.get(str(record.strategy), 0.0))
    return {
        "seconds": round(perf_counter() - started, 1),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "best": best,
        "ok": "FAIL" not in states and len(best) == 2 and expected in states,
    }


def a_training(device: torch.device, folder: Path, image_size: int) -> tuple[Any, Activations]:
    """A configuration that fine-tunes all layers of the demo's backbone, and what it needs."""
    data = load_data(
        open_source("phantom:train=200,test=10"), image_size=image_size, seed=0, cache_dir=folder
    )
    activations = Activations(
        data=data,
        weights={BACKBONE: find_weights(BACKBONE)},
        cache_dir=folder,
        device=device,
        limit_bytes=0,
    )
    config = TransferConfig(
        backbone=BACKBONE,
        strategy=Strategy.FINE_TUNING,
        learning_rate=1e-3,
        batch_size=BATCH_SIZE,
        num_unfrozen_layers=find_spec(BACKBONE).depth,
        epochs=1,
    )
    return config, activations


def frozen_is_frozen(device: torch.device) -> Found:
    """The tensors below the boundary before and after a training, BatchNorm statistics too."""
    with TemporaryDirectory() as folder:
        config, activations = a_training(device, Path(folder), image_size=96)
        config = replace(config, num_unfrozen_layers=4, epochs=2)
        boundary = find_spec(BACKBONE).depth - 4
        blocks = activations.blocks(BACKBONE, boundary)[:boundary]
        before = {key: tensor.clone() for key, tensor in blocks.state_dict().items()}
        result = train(config, activations)
        after = activations.blocks(BACKBONE, boundary)[:boundary].state_dict()
    same = [torch.equal(before[key], after[key]) for key in before]
    is_trained = any(f"blocks.{boundary}" in key for key in result.trained_state)
    return {"tensors": len(same), "identical": sum(same), "ok": all(same) and is_trained}


@contextmanager
def short_of_memory(device: torch.device) -> Iterator[None]:
    """Leave the process only SHORT_BYTES more than it holds."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    held = torch.cuda.memory_reserved(device)
    torch.cuda.set_per_process_memory_fraction((held + SHORT_BYTES) / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def a_shortage_passes(device: torch.device) -> Found:
    """A batch is split while memory is short, and the next training is whole again."""
    if device.type != "cuda":
        return {"ok": None, "why": "memory can be taken away on a GPU alone"}
    with TemporaryDirectory() as folder:
        config, activations = a_training(device, Path(folder), IMAGE_SIZE)
        usual = train(config, activations)
        with short_of_memory(device):
            short = train(config, activations)
        again = train(config, activations)
    values = [[record.val for record in result.history] for result in (usual, again)]
    return {
        "micro_batch_sizes": [r.micro_batch_size for r in (usual, short, again)],
        "same_afterwards": values[0] == values[1],
        "ok": short.micro_batch_size < usual.micro_batch_size and values[0] == values[1],
    }


def images_a_second(device: torch.device) -> Found:
    """Frozen and training throughput in float32, and how much faster bfloat16 trains."""
    found: Found = {"ok": True}
    for name in MEASURED:
        speed = measure_throughput(name, image_size=IMAGE_SIZE, device=device)
        found[name] = {
            "frozen": round(speed.images_per_second_frozen),
            "training": round(speed.images_per_second_training),
            "bf16_speedup": round(
                measure_speedup(name, "bf16", image_size=IMAGE_SIZE, device=device).value, 2
            ),
        }
    return found


def in_time(seconds: float, device: torch.device) -> Found:
    """Whether all of it took as little as is promised of a GPU."""
    ok = seconds < MOST_SECONDS if device.type == "cuda" else None
    return {"seconds": round(seconds, 1), "ok": ok}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", help="images of one's own for a second, small study")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    make_deterministic(torch.get_num_threads(), device)
    checks: dict[str, Callable[[], Found]] = {
        "demo": lambda: run_study("phantom", arguments),
        "frozen layers": lambda: frozen_is_frozen(device),
        "shortage of memory": lambda: a_shortage_passes(device),
        "images a second": lambda: images_a_second(device),
    }
    if arguments.data:
        # Enough trials for some to be pruned.
        options = {"image_size": 128, "trials": 16, "epochs": 6, "backbones": "mobilenet_v2"}
        checks["own images"] = lambda: run_study(
            arguments.data, arguments, expected="PRUNED", allow_leakage=True, **options
        )
    started = perf_counter()
    checks["time"] = lambda: in_time(perf_counter() - started, device)
    found: dict[str, Any] = {"device": describe_device(device), "versions": versions()}
    for name, check in checks.items():
        found[name] = check()
        verdict = {True: "ok", False: "FAILED", None: "not tried"}[found[name]["ok"]]
        print(f"{name}: {verdict} {json.dumps(found[name])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(found[name]["ok"] is False for name in checks))


if __name__ == "__main__":
    main()
