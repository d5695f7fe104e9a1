"""Where a training runs: device, threads, determinism, memory. Knows nothing of networks."""

import os
import platform
import resource
from importlib.metadata import version
from pathlib import Path

import torch


def choose_device(name: str) -> torch.device:
    """The device called ``name``: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        ValueError: an unknown name, or a device that this machine doesn't have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"Unknown device '{name}'; choose from auto, cpu, cuda, cuda:INDEX.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"Device '{name}' is not available on this machine; use --device cpu.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(f"Device '{name}' is not there; the last one is cuda:{last}.")
    return torch.device(name)


def make_deterministic(num_threads: int) -> None:
    """Fix what changes bits: the number of threads, and the kernels chosen on CUDA."""
    torch.set_num_threads(num_threads)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def num_threads() -> int:
    """Number of threads torch would use for one operation."""
    return torch.get_num_threads()


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring the device's peak afresh where the device allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_bytes(device: torch.device) -> int:
    """Memory in bytes: the device's peak since the last reset, or the host's anonymous now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _anonymous_bytes()


def _anonymous_bytes() -> int:
    # VmRSS would count the pages of memory-mapped images, which the kernel may drop at any time.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    return int(kilobytes) * 1024


def free_memory(device: torch.device) -> None:
    """Give memory that no tensor uses back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def describe_device(device: torch.device) -> str:
    """The device in words: ``cpu`` or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("torch", "torchvision", "numpy", "pillow", "transfer-studies")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
