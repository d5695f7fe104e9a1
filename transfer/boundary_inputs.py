"""Outputs at a freeze boundary by batches, computed from images or from what is kept below.

Knows chunks, batches and views; not what is kept where, nor why.

Legend: N images of an epoch, B images of a batch, n images of a chunk.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfer.frozen import FrozenBlocks, canonical, from_rows
from transfer.rows import Rows

Positions = NDArray[np.int64]
Gather = Callable[[Positions, Positions], Tensor]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Outputs at boundary ``end``; ``gather(positions, views)`` fetches those at ``start``."""

    frozen: FrozenBlocks
    start: int
    end: int
    gather: Gather

    def in_order(self, positions_N: Positions, views_N: Positions) -> Iterator[Tensor]:
        """The outputs of these views of the images, a chunk at a time."""
        size = self.frozen.chunk_size
        for first in range(0, len(positions_N), size):
            # The last chunk is filled up, so that outputs don't depend on how many there are.
            index_n = np.arange(first, first + size) % len(positions_N)
            inputs = self.gather(positions_N[index_n], views_N[index_n])
            yield self.frozen.run(inputs, self.start, self.end)[: len(positions_N) - first]

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
            while len(waiting) < len(positions_B):
                waiting = canonical(torch.cat([waiting, next(chunks)]))
            yield waiting[: len(positions_B)].clone()
            waiting = waiting[len(positions_B) :]


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
