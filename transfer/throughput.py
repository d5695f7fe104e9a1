"""How many images a second a backbone takes on this machine, frozen and training in full.

And how much faster it trains in half the bits.

Knows blocks with random weights and noise for images. Knows neither data nor a study.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from transfer.backbones import TransferNetwork, check_image_size, find_spec
from transfer.freezing import freeze, trainable_parameters
from transfer.host_memory import retained_memory
from transfer.stepping import logits_above
from transfer.weights import find_weights, load_blocks

BATCH_SIZE = 16
MIN_BATCHES = 3
MIN_SECONDS = 1.0
NUM_CLASSES = 10
SPEEDUP_IMAGES = 8
SPEEDUP_STEPS = 3

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Median images per second of one backbone at one image size.

    Frozen: the blocks alone, in eval mode, without gradients. Training: forward, backward and a
    step of SGD with all layers unfrozen. Both in float32, channels last, 16 images a batch.
    """

    images_per_second_frozen: float
    images_per_second_training: float


def measure_throughput(
    name: str,
    *,
    image_size: int,
    device: torch.device,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Throughput:
    """Measure the backbone `name` with images of `image_size` pixels a side, 2 to 10 seconds.

    `on_progress` is told what is measured, and how many of two measurements are done. Raises
    ValueError for an unknown backbone, or one that can't take such images.
    """
    check_image_size(name, image_size)
    on_progress(f"speed of {name}", 0, 2)
    with retained_memory():
        network, images_B3hw = _network(name, device), _noise(BATCH_SIZE, image_size, device)
        frozen = _images_per_second(_frozen_step(network, images_B3hw), device)
        on_progress(f"speed of {name}", 1, 2)
        training = _images_per_second(_training_step(network, images_B3hw), device)
    on_progress(f"speed of {name}", 2, 2)
    return Throughput(images_per_second_frozen=frozen, images_per_second_training=training)


def measure_speedup(
    name: str,
    precision: str,
    *,
    image_size: int,
    device: torch.device,
    num_images: int = SPEEDUP_IMAGES,
    num_steps: int = SPEEDUP_STEPS,
) -> float:
    """How many times as fast the backbone `name` trains in `precision` as in float32.

    `num_steps` steps of each, all layers, `num_images` images a step, in turn, behind one of each
    to warm up. Raises whatever the network does where it can't train so.
    """
    seconds: dict[str, list[float]] = {"fp32": [], precision: []}
    with retained_memory():
        network, images_B3hw = _network(name, device), _noise(num_images, image_size, device)
        steps = {kind: _training_step(network, images_B3hw, kind) for kind in seconds}
        for repetition in range(1 + num_steps):
            for kind, step in steps.items():
                taken = _seconds(step, device)
                if repetition > 0:
                    seconds[kind].append(taken)
    return statistics.median(seconds["fp32"]) / statistics.median(seconds[precision])


def train_one_step(name: str, precision: str, *, image_size: int, device: torch.device) -> None:
    """Raise whatever the network does where it can't train in `precision`."""
    network, images_B3hw = _network(name, device), _noise(SPEEDUP_IMAGES, image_size, device)
    _training_step(network, images_B3hw, precision)()


def _network(name: str, device: torch.device) -> TransferNetwork:
    blocks = load_blocks(find_weights(name, weights="random"))
    num_features = find_spec(name).num_features
    with torch.random.fork_rng(devices=[]):
        network = TransferNetwork(blocks, num_features, NUM_CLASSES, dropout=0.0)
    return network.to(device).to(memory_format=torch.channels_last)


def _noise(num_images: int, image_size: int, device: torch.device) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    images_B3hw = torch.randn(num_images, 3, image_size, image_size, generator=noise)
    return images_B3hw.to(device).to(memory_format=torch.channels_last)


def _frozen_step(network: TransferNetwork, images_B3hw: torch.Tensor) -> Callable[[], None]:
    freeze(network, 0)
    network.eval()

    @torch.inference_mode()
    def step() -> None:
        network.blocks(images_B3hw)

    return step


def _training_step(
    network: TransferNetwork, images_B3hw: torch.Tensor, precision: str = "fp32"
) -> Callable[[], None]:
    freeze(network, len(network.blocks))
    network.train()
    labels_B = torch.arange(len(images_B3hw), device=images_B3hw.device) % NUM_CLASSES
    optimizer = torch.optim.SGD(trainable_parameters(network), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits_BC = logits_above(network, 0, images_B3hw, precision)
        cross_entropy(logits_BC, labels_B).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _images_per_second(step: Callable[[], None], device: torch.device) -> float:
    """Return the median over batches: at least 3 of them and 1 second, behind one to warm up."""
    step()
    seconds: list[float] = []
    while len(seconds) < MIN_BATCHES or sum(seconds) < MIN_SECONDS:
        seconds.append(_seconds(step, device))
    return BATCH_SIZE / statistics.median(seconds)


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    _wait_for(device)
    started = perf_counter()
    step()
    _wait_for(device)
    return perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
