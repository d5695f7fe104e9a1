"""Which number format the unfrozen layers of a backbone train in: as asked, or as measured here.

Float32 loses nothing. Bfloat16 and float16 have half the bits and are faster where the hardware
computes in them. Knows neither data nor configurations.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from transfer.backbones.find import check_image_size, find_backbone
from transfer.cache import is_full, written_whole
from transfer.config import PRECISIONS
from transfer.device import cpu_flags, cpu_model, describe_device, free_memory
from transfer.messages import one_line
from transfer.training.throughput import Speedup, measure_speedup, train_one_step

NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

# Part of every key: raise it when what is measured changes.
FORMAT = 3
# Instructions that multiply bfloat16, as Linux names them. Without them it is emulated, slowly.
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
# So many times as fast a backbone must be, and clearly faster at all, to train in half the bits:
# they cost tenths of a point.
MIN_SPEEDUP = 1.1
# A study of smaller images takes too little time to measure anything for it; a step of larger ones
# takes more than the answer is worth.
MIN_MEASURED_SIZE, MAX_MEASURED_SIZE = 64, 224
MAX_TRIED_SIZE = 128

OnProgress = Callable[[str, int, int], None]


def choose_precision(
    asked: str,
    backbone: str,
    device: torch.device,
    *,
    image_size: int,
    cache_dir: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> str:
    """The precision for ``asked``: itself, or for ``auto`` what is measured to be faster here.

    It is measured once for each backbone and image size, with all layers trained, and kept in the
    cache: timing is noisy, and the precision of a study changes its numbers.

    Raises:
        ValueError: an unknown precision, or one in which the device or the backbone can't train.
    """
    if asked == "auto":
        half = _half_of(device)
        if half is None or image_size < MIN_MEASURED_SIZE:
            return "fp32"
        pays = _pays(half, backbone, device, image_size, cache_dir, on_progress)
        return half if pays else "fp32"
    if asked not in PRECISIONS:
        choices = ", ".join(("auto", *PRECISIONS))
        raise ValueError(f"Unknown precision '{asked}'; choose from {choices}.")
    if asked == "bf16" and device.type == "cuda" and not _cuda_has_bf16(device):
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} can't compute in bfloat16; "
            "use --precision fp16, fp32 or auto."
        )
    if asked != "fp32" and device.type == "cpu":
        _check_trains(asked, backbone, image_size)
    return asked


def describe_precision(precision_by_backbone: Mapping[str, str]) -> str | None:
    """Which backbones train in half the bits, in one sentence; None where none does."""
    parts = []
    for precision in ("bf16", "fp16"):
        names = [name for name, found in precision_by_backbone.items() if found == precision]
        if names:
            parts.append(f"in {NAMES[precision]}: {', '.join(names)}")
    return f"Layers train {'; '.join(parts)}" if parts else None


def _half_of(device: torch.device) -> str | None:
    """The format of half the bits that a device has units for, or None."""
    if device.type != "cuda":
        return "bf16" if cpu_flags() & BF16_INSTRUCTIONS else None
    if _cuda_has_bf16(device):
        return "bf16"
    # From Volta on there are units for float16.
    return "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else None


def _cuda_has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):  # It tells of the current one.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _pays(
    half: str,
    backbone: str,
    device: torch.device,
    image_size: int,
    cache_dir: Path,
    on_progress: OnProgress,
) -> bool:
    """Whether the backbone trains clearly faster so: measured now or found in the cache."""
    size = _measured_size(backbone, image_size, MAX_MEASURED_SIZE)
    path = cache_dir / "speed" / f"{_key(half, backbone, device, size)}.json"
    speedup = _read(path)
    if speedup is None:
        on_progress(f"speed of {backbone}", 0, 1)
        try:
            speedup = measure_speedup(
                backbone,
                half,
                image_size=size,
                device=device,
                until=lambda speedup: speedup.is_clear(MIN_SPEEDUP),
            )
        except Exception:  # anyone's code, in a format that it may never have met
            return False
        finally:
            free_memory(device)
        # What other processes left unclear is measured again for the next study.
        if speedup.is_clear(MIN_SPEEDUP) or speedup.was_quiet:
            _write(path, {"backbone": backbone, "precision": half, **asdict(speedup)})
        on_progress(f"speed of {backbone}", 1, 1)
    return pays(speedup)


def pays(speedup: Speedup) -> bool:
    """Whether `auto` takes half the bits: fast enough in the mean, and faster without doubt."""
    return speedup.value >= MIN_SPEEDUP and speedup.low > 1


def _measured_size(backbone: str, image_size: int, most: int) -> int:
    """The study's size or a smaller one that takes less time, where the backbone allows it."""
    size = min(image_size, most)
    try:
        check_image_size(backbone, size)
    except ValueError:
        return image_size
    return size


def _check_trains(precision: str, backbone: str, image_size: int) -> None:
    """One step of training; an operation may be missing for the format on a CPU."""
    size = _measured_size(backbone, image_size, MAX_TRIED_SIZE)
    try:
        train_one_step(backbone, precision, image_size=size, device=torch.device("cpu"))
    except Exception as error:  # a network raises nearly anything
        raise ValueError(
            f"Backbone {backbone!r} can't train in {NAMES[precision]} on this CPU "
            f"({one_line(error)}); use --precision fp32 or auto."
        ) from error


def _key(half: str, backbone: str, device: torch.device, image_size: int) -> str:
    """Everything that the speed depends on."""
    parts = (
        f"format={FORMAT}",
        f"precision={half}",
        f"backbone={backbone}",
        f"code={find_backbone(backbone).code}",
        f"device={cpu_model() if device.type == 'cpu' else describe_device(device)}",
        f"torch={torch.__version__}",
        f"threads={torch.get_num_threads()}",
        f"image_size={image_size}",
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _write(path: Path, measured: Mapping[str, str | float]) -> None:
    """Remember what was measured; on a full disk it is measured again the next time."""
    try:
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(measured))
    except OSError as error:
        if not is_full(error):
            raise


def _read(path: Path) -> Speedup | None:
    """What was measured before, or None where the file is missing or damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        speedup = Speedup(**{name: stored[name] for name in ("value", "low", "high", "was_quiet")})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    numbers = (speedup.low, speedup.value, speedup.high)
    if not all(isinstance(n, float) and math.isfinite(n) for n in numbers):
        return None
    return speedup if 0 < speedup.low <= speedup.value <= speedup.high else None
