"""The host's memory between one tensor and the next: kept while networks run, given back after.

glibc returns every block above 32 MB to the system as soon as it is freed and takes it back page
by page, at a page fault each. A step of MobileNetV2, all layers, 32 images of 224 pixels, took
280,000 faults and half of its time so.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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
