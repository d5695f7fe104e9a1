"""The window cuts one value in a thousand at each end and maps what is left to 0..255."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.decoding import find_window, histogram, to_eight_bits


def counts_of(*values):
    return np.bincount(values, minlength=65536)


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (range(1000), (0, 998)),
        (range(999), (0, 998)),
        (range(2000), (1, 1997)),
        (range(10_000), (9, 9989)),
        ([5], (5, 5)),
        ([5, 65_535], (5, 65_535)),
        ([0] * 999 + [60_000], (0, 0)),
        ([0] * 998 + [60_000] * 2, (0, 60_000)),
    ],
)
def test_the_window_is_found_as_by_counting_by_hand(values, window):
    assert find_window(counts_of(*values)) == window


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.integers(0, 65_535), min_size=1, max_size=300), times=st.integers(1, 9))
def test_the_window_is_numpys_inverted_distribution_function(values, times):
    pixels = np.repeat(np.array(values, dtype=np.uint16), times)
    expected = np.percentile(pixels, [0.1, 99.9], method="inverted_cdf")
    assert find_window(histogram(pixels)) == tuple(expected)


def test_the_window_is_mapped_linearly_and_clipped_and_rounded():
    pixels = np.array([[0, 1000, 1001], [1255, 1510, 65_535]], dtype=np.uint16)
    assert to_eight_bits(pixels, (1000, 1510)).tolist() == [[0, 0, 0], [128, 255, 255]]
    assert to_eight_bits(pixels, (1000, 1255)).tolist() == [[0, 0, 1], [255, 255, 255]]


@given(low=st.integers(0, 65_535), width=st.integers(0, 65_535))
def test_more_is_never_darker_and_all_values_fit(low, width):
    values = np.arange(65_536, dtype=np.uint16)
    window = (low, min(low + width, 65_535))
    small = to_eight_bits(values, window).astype(int)
    assert (np.diff(small) >= 0).all()
    assert small[window[0]] == 0 and (window[0] == window[1] or small[window[1]] == 255)


def test_eight_bit_pixels_count_257_fold_and_come_back_from_the_whole_range():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.flatnonzero(histogram(pixels)).tolist() == list(range(0, 65_536, 257))
    assert np.array_equal(to_eight_bits(pixels, (0, 65_535)), pixels)


def test_without_a_window_eight_bit_pixels_stay():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(to_eight_bits(pixels, None), pixels)
