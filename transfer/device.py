"""Where a training runs: device, threads, determinism, memory. Knows nothing of networks."""

import os
import platform
import sys
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

import torch

from transfer.host_memory import give_back

_SAMPLE_SECONDS = 0.02


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
        # Else convolutions and products called float32 would have the mantissa of 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def num_threads() -> int:
    """Number of threads torch would use for one operation."""
    return torch.get_num_threads()


class PeakMemory:
    """``num_bytes`` is the most memory in bytes that was held at a time within the block.

    On CUDA of all that is allocated on the device; elsewhere of this process, looked up every 20
    milliseconds by a thread that ends with the block.
    """

    def __init__(self, device: torch.device) -> None:
        self.num_bytes = 0
        self._device = device
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_ended, daemon=True)

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._sample()
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._device.type == "cuda":
            self.num_bytes = int(torch.cuda.max_memory_allocated(self._device))
            return
        self._ended.set()
        self._thread.join()
        self._sample()

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self.num_bytes = max(self.num_bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    """Memory of this process in bytes, without the pages of mapped files.

    VmRSS would count memory-mapped images, which the kernel may drop at any time. Where Linux
    doesn't tell, the most that the process ever held; on Windows 0.
    """
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return _most_ever()
    _, is_told, rest = status.partition(b"RssAnon:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if is_told else _most_ever()


def _most_ever() -> int:
    if sys.platform == "win32":
        return 0
    import resource  # Not on Windows.

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: torch.device) -> None:
    """Give memory that no tensor uses back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    give_back()


def describe_device(device: torch.device) -> str:
    """The device in words: ``cpu`` or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@cache
def cpu_model() -> str:
    """What the CPU calls itself."""
    return _of_the_cpu("model name") or platform.processor() or platform.machine()


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the CPU as Linux names them; empty elsewhere."""
    return frozenset(_of_the_cpu("flags").split())


def _of_the_cpu(key: str) -> str:
    """A value of the first core in /proc/cpuinfo, or an empty text."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("torch", "torchvision", "numpy", "pillow", "transfer-studies")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
