"""Batches, and how they are split where memory is short: sizes to try, and which have failed.

Knows numbers of images and errors of memory. Knows neither networks nor losses.
"""

import gc
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from transfer.device import free_bytes, free_memory

T = TypeVar("T")

# What torch says without memory left where it has no exception for it.
_TEXTS = (
    # On the host, on Linux and macOS, and on Windows.
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    # Of the driver: memory for pinned batches, kernels and contexts is not torch's.
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    # cuDNN 8, and from 9 on, of the device and of the host.
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    # A handle that finds no memory when it is made.
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    # No convolution found room for its workspace.
    "unable to find an engine",
)
# A limit is forgotten where so many times the memory is free that was when it was found. Trying
# again costs a step; what is free varies by less where no other process comes or goes.
_MORE = 1.02


def shuffled_batches(
    num_images: int, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Indices of all images in equal batches, each image once."""
    order = rng.permutation(num_images)
    for part in equal_parts(num_images, batch_size):
        yield order[part]


def micro_batches(num_images: int, size: int) -> list[slice]:
    """The parts of a batch: equal, and at most ``size`` images each."""
    return equal_parts(num_images, size)


def equal_parts(num_images: int, size: int) -> list[slice]:
    """As few parts of at most ``size`` images as there can be; they differ by one image at most.

    What is left over would else be a small last batch, whose gradient counts as much as that of
    a whole one. With sizes above 1 none is one image alone, as BatchNorm can't train on it: where
    there is no other way one part has three, with a size of 2.
    """
    num_parts = math.ceil(num_images / size)
    if size > 1:
        num_parts = min(num_parts, max(1, num_images // 2))
    bounds = [num_images * i // num_parts for i in range(num_parts + 1)]
    return list(itertools.starmap(slice, itertools.pairwise(bounds)))


def full_batches(positions_N: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of ``size`` images each, the last filled up with the first images again.

    What a kernel makes of an image may depend in its last bits on how many there are in a batch.
    The outputs are to be cut off behind the last image.
    """
    num_batches = math.ceil(len(positions_N) / size)
    return list(np.resize(positions_N, (num_batches, size)))


def halved_sizes(batch_size: int, num_images: int) -> tuple[int, ...]:
    """The batch size, then its half and so on down to 1, rounded up.

    Sizes that would leave every batch of ``num_images`` images whole are left out.
    """
    sizes, size = [batch_size], min(batch_size, num_images)
    while size > 1:
        size = (size + 1) // 2
        sizes.append(size)
    return tuple(sizes)


class NoRoomError(torch.OutOfMemoryError):
    """There is no memory, and splitting batches further would not help."""


class StepMemoryError(torch.OutOfMemoryError):
    """A step of a training found no memory: the one thing that smaller batches help against."""


class _Limit(NamedTuple):
    """A size that failed, the bytes that were free behind it, and whether it failed twice."""

    size: int
    free_bytes: int
    is_certain: bool


class MemoryLimits:
    """For what there was no memory in this process, so that it isn't tried over and over.

    Remembered only where a smaller size did fit: if none does, memory is short of something else.
    Sizes are left out once they failed in two runs, and fitted in none between: a shortage may be
    over before anyone can ask what is free. Forgotten when more memory is free than was, as when
    another process has ended. So a shortage that passes changes no later training.
    """

    def __init__(self) -> None:
        self._limits: dict[Hashable, _Limit] = {}

    def first_that_fits(
        self,
        what: Hashable,
        sizes: Sequence[int],
        run: Callable[[int], T],
        device: torch.device,
        remembered: type[Exception] = Exception,
    ) -> T:
        """What ``run(size)`` gives for the first of the falling ``sizes`` that memory allows.

        Sizes at or above one that failed twice for the same ``what`` are skipped; the last is
        tried in any case.

        Args:
            remembered: of which errors a size's failure is remembered.

        Raises:
            NoRoomError: there is no memory for the last size, or ``run`` raised it.
        """
        limit, failed = self._known(what, device), None
        for size in [s for s in sizes if limit is None or s < limit.size] or sizes[-1:]:
            try:
                result = run(size)
            except NoRoomError:
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message, counts = str(error), isinstance(error, remembered)
            else:
                if failed is not None:
                    self._limits[what] = failed
                elif what in self._limits and size >= self._limits[what].size:
                    del self._limits[what]  # The shortage was a passing one.
                return result
            # Outside of the handler: the error's traceback holds the network that filled memory.
            gc.collect()
            free_memory(device)
            if counts:
                failed = _Limit(size, free_bytes(device), is_certain=what in self._limits)
        raise NoRoomError(message)

    def _known(self, what: Hashable, device: torch.device) -> _Limit | None:
        limit = self._limits.get(what)
        if limit is not None and free_bytes(device) > _MORE * limit.free_bytes:
            del self._limits[what]
            return None
        return limit if limit is not None and limit.is_certain else None


@contextmanager
def memory_errors_of_a_step() -> Iterator[None]:
    """Every library's lack of memory within the block becomes ``StepMemoryError``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, NoRoomError) or not is_out_of_memory(error):
            raise
        raise StepMemoryError(str(error)) from None


def if_need_be_twice(run: Callable[[], T], device: torch.device) -> T:
    """What ``run()`` gives; where memory is short, once what nobody uses is given back.

    Raises:
        NoRoomError: there is no memory for it then, either.
    """
    return MemoryLimits().first_that_fits("once more", (1, 1), lambda size: run(), device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether something found no place, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
