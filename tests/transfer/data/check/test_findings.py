"""Words and numbers that findings share."""

import pytest

from studies.statistics.intervals import wilson_interval
from transfer.data.check.findings import interval_width, named, pairs_of, stands


@pytest.mark.parametrize(
    ("names", "text"), [("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c, ...")]
)
def test_the_first_names_are_told_and_that_there_are_more(names, text):
    assert named(names) == text


def test_one_and_many_are_told_apart():
    assert (stands(1), stands(1200)) == ("1 image stands", "1,200 images stand")
    assert (pairs_of(1), pairs_of(2)) == ("1 pair", "2 pairs")


@pytest.mark.parametrize("num_images", [10, 100, 1000])
def test_the_width_is_that_of_wilsons_interval_at_nine_in_ten(num_images):
    low, high = wilson_interval(round(0.9 * num_images), num_images)
    assert interval_width(num_images) == pytest.approx(high - low)


def test_without_an_image_nothing_is_known():
    assert interval_width(0) == pytest.approx(1.0, abs=0.21)
