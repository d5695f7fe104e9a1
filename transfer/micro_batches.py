"""Batches, and how they are split where memory is short: sizes to try, and which have failed.

Knows numbers of images and errors of memory. Knows neither networks nor losses.
"""

import gc
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from transfer.device import free_memory

T = TypeVar("T")

# What torch says on a host without memory left, on Linux and macOS, and on Windows.
_OF_THE_HOST = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def shuffled_batches(
    num_images: int, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Indices of all images in batches. A last image alone joins the batch before it."""
    order = rng.permutation(num_images)
    for part in _parts(num_images, batch_size):
        yield order[part]


def micro_batches(num_images: int, size: int) -> list[slice]:
    """The parts of a batch, ``size`` images each. With sizes above 1 none is one image alone."""
    if size == 1:
        return [slice(i, i + 1) for i in range(num_images)]
    return _parts(num_images, size)


def _parts(num_images: int, size: int) -> list[slice]:
    bounds = [*range(0, num_images, size), num_images]
    # BatchNorm can't train on one image.
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    return list(itertools.starmap(slice, itertools.pairwise(bounds)))


def halved_sizes(batch_size: int, num_images: int) -> tuple[int, ...]:
    """The batch size, then its half and so on down to 1, rounded up.

    Sizes that would leave every batch of ``num_images`` images whole are left out.
    """
    sizes, size = [batch_size], min(batch_size, num_images)
    while size > 1:
        size = (size + 1) // 2
        sizes.append(size)
    return tuple(sizes)


class MemoryLimits:
    """For what there was no memory in this process, so that it isn't tried over and over."""

    def __init__(self) -> None:
        self._failed: dict[Hashable, int] = {}

    def first_that_fits(
        self,
        what: Hashable,
        sizes: Sequence[int],
        run: Callable[[int], T],
        device: torch.device,
    ) -> T:
        """What ``run(size)`` gives for the first of the falling ``sizes`` that memory allows.

        Sizes at or above one that failed for the same ``what`` are skipped; the last is tried
        in any case.

        Raises:
            OutOfMemoryError: of torch, on the host too: there is no memory for the last size.
        """
        failed = self._failed.get(what)
        for size in [s for s in sizes if failed is None or s < failed] or sizes[-1:]:
            try:
                return run(size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            # Outside of the handler: the error's traceback holds the network that filled memory.
            gc.collect()
            free_memory(device)
            self._failed[what] = size
        raise torch.OutOfMemoryError(message)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a tensor found no place, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError) or any(s in str(error) for s in _OF_THE_HOST)
