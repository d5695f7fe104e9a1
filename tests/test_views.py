"""A view depends on the image's pixels and its own number, on nothing else.

Legend: B images of a batch, H W height and width, C channels.
"""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.views import BRIGHTNESS, CONTRAST, SCALE, draw_view, show_views


def pictures(num_images=6, size=32, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images_BCHW = torch.randint(0, 256, (num_images, channels, size, size), generator=generator)
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images_BCHW]
    return images_BCHW.float(), digests


def numbers(*views):
    return np.array(views, dtype=np.int64)


def test_view_0_is_the_image_itself():
    images_BCHW, digests = pictures()
    assert torch.equal(show_views(images_BCHW, digests, numbers(*[0] * 6)), images_BCHW)


def test_only_the_images_whose_view_is_asked_for_are_changed():
    images_BCHW, digests = pictures()
    before = images_BCHW.clone()
    shown = show_views(images_BCHW, digests, numbers(0, 1, 0, 2, 0, 3))
    changed = [not torch.equal(a, b) for a, b in zip(shown, images_BCHW, strict=True)]
    assert changed == [False, True, False, True, False, True]
    assert torch.equal(images_BCHW, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_view_is_the_same_bits_in_any_company(channels, num_threads):
    images_BCHW, digests = pictures(num_images=33, size=48, channels=channels)
    views_B = np.arange(33) % 4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        together = show_views(images_BCHW, digests, views_B)
        for i in (0, 1, 2, 17, 32):
            alone = show_views(images_BCHW[i : i + 1], digests[i : i + 1], views_B[i : i + 1])
            assert torch.equal(alone[0], together[i])
    finally:
        torch.set_num_threads(before)


def test_the_views_of_an_image_differ_from_each_other_and_between_images():
    digests = pictures(num_images=5)[1]
    matrices = {draw_view(d, v).matrix.tobytes() for d in digests for v in range(1, 9)}
    assert len(matrices) == 5 * 8


def test_a_view_is_a_picture_of_8_bits():
    images_BCHW, digests = pictures(channels=3)
    shown = show_views(images_BCHW, digests, numbers(*range(1, 7)))
    assert shown.dtype == torch.float32 and shown.shape == images_BCHW.shape
    assert torch.equal(shown, shown.round())
    assert shown.min() >= 0 and shown.max() <= 255


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), view=st.integers(1, 50))
def test_a_view_is_a_rotation_flip_scale_and_shift_within_its_ranges(seed, view):
    drawn = draw_view(hashlib.sha256(str(seed).encode()).hexdigest(), view)
    scale = np.sqrt(abs(np.linalg.det(drawn.matrix[:, :2])))
    assert SCALE[0] - 1e-6 <= scale <= SCALE[1] + 1e-6
    singular = np.linalg.svd(drawn.matrix[:, :2], compute_uv=False)
    assert singular[0] == pytest.approx(singular[1], rel=1e-5)  # Nothing is sheared or stretched.
    assert abs(drawn.brightness) <= 255 * BRIGHTNESS
    assert abs(drawn.contrast - 1) <= CONTRAST


def test_about_half_of_the_views_are_mirrored_and_none_is_upside_down():
    views = [draw_view(f"{i:032x}", 1).matrix for i in range(400)]
    mirrored = np.mean([np.linalg.det(matrix[:, :2]) < 0 for matrix in views])
    assert 0.4 < mirrored < 0.6
    assert all(matrix[1, 1] > 0.8 for matrix in views)


def test_an_even_picture_stays_even_but_for_its_brightness():
    images_BCHW = torch.full((3, 1, 32, 32), 100.0)
    shown = show_views(images_BCHW, pictures(3)[1], numbers(1, 2, 3))
    assert all(len(image.unique()) == 1 for image in shown)
