"""A data set's order, split and fingerprints follow from its pixels; the test split is sealed."""

import numpy as np
import pytest
from PIL import Image

from transfer.data.loading import load_data
from transfer.data.phantom import class_names, parse_phantom, phantom_images
from transfer.data.sources import open_source

PHANTOM = "phantom:train=40,test=12,size=32"
CLASSES = class_names(parse_phantom(PHANTOM))
SIZE = 16


def pictures(split):
    images_NHW, labels_N = phantom_images(parse_phantom(PHANTOM), split)
    return [(image, CLASSES[label]) for image, label in zip(images_NHW, labels_N, strict=True)]


def write(root, splits, *, name="{:03d}", suffix=".png"):
    """Write splits, each a list of (image, class), as a folder; return its path."""
    for split, images in splits.items():
        for i, (image, label) in enumerate(images):
            path = root / split / label / (name.format(i) + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return str(root)


def by_pixels(data, split):
    """The images of a split and their labels, as a set that knows no order."""
    return {
        (data.images(np.array([position])).tobytes(), data.classes[label])
        for position, label in zip(split.positions_N, split.labels_N, strict=True)
    }


@pytest.fixture
def load(tmp_path):
    def load_text(text, **given):
        options = {"image_size": SIZE, "seed": 0, "cache_dir": tmp_path / "cache", **given}
        return load_data(open_source(text), **options)

    return load_text


@pytest.fixture
def whole():
    return {"train": pictures("train"), "test": pictures("test")}


def same_training_data(first, second):
    return (
        first.fingerprint == second.fingerprint
        and first.pixels_fingerprint == second.pixels_fingerprint
        and np.array_equal(first.train.positions_N, second.train.positions_N)
        and np.array_equal(first.val.positions_N, second.val.positions_N)
        and np.array_equal(first.train.labels_N, second.train.labels_N)
        and np.array_equal(
            first.images(np.arange(len(first))), second.images(np.arange(len(second)))
        )
    )


def test_training_and_validation_images_are_all_training_images_each_once(load, whole):
    data = load(PHANTOM)
    both = np.concatenate([data.train.positions_N, data.val.positions_N])
    assert sorted(both) == list(range(40)) == list(range(len(data)))
    assert data.counts["train"] == {"NORMAL": 16, "OPACITY": 16}
    assert data.counts["val"] == {"NORMAL": 4, "OPACITY": 4}
    assert data.counts["test"] == {"NORMAL": 6, "OPACITY": 6}


def test_every_image_keeps_its_own_label_and_name(load, whole):
    data = load(PHANTOM, image_size=32)
    true = {(image.tobytes(), label) for image, label in whole["train"]}
    assert by_pixels(data, data.train) | by_pixels(data, data.val) == true
    position = int(data.train.positions_N[5])
    number = int(data.names[position].removeprefix("train/"))
    assert data.images(np.array([position])).tobytes() == whole["train"][number][0].tobytes()


@pytest.mark.parametrize(
    "packing",
    [
        {"suffix": ".png"},
        {"suffix": ".bmp"},
        {"suffix": ".tif"},
        {"name": "renamed {:x}"},
        {"name": "{:03d}/deep"},
    ],
)
def test_other_names_or_another_packing_gives_the_same_split_and_fingerprints(
    load, whole, tmp_path, packing
):
    data, packed = load(PHANTOM), load(write(tmp_path / "images", whole, **packing))
    assert same_training_data(data, packed)
    assert data.test_fingerprint == packed.test_fingerprint


def test_another_order_of_files_gives_the_same(load, whole, tmp_path):
    first = load(write(tmp_path / "images", whole))
    turned = {split: images[::-1] for split, images in whole.items()}
    second = load(write(tmp_path / "turned", turned))
    assert first.names != second.names
    assert same_training_data(first, second)
    assert first.test_fingerprint == second.test_fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "one more"])
def test_any_change_of_the_training_images_changes_the_fingerprint(load, whole, tmp_path, change):
    before = load(PHANTOM)
    image, label = whole["train"][0]
    other = CLASSES[1 - CLASSES.index(label)]
    changed = np.array(image)
    changed[0, 0] ^= 1
    whole["train"] = {
        "pixel": [(changed, label), *whole["train"][1:]],
        "label": [(image, other), *whole["train"][1:]],
        "one more": [(changed, label), *whole["train"]],
    }[change]
    after = load(write(tmp_path / "images", whole))
    assert before.fingerprint != after.fingerprint
    assert (before.pixels_fingerprint == after.pixels_fingerprint) == (change == "label")
    assert before.test_fingerprint == after.test_fingerprint


def test_the_seed_moves_the_split_and_not_the_fingerprint(load):
    first, second = load(PHANTOM, seed=0), load(PHANTOM, seed=1)
    assert set(first.val.positions_N) != set(second.val.positions_N)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("change", ["pixels", "labels", "one more"])
def test_the_seal_changing_the_test_split_changes_its_fingerprint_and_nothing_else(
    load, whole, tmp_path, change
):
    before = load(PHANTOM)
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)
    test = whole["test"]
    whole["test"] = {
        "pixels": [(n, label) for n, (_, label) in zip(noise, test, strict=True)],
        "labels": [(image, CLASSES[1 - CLASSES.index(label)]) for image, label in test],
        "one more": [*test, (noise[0], CLASSES[0])],
    }[change]
    after = load(write(tmp_path / "images", whole))
    assert same_training_data(before, after)
    assert before.test_fingerprint != after.test_fingerprint


def test_the_seal_no_test_pixel_is_in_the_images_nor_in_the_cache(load, tmp_path, whole):
    data = load(PHANTOM, image_size=32)
    test = {image.tobytes() for image, _ in whole["test"]}
    assert {image.tobytes() for image in data.images_NHWC}.isdisjoint(test)
    assert len(data.images_NHWC) == 40
    kept = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert any(whole["train"][0][0].tobytes() in content for content in kept)
    assert not any(image in content for image in test for content in kept)


def test_a_given_val_split_is_respected(load, whole, tmp_path):
    train, val = whole["train"][:30], whole["train"][30:]
    data = load(
        write(tmp_path / "images", {"train": train, "val": val, "test": whole["test"]}),
        image_size=32,
    )
    for images, split in ((train, data.train), (val, data.val)):
        assert by_pixels(data, split) == {(image.tobytes(), label) for image, label in images}
    assert data.fingerprint != load(PHANTOM, image_size=32).fingerprint


def test_a_given_val_split_does_not_follow_the_seed(load, whole, tmp_path):
    splits = {"train": whole["train"][:30], "val": whole["train"][30:], "test": whole["test"]}
    text = write(tmp_path / "images", splits)
    assert same_training_data(load(text, seed=0), load(text, seed=1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_unreadable_image_is_named_whichever_split_it_is_in(load, whole, tmp_path, split):
    text = write(tmp_path / "images", whole)
    damaged = next((tmp_path / "images" / split / "NORMAL").iterdir())
    damaged.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        load(text)
    assert f"can't be read: {split}/NORMAL/{damaged.name} (empty file)" in str(error.value)


def test_positions_are_in_the_datas_order_and_images_have_the_asked_size(load):
    data = load(PHANTOM, image_size=24)
    assert data.image_size == 24
    assert data.images(np.array([3, 1])).shape == (2, 24, 24, 1)
    assert np.array_equal(data.images(np.array([3, 1]))[1], data.images(np.array([1]))[0])
