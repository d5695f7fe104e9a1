"""Run frozen blocks so that what they make of an image does not depend on its company.

Knows blocks and one chunk of images at a time; neither data nor what is kept.

A convolution may be computed in another order for another number of images, which changes last
bits. So every frozen pass, whoever asks for it, takes chunks of one size, filled up where there
are fewer images, and every block gets its input in one memory layout. Where memory is too short
for such a chunk, a pass takes a smaller one on its own: outputs computed so are kept under another
name, and the next pass begins with whole chunks again.

Legend: B images, n images of a chunk.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.activations.fusing import fuse
from transfer.backbones.catalog import BackboneSpec
from transfer.backbones.find import pool
from transfer.training.micro_batches import MemoryLimits, halved_sizes

Positions = NDArray[np.int64]

# Images a pass. On a CPU 8 to 16 are the fastest for most backbones (more leave the cache); the
# number for a GPU was not measured.
CHUNK_SIZES = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True, kw_only=True)
class BlockCost:
    """What one image costs at a block: seconds to compute it, bytes and shape of its output."""

    seconds: float
    row_shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return 4 * torch.Size(self.row_shape).numel()


class FrozenBlocks:
    """The blocks of a backbone for inference: fused, channels last, float32.

    ``chunk_size`` images go through them at a time.

    Boundary b lies behind the first b blocks; 0 is the images, and at the last one the outputs
    are pooled, as no block follows that would want them whole.
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device) -> None:
        self.device = device
        self.chunk_size = CHUNK_SIZES[device.type]
        self._blocks = [fuse(block) for block in blocks]

    def in_chunks_of(self, size: int) -> "FrozenBlocks":
        """The same blocks with chunks of another size."""
        other = copy(self)
        other.chunk_size = size
        return other

    def smaller_sizes(self) -> tuple[int, ...]:
        """The chunk size and those to go on with where memory is too short for it."""
        return halved_sizes(self.chunk_size, self.chunk_size)

    def chunks(
        self,
        num_images: int,
        compute: Callable[["FrozenBlocks", Positions], Tensor],
        *,
        of_one_size: bool = False,
    ) -> Iterator[Tensor]:
        """What ``compute(frozen, index_n)`` gives for all images, a chunk at a time, in order.

        The last chunk is filled up, so that outputs don't depend on how many images there are.
        Where memory is short, chunks are smaller from there on, unless all are to be
        ``of_one_size``.

        Raises:
            NoRoomError: there is no memory for one image.
        """
        frozen, first = self, 0

        def chunk(size: int) -> tuple["FrozenBlocks", Tensor]:
            smaller = self.in_chunks_of(size)
            return smaller, compute(smaller, np.arange(first, first + size) % num_images)

        while first < num_images:
            if of_one_size:
                _, outputs = chunk(self.chunk_size)
            else:
                frozen, outputs = MemoryLimits().first_that_fits(
                    "chunk", frozen.smaller_sizes(), chunk, self.device
                )
            yield outputs[: num_images - first]
            first += frozen.chunk_size

    def run(self, inputs_n: Tensor, start: int, end: int) -> Tensor:
        """Outputs at boundary ``end`` of one whole chunk of those at ``start``, canonical both."""
        assert len(inputs_n) == self.chunk_size
        with torch.no_grad():
            for index in range(start, end):
                inputs_n = self._step(inputs_n, index)
        return inputs_n

    def costs(self, images_n3hw: Tensor) -> list[BlockCost]:
        """Measure every block on one chunk of normalised images, the better of two passes."""
        passes = [self._timed(images_n3hw) for _ in range(2)]
        return [
            BlockCost(
                seconds=min(first, second) / self.chunk_size, row_shape=as_rows(outputs).shape[1:]
            )
            for (first, outputs), (second, _) in zip(*passes, strict=True)
        ]

    def _timed(self, x: Tensor) -> list[tuple[float, Tensor]]:
        found = []
        with torch.no_grad():
            for index in range(len(self._blocks)):
                started = perf_counter()
                x = self._step(x, index)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                # Without their values: only shape and layout are wanted.
                found.append((perf_counter() - started, x.to("meta")))
        return found

    def _step(self, x: Tensor, index: int) -> Tensor:
        x = self._blocks[index](x)
        return canonical(pool(x) if index + 1 == len(self._blocks) else x)


def normalised(images_BCHW: Tensor, spec: BackboneSpec) -> Tensor:
    """Pixels of 0 to 255, of one channel or three, as the backbone wants them: (B, 3, H, W)."""
    mean = torch.tensor(spec.mean, device=images_BCHW.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images_BCHW.device).view(1, 3, 1, 1)
    return canonical((images_BCHW.div(255) - mean) / std)


def canonical(x: Tensor) -> Tensor:
    """The same values with the strides that they have after `as_rows` and `from_rows`.

    That is channels last for pictures. Also where a side of one pixel makes strides ambiguous:
    kernels are chosen by strides, and another kernel may give other last bits.
    """
    strides = list(torch.empty(x.shape, device="meta").stride())
    if x.ndim == 4:
        _, channels, height, width = x.shape
        strides = [channels * height * width, 1, width * channels, channels]
    if list(x.stride()) == strides:
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def as_rows(x: Tensor) -> Tensor:
    """A row an image as it is stored: (n, h, w, c) for a picture, else as it is; contiguous."""
    return canonical(x).permute(0, 2, 3, 1) if x.ndim == 4 else canonical(x)


def from_rows(rows: Tensor) -> Tensor:
    """The opposite of `as_rows`."""
    return canonical(rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows)
