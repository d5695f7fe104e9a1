"""Opened test images are those of the source, of one channel unless one has colours."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from transfer.data.decoding import resize
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.data.sources.phantom import parse_phantom, phantom_images
from transfer.data.unsealing import unsealed

TEXT = "phantom:train=20,test=21,size=32"


def load(text, tmp_path, **given):
    options = {"image_size": 32, "seed": 0, "cache_dir": tmp_path / "cache"}
    return load_data(open_source(str(text)), **(options | given))


def test_they_have_the_pixels_and_labels_of_the_source_in_its_order(tmp_path):
    images_NHW, labels_N = phantom_images(parse_phantom(TEXT), "test")
    data, seen = load(TEXT, tmp_path), []
    test = unsealed(data, tmp_path, lambda *told: seen.append(told))
    assert np.array_equal(test.val.labels_N, labels_N) and len(test.train) == 0
    assert test.images_NHWC.shape == (21, 32, 32, 1)
    assert np.array_equal(test.images(np.arange(21))[..., 0], images_NHW)
    assert test.fingerprint == test.test_fingerprint == data.test_fingerprint
    assert seen[-1] == ("decoding test images", 21, 21)


def test_they_become_squares_as_the_images_did_that_were_trained_on(tmp_path):
    rng, root, wide = np.random.default_rng(0), tmp_path / "images", {}
    for split in ("train", "test"):
        for label in ("a", "b"):
            for i in range(10):
                pixels = rng.integers(0, 256, (40, 60 + i), dtype=np.uint8)
                write(root, split, label, f"{i}.png", pixels)
                wide[f"{split}/{label}/{i}.png"] = pixels
    given = {"resize": "pad", "interpolations": ("bicubic", "bilinear")}
    test = unsealed(load(root, tmp_path, **given), tmp_path)
    assert test.resize == "pad" and list(test.resized) == ["bicubic", "bilinear"]
    for interpolation, images_NHWC in test.resized.items():
        for name, image_HWC in zip(test.names, images_NHWC, strict=True):
            expected = resize(wide[name], 32, "pad", interpolation)
            assert np.array_equal(image_HWC[..., 0], expected)


def write(root, split, label, name, pixels):
    folder = root / split / label
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def test_one_colour_image_among_grey_ones_keeps_its_colours(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for split in ("train", "test"):
        for label in ("a", "b"):
            for i in range(10):
                grey = rng.integers(0, 256, (32, 32), dtype=np.uint8)
                write(root, split, label, f"{i}.png", grey)
    colour = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    write(root, "test", "b", "5.png", colour)
    test = unsealed(load(root, tmp_path), tmp_path)
    assert test.images_NHWC.shape == (20, 32, 32, 3)
    is_grey_N = (test.images_NHWC == test.images_NHWC[..., :1]).all(axis=(1, 2, 3))
    assert is_grey_N.sum() == 19
    (place,) = np.flatnonzero(~is_grey_N)
    assert np.array_equal(test.images_NHWC[place], colour)
    for i in set(range(20)) - {place}:
        one = np.asarray(Image.open(root / test.names[i]))
        assert np.array_equal(test.images_NHWC[i, ..., 0], one)
    assert [path.name for path in tmp_path.glob("*.npy")] == ["bilinear-colour.npy"]


def test_sixteen_bits_without_a_window_are_refused(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for split in ("train", "test"):
        for label in ("a", "b"):
            for i in range(10):
                deep = rng.integers(0, 65536, (32, 32), dtype=np.uint16)
                write(root, split, label, f"{i}.png", deep)
    data = load(root, tmp_path)
    assert unsealed(data, tmp_path).images_NHWC.dtype == np.uint8
    with pytest.raises(ValueError, match="has 16 bits, but the training images have 8"):
        unsealed(replace(data, window=None), tmp_path)
