"""The most confident errors come first, as pictures that can be opened."""

import io

import numpy as np
import pytest
from PIL import Image

from studies.report.task_e import to_png, worst_first


def test_only_errors_are_shown_the_surest_first():
    given_NC = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.05, 0.95]])
    assert worst_first(given_NC, np.array([0, 0, 1, 0])) == [3, 1]
    assert worst_first(given_NC, np.array([0, 1, 1, 1])) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_has_the_pixels_of_the_thumbnail(channels):
    image_HWC = np.random.default_rng(0).integers(0, 256, (8, 8, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(to_png(image_HWC))) as picture:
        found = np.asarray(picture)
    assert np.array_equal(found.reshape(image_HWC.shape), image_HWC)
