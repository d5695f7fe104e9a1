"""Where a training runs: device, threads, determinism, memory. Knows nothing of networks.

The host's memory between one tensor and the next is kept while networks run and given back after:
glibc returns every block above 32 MB to the system as soon as it is freed and takes it back page
by page, at a page fault each. A step of MobileNetV2, all layers, 32 images of 224 pixels, took
280,000 faults and half of its time so.
"""

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

import torch

from transfer.cache import available_memory

# Of malloc.h: from how much on free memory is given back, from what size on blocks are maps of
# their own, given back whatever their size, and how many of these there may be.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = -1
# What glibc starts with, and where its thresholds go once a large block was freed. They move by
# themselves until one of them is set; so they are put back to where they would be. At 128 KB,
# where they begin, a program that goes on afterwards would give back every tensor.
_USUAL_MMAP_MAX, _USUAL_MMAP_THRESHOLD, _USUAL_TRIM_THRESHOLD = 65536, 2**25, 2**26

_lock = threading.Lock()
_depth = 0


@contextmanager
def retained_memory() -> Iterator[None]:
    """Freed memory stays with the process for the next tensor, and is given back at the end.

    May be nested: the outermost one gives it back. Keeps nothing where malloc isn't glibc's, or
    where its thresholds are set by the environment: nobody can ask for them to put them back.
    """
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(_NEVER, 0, _USUAL_MMAP_THRESHOLD)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _set(_USUAL_TRIM_THRESHOLD, _USUAL_MMAP_MAX, _USUAL_MMAP_THRESHOLD)
                give_back()


def give_back() -> None:
    """Return to the system what is free, wherever it lies."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _set(trim_threshold: int, mmap_max: int, mmap_threshold: int) -> None:
    libc = _glibc()
    if libc is not None and not _is_set_by_environment():
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
        libc.mallopt(_M_MMAP_MAX, mmap_max)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)


def _is_set_by_environment() -> bool:
    """Whether whoever started the process has set malloc's thresholds: they stay as they are."""
    names = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"}
    return bool(names & set(os.environ)) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc: only that one has both functions."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


_SAMPLE_SECONDS = 0.02


def choose_device(name: str) -> torch.device:
    """The device called ``name``: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        ValueError: an unknown name, an Apple GPU, or a device that this machine doesn't have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "mps":
        raise ValueError(f"Device '{name}' (an Apple GPU) is not supported; use --device cpu.")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"Unknown device '{name}'; choose from auto, cpu, cuda, cuda:INDEX.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"Device '{name}' is not available on this machine; use --device cpu.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(f"Device '{name}' is not there; the last one is cuda:{last}.")
    return torch.device(name)


def make_deterministic(num_threads: int, device: torch.device) -> None:
    """Fix what changes bits: the number of threads, and on CUDA the kernels that are chosen."""
    torch.set_num_threads(num_threads)
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    # Else convolutions and products called float32 would have the mantissa of 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would write NaN into every new tensor, for those who read what nobody wrote, at a
    # seventh of a step on a GPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def num_threads() -> int:
    """Number of threads torch would use for one operation."""
    return torch.get_num_threads()


class PeakMemory:
    """``num_bytes`` is the most memory in bytes held at a time within the block, beyond what is
    held when it begins; None where the system doesn't tell.

    On CUDA of what is allocated on the device; elsewhere of this process, looked up every 20
    milliseconds by a thread that ends with the block.
    """

    def __init__(self, device: torch.device) -> None:
        self.num_bytes: int | None = None
        self._device = device
        self._before: int | None = None
        self._most = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_ended, daemon=True)

    def __enter__(self) -> Self:
        self.restart()
        self._before = self._held()
        if self._before is not None and self._device.type != "cuda":
            self._thread.start()
        return self

    def restart(self) -> None:
        """Forget the peak until now; what is counted from stays the beginning of the block."""
        # Else memory that is free but still the process's would be taken again without a trace.
        free_memory(self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        with self._lock:
            self._most = self._held() or 0

    def __exit__(self, *error: object) -> None:
        if self._thread.is_alive():
            self._ended.set()
            self._thread.join()
        if self._before is not None:
            self._sample()
            self.num_bytes = max(0, self._most - self._before)

    def _held(self) -> int | None:
        if self._device.type == "cuda":
            return int(torch.cuda.memory_allocated(self._device))
        return anonymous_bytes()

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            if self._device.type == "cuda":
                held: int | None = int(torch.cuda.max_memory_allocated(self._device))
            else:
                held = anonymous_bytes()
            self._most = max(self._most, held or 0)


def anonymous_bytes() -> int | None:
    """Memory of this process in bytes, without the pages of mapped files; None where unknown.

    VmRSS would count memory-mapped images, which the kernel may drop at any time. Only
    Linux tells.
    """
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return None
    _, is_told, rest = status.partition(b"RssAnon:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if is_told else None


def free_memory(device: torch.device) -> None:
    """Give memory that no tensor uses back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    give_back()


def free_bytes(device: torch.device) -> int:
    """Memory in bytes that a training could have now; what torch keeps for itself is free."""
    if device.type != "cuda":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + kept)


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
