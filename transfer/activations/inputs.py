"""Outputs at a freeze boundary by batches, computed from images or from what is kept below.

What is kept are rows of an array on the host, handed out on the device. Knows chunks, batches and
views; not what is kept where, nor why.

Legend: N images of an epoch, B images of a batch, n images of a chunk.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfer.activations.frozen import FrozenBlocks, as_rows, from_rows
from transfer.activations.frozen import Positions as Positions

# Share of the device's free memory that one array may take: training needs the rest.
DEVICE_SHARE = 0.25


class Rows:
    """An array (N, ...), in memory or memory-mapped, whose rows are asked for by index.

    On a GPU the whole array is copied there once if it takes at most a quarter of the free
    memory; else rows travel through pinned memory, without waiting for them to arrive.
    """

    def __init__(
        self,
        array: NDArray[Any],
        device: torch.device,
        free_bytes: Callable[[torch.device], int] | None = None,
        *,
        share: float = 1.0,
    ) -> None:
        """``share`` is this array's of the quarter, where several are to be there together."""
        self._array = array
        self._device = device
        self._whole: Tensor | None = None
        if device.type != "cpu":
            free = (free_bytes or _free_bytes)(device)
            if array.nbytes <= share * DEVICE_SHARE * free:
                # A copy: torch warns of a map that it can't write.
                self._whole = torch.from_numpy(np.array(array)).to(device)

    def take(self, index_B: NDArray[np.int64]) -> Tensor:
        """The rows at ``index_B``, a copy on the device in the array's type."""
        if self._whole is not None:
            return self._whole[torch.from_numpy(index_B).to(self._device)]
        rows = torch.from_numpy(self._array[index_B])
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self._device, non_blocking=True)


def _free_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


Gather = Callable[[Positions, Positions], Tensor]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Outputs at boundary ``end``; ``gather(positions, views)`` fetches those at ``start``."""

    frozen: FrozenBlocks
    start: int
    end: int
    gather: Gather

    def in_order(
        self, positions_N: Positions, views_N: Positions, *, of_one_size: bool = False
    ) -> Iterator[Tensor]:
        """The outputs of these views of the images, a chunk at a time, as `FrozenBlocks.chunks`.

        Raises:
            NoRoomError: there is no memory for one image.
        """

        def compute(frozen: FrozenBlocks, index_n: Positions) -> Tensor:
            inputs = self.gather(positions_N[index_n], views_N[index_n])
            return frozen.run(inputs, self.start, self.end)

        return self.frozen.chunks(len(positions_N), compute, of_one_size=of_one_size)

    def in_batches(
        self, positions: Sequence[Positions], views: Sequence[Positions]
    ) -> Iterator[Tensor]:
        """The outputs of each batch: fetched as they are, or cut from chunks of another size."""
        if self.start == self.end:
            yield from map(self.gather, positions, views)
            return
        chunks = self.in_order(np.concatenate(positions), np.concatenate(views))
        waiting = next(chunks)
        for positions_B in positions:
            # Filled chunk by chunk: joined anew with every chunk, a batch of all images would take
            # time by their number squared.
            batch, done = _empty_like(waiting, len(positions_B)), 0
            while True:
                taken = min(len(batch) - done, len(waiting))
                batch[done : done + taken] = waiting[:taken]
                waiting, done = waiting[taken:], done + taken
                if done == len(batch):
                    break
                waiting = next(chunks)
            yield batch


@dataclass(frozen=True, kw_only=True)
class BoundaryInputs:
    """What a run starts from: the outputs at its freeze boundary.

    They are computed from boundary ``start``, which is the same one where all are kept; 0 is the
    images. ``num_bytes`` are kept of it; ``was_at_hand`` says that nothing was computed for it.
    ``counted`` times the computing.
    """

    start: int
    boundary: int
    num_bytes: int
    was_at_hand: bool
    outputs: Outputs
    counted: Callable[[], AbstractContextManager[None]]

    def batches(
        self, positions: Sequence[Positions], views: Sequence[Positions] | None = None
    ) -> Iterator[Tensor]:
        """One tensor for each batch of positions: float32, channels last, on the device.

        Args:
            views: the numbers of the views shown, by batch; None for the images themselves.
        """
        shown = [np.zeros_like(positions_B) for positions_B in positions]
        found = self.outputs.in_batches(positions, shown if views is None else views)
        for _ in positions:
            with self.counted():
                batch = next(found)
            yield batch

    def at(self, positions_B: Positions, views_B: Positions | None = None) -> Tensor:
        """The outputs of one batch."""
        (batch,) = self.batches([positions_B], None if views_B is None else [views_B])
        return batch


def _empty_like(outputs: Tensor, num_images: int) -> Tensor:
    """Room for the outputs of so many images, in the layout of these."""
    return from_rows(outputs.new_empty((num_images, *as_rows(outputs).shape[1:])))


def kept_outputs(
    rows: Sequence[Rows], train_positions_N: Positions, positions_B: Positions, views_B: Positions
) -> Tensor:
    """Fetch kept outputs, an array for each view: of view 0 all images, else the training ones."""
    if not views_B.any():
        return from_rows(rows[0].take(positions_B))
    parts, order = [], []
    for view in np.unique(views_B).tolist():
        these = np.flatnonzero(views_B == view)
        wanted = positions_B[these]
        parts.append(
            rows[view].take(np.searchsorted(train_positions_N, wanted) if view else wanted)
        )
        order.append(these)
    back = torch.from_numpy(np.argsort(np.concatenate(order))).to(parts[0].device)
    return from_rows(torch.cat(parts)[back])
