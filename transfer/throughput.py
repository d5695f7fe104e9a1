"""How many images a second a backbone takes on this machine, frozen and training in full.

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
from transfer.weights import find_weights, load_blocks

BATCH_SIZE = 16
MIN_BATCHES = 3
MIN_SECONDS = 1.0
NUM_CLASSES = 10

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
    network = _network(name).to(device).to(memory_format=torch.channels_last)
    noise = torch.Generator().manual_seed(0)
    images_B3hw = torch.randn(BATCH_SIZE, 3, image_size, image_size, generator=noise)
    images_B3hw = images_B3hw.to(device).to(memory_format=torch.channels_last)
    frozen = _images_per_second(_frozen_step(network, images_B3hw), device)
    on_progress(f"speed of {name}", 1, 2)
    training = _images_per_second(_training_step(network, images_B3hw), device)
    on_progress(f"speed of {name}", 2, 2)
    return Throughput(images_per_second_frozen=frozen, images_per_second_training=training)


def _network(name: str) -> TransferNetwork:
    blocks = load_blocks(find_weights(name, weights="random"))
    num_features = find_spec(name).num_features
    with torch.random.fork_rng(devices=[]):
        return TransferNetwork(blocks, num_features, NUM_CLASSES, dropout=0.0)


def _frozen_step(network: TransferNetwork, images_B3hw: torch.Tensor) -> Callable[[], None]:
    freeze(network, 0)
    network.eval()

    @torch.inference_mode()
    def step() -> None:
        network.blocks(images_B3hw)

    return step


def _training_step(network: TransferNetwork, images_B3hw: torch.Tensor) -> Callable[[], None]:
    freeze(network, len(network.blocks))
    network.train()
    labels_B = torch.arange(BATCH_SIZE, device=images_B3hw.device) % NUM_CLASSES
    optimizer = torch.optim.SGD(trainable_parameters(network), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network(images_B3hw), labels_B).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _images_per_second(step: Callable[[], None], device: torch.device) -> float:
    """Return the median over batches: at least 3 of them and 1 second, behind one to warm up."""
    step()
    seconds: list[float] = []
    while len(seconds) < MIN_BATCHES or sum(seconds) < MIN_SECONDS:
        _wait_for(device)
        started = perf_counter()
        step()
        _wait_for(device)
        seconds.append(perf_counter() - started)
    return BATCH_SIZE / statistics.median(seconds)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
