"""How many images a second a backbone takes on this machine, frozen and training in full.

And how much faster it trains in half the bits.

Knows blocks with random weights and noise for images. Knows neither data nor a study.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

import torch
from scipy.special import stdtrit
from torch.nn.functional import cross_entropy

from transfer.backbones.find import TransferNetwork, check_image_size, find_spec
from transfer.device import retained_memory
from transfer.network import freeze, trainable_parameters
from transfer.training.optimizer import logits_above
from transfer.weights.find import find_weights, load_blocks

BATCH_SIZE = 16
MIN_BATCHES = 3
MIN_SECONDS = 1.0
NUM_CLASSES = 10
SPEEDUP_SECONDS = 2.0
# Sixteen images of up to 162 pixels a side, eight of 224: of fewer, half the bits gain less than
# in the batches of a study (docs/decisions.md). Two in any case.
SPEEDUP_PIXELS = 420_000
MIN_PAIRS = 3
LEAST_SPREAD = 0.03  # of the logarithm of a ratio of two steps

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


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times as fast as in float32: the mean over pairs of steps, and its interval.

    Unless the machine ``was_quiet``, other processes had the processor half of the time or more,
    and its caches too, so that ratios vary.
    """

    value: float
    low: float
    high: float
    was_quiet: bool

    def is_clear(self, least: float) -> bool:
        """Whether the interval lies on one side of ``least``."""
        return self.low >= least or self.high < least


def measure_speedup(
    name: str,
    precision: str,
    *,
    image_size: int,
    device: torch.device,
    num_images: int | None = None,
    until: Callable[[Speedup], bool] = lambda speedup: False,
    max_seconds: float = SPEEDUP_SECONDS,
) -> Speedup:
    """How many times as fast the backbone `name` trains in `precision` as in float32.

    Steps of all layers in pairs, one of each, in turn first, behind one of each to warm up. On a
    CPU the processor's time counts, so that other processes don't.

    Args:
        num_images: of a step; by default 16, or fewer of more than 162 pixels a side.
        until: ends the measurement early; asked from the third pair on.
        max_seconds: for the pairs on a machine with nothing else to do; four times as many in any
            case. Three pairs are measured however long they take.

    Raises whatever the network does where it can't train so.
    """
    num_images = num_images or speedup_images(image_size)
    logarithms: list[float] = []
    with retained_memory():
        network, images_B3hw = _network(name, device), _noise(num_images, image_size, device)
        steps = [_training_step(network, images_B3hw, kind) for kind in ("fp32", precision)]
        for step in steps:
            _own_seconds(step, device)
        started, spent = perf_counter(), 0.0
        while True:
            order = (0, 1) if len(logarithms) % 2 == 0 else (1, 0)
            seconds = {i: _own_seconds(steps[i], device) for i in order}
            logarithms.append(math.log(seconds[0] / seconds[1]))
            spent += sum(seconds.values())
            if len(logarithms) < MIN_PAIRS:
                continue
            waited = perf_counter() - started
            speedup = _speedup(logarithms, was_quiet=waited <= 2 * spent)
            if until(speedup) or spent >= max_seconds or waited >= 4 * max_seconds:
                return speedup


def speedup_images(image_size: int) -> int:
    """How many images a step is measured on: fewer large ones, so that it takes little time."""
    return next(
        (n for n in (16, 8, 4) if n * image_size**2 <= SPEEDUP_PIXELS),
        2,  # BatchNorm can't train on one.
    )


def _speedup(logarithms: list[float], *, was_quiet: bool) -> Speedup:
    """The geometric mean of ratios with Student's interval of 95 %.

    Three ratios may agree by chance: their spread is taken to be 3 % at least.
    """
    count, mean = len(logarithms), statistics.fmean(logarithms)
    spread = max(statistics.stdev(logarithms), LEAST_SPREAD)
    half = float(stdtrit(count - 1, 0.975)) * spread / math.sqrt(count)
    low, value, high = (math.exp(x) for x in (mean - half, mean, mean + half))
    return Speedup(value=value, low=low, high=high, was_quiet=was_quiet)


def train_one_step(name: str, precision: str, *, image_size: int, device: torch.device) -> None:
    """Raise whatever the network does where it can't train in `precision`."""
    network, images_B3hw = (
        _network(name, device),
        _noise(speedup_images(image_size), image_size, device),
    )
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


def _own_seconds(step: Callable[[], None], device: torch.device) -> float:
    """Of a CPU what each of its threads was busy for, whatever other processes did meanwhile."""
    if device.type == "cuda":
        return _seconds(step, device)
    started = process_time()
    step()
    return (process_time() - started) / torch.get_num_threads()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
