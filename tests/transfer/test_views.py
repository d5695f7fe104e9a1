"""A view depends on the image's pixels and its own number, on nothing else.

Legend: B images of a batch, H W height and width, C channels.
"""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import laplace

from transfer.data.decoding import resize
from transfer.data.sources.phantom import PhantomSpec, phantom_images
from transfer.views import BRIGHTNESS, CONTRAST, HALVING, SCALE, View, draw_view, show_views


def pictures(num_images=6, size=64, channels=1, seed=0):
    """Pictures of noise, twice as large as the images would be, and digests."""
    generator = torch.Generator().manual_seed(seed)
    images_BCHW = torch.randint(0, 256, (num_images, channels, size, size), generator=generator)
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images_BCHW]
    return images_BCHW.float(), digests


def numbers(*views):
    return np.array(views, dtype=np.int64)


@pytest.mark.parametrize("interpolation", HALVING)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_view_is_the_same_bits_in_any_company(channels, num_threads, interpolation):
    large_BCHW, digests = pictures(num_images=33, size=96, channels=channels)
    views_B = 1 + np.arange(33) % 4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        together = show_views(large_BCHW, digests, views_B, interpolation=interpolation)
        for i in (0, 1, 2, 17, 32):
            (alone,) = show_views(
                large_BCHW[i : i + 1],
                digests[i : i + 1],
                views_B[i : i + 1],
                interpolation=interpolation,
            )
            assert torch.equal(alone, together[i])
    finally:
        torch.set_num_threads(before)


def test_the_views_of_an_image_differ_from_each_other_and_between_images():
    digests = pictures(num_images=5)[1]
    matrices = {draw_view(d, v).matrix.tobytes() for d in digests for v in range(1, 9)}
    assert len(matrices) == 5 * 8


@pytest.mark.parametrize("interpolation", HALVING)
def test_a_view_is_a_picture_of_8_bits_at_half_the_size(interpolation):
    large_BCHW, digests = pictures(channels=3)
    shown = show_views(large_BCHW, digests, numbers(*range(1, 7)), interpolation=interpolation)
    assert shown.dtype == torch.float32 and shown.shape == (6, 3, 32, 32)
    assert torch.equal(shown, shown.round())
    assert shown.min() >= 0 and shown.max() <= 255


def test_the_pictures_that_views_are_made_from_stay_as_they_are():
    large_BCHW, digests = pictures()
    before = large_BCHW.clone()
    show_views(large_BCHW, digests, numbers(*range(1, 7)))
    assert torch.equal(large_BCHW, before)


@pytest.mark.parametrize("interpolation", HALVING)
def test_a_view_that_changes_nothing_is_the_image_as_pillow_halves_it(monkeypatch, interpolation):
    unchanged = View(matrix=np.eye(2, 3, dtype=np.float32), brightness=0.0, contrast=1.0)
    monkeypatch.setattr("transfer.views.draw_view", lambda digest, view, flip: unchanged)
    large_BCHW, digests = pictures(1)
    (shown,) = show_views(large_BCHW, digests, numbers(1), interpolation=interpolation)
    large = large_BCHW[0, 0].numpy().astype(np.uint8)
    # At the border Pillow leaves pixels out where these are repeated.
    inside = np.s_[4:-4, 4:-4]
    expected = resize(large, 32, interpolation=interpolation)[inside].astype(float)
    # Ties may be rounded otherwise.
    assert np.abs(shown[0].numpy()[inside] - expected).max() <= 1


@pytest.mark.parametrize("interpolation", HALVING)
# Of an original of 128 pixels, most of whose detail is noise.
@pytest.mark.parametrize(("size", "least"), [(64, 0.85), (112, 0.7)])
def test_a_view_is_nearly_as_sharp_as_the_image(size, least, interpolation):
    """The variance of the Laplacian, a usual measure of sharpness (Pech-Pacheco et al. 2000)."""
    images_NHW, _ = phantom_images(PhantomSpec(train=12, size=128), "train")
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images_NHW]
    large = np.stack([resize(image, 2 * size, interpolation="lanczos") for image in images_NHW])
    views = show_views(
        torch.from_numpy(large[:, None]).float(),
        digests,
        numbers(*[1] * 12),
        interpolation=interpolation,
    )
    ratios = [
        sharpness(view.numpy())
        / sharpness(resize(image, size, interpolation=interpolation).astype(float))
        # A view of more or less contrast differs for that alone.
        / draw_view(digest, 1).contrast ** 2
        for view, image, digest in zip(views[:, 0], images_NHW, digests, strict=True)
    ]
    assert np.mean(ratios) > least


def sharpness(image_HW):
    return laplace(image_HW)[4:-4, 4:-4].var()


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


def turned(flip):
    """Of many views the determinant, and which way is down."""
    matrices = [draw_view(f"{i:032x}", 1, flip).matrix for i in range(400)]
    mirrored = np.array([np.linalg.det(matrix[:, :2]) < 0 for matrix in matrices])
    upside_down = np.array([matrix[1, 1] < 0 for matrix in matrices])
    assert all(abs(matrix[1, 1]) > 0.8 for matrix in matrices)
    return mirrored, upside_down


def test_by_default_about_half_of_the_views_are_mirrored_and_none_is_upside_down():
    mirrored, upside_down = turned("horizontal")
    assert 0.4 < mirrored.mean() < 0.6
    assert not upside_down.any()
    digest = f"{1:032x}"
    assert np.array_equal(draw_view(digest, 1).matrix, draw_view(digest, 1, "horizontal").matrix)


def test_no_view_is_mirrored_where_that_is_not_wanted():
    mirrored, upside_down = turned("none")
    assert not mirrored.any() and not upside_down.any()


def test_views_are_mirrored_both_ways_in_all_four_combinations():
    mirrored, upside_down = turned("both")
    for is_mirrored in (False, True):
        for is_upside_down in (False, True):
            share = np.mean((mirrored == is_mirrored) & (upside_down == is_upside_down))
            assert 0.2 < share < 0.3


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), view=st.integers(1, 50))
def test_how_views_are_mirrored_changes_nothing_else(seed, view):
    digest = hashlib.sha256(str(seed).encode()).hexdigest()
    plain, *others = (draw_view(digest, view, flip) for flip in ("none", "horizontal", "both"))
    for other in others:
        assert (other.brightness, other.contrast) == (plain.brightness, plain.contrast)
        # Mirroring comes first: each column keeps its values but for the sign of all of them.
        for column, before in zip(other.matrix.T, plain.matrix.T, strict=True):
            assert np.array_equal(column, before) or np.array_equal(column, -before)
        assert np.array_equal(other.matrix[:, 2], plain.matrix[:, 2])


def test_an_even_picture_stays_even_but_for_its_brightness():
    large_BCHW = torch.full((3, 1, 64, 64), 100.0)
    shown = show_views(large_BCHW, pictures(3)[1], numbers(1, 2, 3))
    assert all(len(image.unique()) == 1 for image in shown)
