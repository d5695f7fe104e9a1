"""Rows of an array on the host, handed out on the device. Knows no images and no networks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    @property
    def is_on_device(self) -> bool:
        """Whether rows are found on the device without a copy from the host."""
        return self._device.type == "cpu" or self._whole is not None

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
