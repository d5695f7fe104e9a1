"""What is kept of opened test images, and what is refused before they are opened."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import HASHES, bundle_config
from PIL import Image

from studies.bundle.reproduce import Places
from studies.evaluation import images
from studies.evaluation import images as opened
from studies.evaluation import setup as ready
from studies.evaluation.images import THUMBNAIL_SIZE
from studies.evaluation.setup import get_ready
from studies.terminal.progress import LineProgress
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source


@pytest.mark.parametrize(("size", "kept"), [(32, 32), (200, THUMBNAIL_SIZE)])
@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnails_are_small_and_keep_their_channels(size, kept, channels):
    images_NHWC = np.full((2, size, size, channels), 7, np.uint8)
    images_NHWC[..., -1] = 9
    small_NHWC = opened._thumbnails(images_NHWC)
    assert small_NHWC.shape == (2, kept, kept, channels)
    assert small_NHWC[0, 0, 0].tolist() == images_NHWC[0, 0, 0].tolist()


def test_features_are_rounded_where_they_fit():
    features_ND = np.array([[1.0, 1000.123]], np.float32)
    assert images._half(features_ND).dtype == np.float16
    large_ND = features_ND * 1000
    assert np.array_equal(images._half(large_ND), large_ND)


def write_images(root: Path, test_depth):
    for split, depth in (("train", np.uint8), ("test", test_depth)):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(10):
                noise = np.random.default_rng([i, ord(label), split == "test"])
                pixels = noise.integers(0, np.iinfo(depth).max, (32, 32), dtype=depth)
                Image.fromarray(pixels).save(folder / f"{i}.png")


def test_sixteen_bits_among_eight_are_refused_while_the_seal_is_whole(tmp_path, monkeypatch):
    write_images(tmp_path / "images", np.uint16)
    source = open_source(str(tmp_path / "images"))
    data = load_data(source, image_size=32, seed=0, cache_dir=tmp_path / "cache")
    config = bundle_config(HASHES, backbone="resnet18")
    origin = config.data.model_copy(
        update={
            "source": str(tmp_path / "images"),
            "fingerprint": data.fingerprint,
            "test_fingerprint": data.test_fingerprint,
        }
    )
    run = SimpleNamespace(config={"backbone": "resnet18"})
    found = SimpleNamespace(
        bundle=config.model_copy(update={"data": origin}),
        study=SimpleNamespace(
            settings={"seed": 0, "weights": "random"},
            identity={"weights": {"resnet18": "random-0"}},
            weight_places={},
            data_place=str(tmp_path / "images"),
        ),
        candidates={"fine_tuning": SimpleNamespace(runs=[run])},
        recipes=[],
        on_features=[],
        name="s",
    )
    monkeypatch.setattr(opened, "unsealed", None)
    monkeypatch.setattr(ready, "_check_trained", lambda *given: None)
    with pytest.raises(ValueError, match="20 test images have 16 bits, but the training images"):
        get_ready(None, None, found, Places(cache_dir=tmp_path / "cache"), LineProgress())
    eight = tmp_path / "eight"
    write_images(eight, np.uint8)
    other = load_data(open_source(str(eight)), image_size=32, seed=0, cache_dir=tmp_path / "cache")
    same = origin.model_copy(update={"test_fingerprint": other.test_fingerprint})
    found.bundle = config.model_copy(update={"data": same})
    places = Places(cache_dir=tmp_path / "cache", data=str(eight))
    assert set(get_ready(None, None, found, places, LineProgress()).weights) == {"resnet18"}
    places = replace(places, data=str(tmp_path / "images"))
    with pytest.raises(ValueError, match="test images or labels are not those of study 's'"):
        get_ready(None, None, found, places, LineProgress())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_opened_images_are_mapped_no_longer_when_their_folder_is_removed(tmp_path, monkeypatch):
    mapped, remove = [], shutil.rmtree

    def unseal(data, folder, on_progress):
        np.save(folder / "grey.npy", np.zeros((4, 8, 8, 1), np.uint8))
        test = SimpleNamespace(images_NHWC=np.load(folder / "grey.npy", mmap_mode="r"))
        test.itself = test  # As networks and caches are in circles.
        return test

    def removed(path, *arguments, **named):
        mapped.append(str(path) in Path("/proc/self/maps").read_text())
        return remove(path, *arguments, **named)

    monkeypatch.setattr(opened, "unsealed", unseal)
    monkeypatch.setattr(opened, "_said", lambda *given: "said")
    monkeypatch.setattr(shutil, "rmtree", removed)
    found = SimpleNamespace(cache_dir=tmp_path, data=None)
    assert opened.open_test_images(None, None, None, found, LineProgress()) == "said"
    assert mapped and not any(mapped)
    assert list((tmp_path / "opened").iterdir()) == []
