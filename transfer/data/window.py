"""The window of a data set: the one range of values that 16-bit images are mapped to 8 bits by.

One for all images, so that a grey value means the same everywhere; never from test images.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import NativePixels, Pixels

Window = tuple[int, int]

NUM_VALUES = 65536
# 8-bit images among 16-bit ones: 255 becomes 65535.
EIGHT_TO_SIXTEEN = np.uint16(257)
# One value in so many is cut off at each end: the 0.1 and the 99.9 percentile.
ONE_IN = 1000


def histogram(pixels: NativePixels) -> NDArray[np.int64]:
    """How often each of the 65536 values occurs, all channels together."""
    counts: NDArray[np.int64] = np.bincount(_sixteen_bit(pixels).ravel(), minlength=NUM_VALUES)
    return counts


def find_window(counts: NDArray[np.int64]) -> Window:
    """The 0.1 and 99.9 percentiles of the values counted: the smallest ones that reach them.

    Source: definition 1 (the inverted distribution function) in R. J. Hyndman and Y. Fan, "Sample
    quantiles in statistical packages", The American Statistician 50 (1996), 361-365.
    """
    cumulative = np.cumsum(counts)
    total = int(cumulative[-1])
    ranks = (-(-total // ONE_IN), total - total // ONE_IN)
    low, high = np.searchsorted(cumulative, ranks)
    return int(low), int(high)


def to_eight_bits(pixels: NativePixels, window: Window | None) -> Pixels:
    """Map the window linearly to 0..255, rounded; what lies outside is clipped.

    Without a window, 8-bit pixels stay as they are.
    """
    if window is None:
        assert pixels.dtype == np.uint8
        return pixels.astype(np.uint8, copy=False)
    return np.asarray(_table(window)[_sixteen_bit(pixels)])


@lru_cache(maxsize=1)
def _table(window: Window) -> Pixels:
    """The 8-bit value of each 16-bit value, (65536,)."""
    low, high = window
    # In a window of a single value everything above it is white.
    share = (np.arange(NUM_VALUES) - low) / max(high - low, 1)
    table: Pixels = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    return table


def _sixteen_bit(pixels: NativePixels) -> NDArray[np.uint16]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * EIGHT_TO_SIXTEEN
    return pixels.astype(np.uint16, copy=False)
