"""Which number format the unfrozen layers of a backbone train in: by rule, by table, by trial.

Float32 loses nothing. Bfloat16 and float16 have half the bits and are faster where the hardware
computes in them. Knows neither data nor configurations.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from transfer.backbones import check_image_size, find_backbone
from transfer.cache import is_full, written_whole
from transfer.catalog import BACKBONES
from transfer.config import PRECISIONS
from transfer.device import cpu_flags, cpu_model
from transfer.messages import one_line
from transfer.throughput import measure_speedup, train_one_step

NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

# Instructions that multiply bfloat16, as Linux names them. Without them it is emulated, slowly.
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
# Backbones of the table that train at least 1.1 times as fast in bfloat16 with all layers, and the
# smallest image size in pixels at which they were seen to: of 48, 96 and 224, AVX512_BF16, two
# cores, 16 images a batch. At 224: ResNet-50 1.9 times, MobileNetV2 1.4, MobileNetV3 small 1.06.
# `benchmarks/precision.py` measures it. A table rather than a measurement in each study: timing
# is noisy, and the precision of a study changes its numbers.
BF16_PAYS_ON_CPU = {
    "resnet18": 48,
    "resnet34": 48,
    "resnet50": 48,
    "densenet121": 48,
    "convnext_tiny": 48,
    "squeezenet1_1": 96,
    "efficientnet_lite0": 96,
    "mobilenet_v2": 96,
    "mobilenet_v3_large": 224,
    "efficientnet_b0": 224,
}
# A backbone outside of it must be this many times as fast.
MIN_SPEEDUP = 1.2
MAX_MEASURED_SIZE = 128

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
    """The precision for ``asked``: itself, or for ``auto`` what is known or measured to be faster.

    Raises:
        ValueError: an unknown precision, or one in which the device or the backbone can't train.
    """
    if asked == "auto":
        if device.type == "cuda":
            return _auto_on_cuda(device)
        pays = _pays_on_cpu(backbone, image_size, cache_dir, on_progress)
        return "bf16" if pays else "fp32"
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


def _auto_on_cuda(device: torch.device) -> str:
    if _cuda_has_bf16(device):
        return "bf16"
    # From Volta on there are units for float16.
    return "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else "fp32"


def _cuda_has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):  # It tells of the current one.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _pays_on_cpu(backbone: str, image_size: int, cache_dir: Path, on_progress: OnProgress) -> bool:
    if not cpu_flags() & BF16_INSTRUCTIONS:
        return False
    if backbone in BACKBONES:
        return image_size >= BF16_PAYS_ON_CPU.get(backbone, sys.maxsize)
    size = _measured_size(backbone, image_size)
    path = cache_dir / "speed" / f"{_key(backbone, size)}.json"
    speedup = _read(path)
    if speedup is None:
        on_progress(f"speed of {backbone}", 0, 1)
        try:
            speedup = measure_speedup(
                backbone, "bf16", image_size=size, device=torch.device("cpu")
            )
        except Exception:  # anyone's code, in a format that it may never have met
            return False
        _write(path, {"backbone": backbone, "speedup": speedup})
        on_progress(f"speed of {backbone}", 1, 1)
    return speedup >= MIN_SPEEDUP


def _measured_size(backbone: str, image_size: int) -> int:
    """The study's size or a smaller one that takes less time, where the backbone allows it."""
    size = min(image_size, MAX_MEASURED_SIZE)
    try:
        check_image_size(backbone, size)
    except ValueError:
        return image_size
    return size


def _check_trains(precision: str, backbone: str, image_size: int) -> None:
    """One step of training; an operation may be missing for the format on a CPU."""
    size = _measured_size(backbone, image_size)
    try:
        train_one_step(backbone, precision, image_size=size, device=torch.device("cpu"))
    except Exception as error:  # a network raises nearly anything
        raise ValueError(
            f"Backbone {backbone!r} can't train in {NAMES[precision]} on this CPU "
            f"({one_line(error)}); use --precision fp32 or auto."
        ) from error


def _key(backbone: str, image_size: int) -> str:
    """Everything that the speed depends on."""
    parts = (
        f"backbone={backbone}",
        f"code={find_backbone(backbone).code}",
        f"cpu={cpu_model()}",
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


def _read(path: Path) -> float | None:
    """What was measured before, or None where the file is missing or damaged."""
    try:
        speedup = json.loads(path.read_text(encoding="utf-8"))["speedup"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return speedup if isinstance(speedup, float) and 0 < speedup < math.inf else None
