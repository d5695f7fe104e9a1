"""A data set's order, split and fingerprints follow from its pixels; the test split is sealed."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
from paths import SHARED
from PIL import Image

from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images

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
    def load_text(text, *, group_pattern=None, **given):
        options = {"image_size": SIZE, "seed": 0, "cache_dir": tmp_path / "cache", **given}
        return load_data(open_source(text, group_pattern=group_pattern), **options)

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


SHARED_DATA = SHARED / "data"


def write_arrays(root, splits):
    """Write splits as a folder of .npy files; splits of None are images without splits."""
    root.mkdir()
    for split, images in splits.items():
        for name in {label for _, label in images}:
            array = np.stack([image for image, label in images if label == name])
            np.save(root / f"{'test_' if split == 'test' else ''}{name}.npy", array)
    return str(root)


def write_manifest(root, splits, group=None):
    """Write splits as one folder of numbered files and a manifest."""
    root.mkdir()
    rows = [(split, *one) for split, images in splits.items() for one in images]
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["label", "path", "remark", *(["group"] if group else []), "split"])
    for i, (split, image, label) in enumerate(rows[::-1]):
        Image.fromarray(image).save(root / f"{i}.png")
        known = [group(image)] if group else []
        writer.writerow([label, f"{i}.png", "none", *known, split])
    text = table.getvalue()
    if splits.keys() == {""}:
        text = "\n".join(line.rpartition(",")[0] for line in text.splitlines())
    (root / "manifest.csv").write_text(text)
    return str(root / "manifest.csv")


PACKINGS = {"folder": write, "arrays": write_arrays, "manifest": write_manifest}


def recoloured(splits, kind):
    """The same splits with some images in colour, of 16 bits, or twice."""

    def change(i, image):
        if kind == "colour" and i % 3 == 0:
            return np.stack([image, image, 255 - image], axis=-1)
        if kind == "16 bits":
            return image.astype(np.uint16) * np.uint16(200 + i)
        return image

    def repeated(images):
        return images + images[:6] if kind == "twice" else images

    return {
        split: repeated([(change(i, image), label) for i, (image, label) in enumerate(images)])
        for split, images in splits.items()
    }


def everything(data):
    """All that must be the same for the same pictures, however they are packed."""
    arrays = (data.train.positions_N, data.val.positions_N, data.images(np.arange(len(data))))
    labels = (data.train.labels_N, data.val.labels_N)
    return [array.tolist() for array in arrays + labels] + [
        data.fingerprint,
        data.pixels_fingerprint,
        data.test_fingerprint,
        data.digests,
        data.counts,
        data.window,
        data.shapes,
        data.made_splits,
    ]


@pytest.mark.parametrize("made", [False, True], ids=["given splits", "made splits"])
@pytest.mark.parametrize("kind", ["grey", "16 bits", "twice"])
def test_the_same_pictures_as_folder_arrays_and_manifest_are_the_same_data(
    load, whole, tmp_path, kind, made
):
    if made:
        whole = {"": whole["train"] + whole["test"]}
    splits = recoloured(whole, kind)
    loaded = [load(pack(tmp_path / name, splits)) for name, pack in PACKINGS.items()]
    assert everything(loaded[0]) == everything(loaded[1]) == everything(loaded[2])
    assert loaded[0].made_splits == (("val", "test") if made else ("val",))
    assert (loaded[0].window is None) == (kind != "16 bits")


def test_colour_pictures_are_the_same_as_folder_and_manifest(load, whole, tmp_path):
    splits = recoloured(whole, "colour")
    first, second = (
        load(PACKINGS[name](tmp_path / name, splits)) for name in ("folder", "manifest")
    )
    assert everything(first) == everything(second)
    assert first.images_NHWC.shape[3] == 3
    assert first.modes == {"L": 26, "RGB": 14}


def test_an_image_in_train_and_val_does_not_make_the_order_depend_on_names(load, whole, tmp_path):
    train, val = whole["train"][:30], whole["train"][30:] + whole["train"][:5]
    splits = {"train": train, "val": val, "test": whole["test"]}
    first, second = (
        load(PACKINGS[name](tmp_path / name, splits)) for name in ("folder", "manifest")
    )
    assert everything(first) == everything(second)


def all_images(whole):
    return {"": whole["train"] + whole["test"]}


def test_made_splits_hold_every_image_once_and_every_class(load, whole, tmp_path):
    data = load(write(tmp_path / "images", all_images(whole)))
    for name, (train, val, test) in {"NORMAL": (16, 5, 5), "OPACITY": (16, 5, 5)}.items():
        counts = [data.counts[split][name] for split in ("train", "val", "test")]
        assert sum(counts) == 26
        assert np.abs(np.subtract(counts, (train, val, test))).max() <= 1
    assert len(data) == 52 - sum(data.counts["test"].values())


def test_the_made_test_split_follows_neither_the_seed_nor_the_names(load, whole, tmp_path):
    text = write(tmp_path / "images", all_images(whole))
    renamed = write(tmp_path / "renamed", {"": all_images(whole)[""][::-1]}, name="x{:03d}")
    first, *others = [load(text, seed=seed) for seed in range(4)] + [load(renamed)]
    assert {other.test_fingerprint for other in others} == {first.test_fingerprint}
    assert {other.fingerprint for other in others} == {first.fingerprint}
    assert len({tuple(data.val.positions_N) for data in [first, *others]}) == 4


def test_the_seal_no_pixel_of_a_made_test_split_is_in_the_images_nor_in_the_cache(
    load, whole, tmp_path
):
    data = load(write(tmp_path / "images", all_images(whole)), image_size=32)
    pool = {image.tobytes() for image in data.images_NHWC}
    test = {image.tobytes() for image, _ in all_images(whole)[""]} - pool
    assert len(test) == sum(data.counts["test"].values()) == 52 - len(pool)
    kept = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not any(image in content for image in test for content in kept)


@pytest.mark.parametrize("made", [False, True], ids=["given splits", "made splits"])
def test_repeated_pixels_are_never_parted(load, whole, tmp_path, made):
    images = whole["train"] + whole["train"][:15] + whole["train"][:5]
    splits = {"": images} if made else {"train": images, "test": whole["test"]}
    text = write(tmp_path / "images", splits)
    times = Counter(image.tobytes() for image, _ in images)
    for seed in range(5):
        data = load(text, seed=seed, image_size=32)
        for split in (data.train, data.val):
            found = Counter(image.tobytes() for image in data.images(split.positions_N))
            assert all(count == times[image] for image, count in found.items())


def subject(image):
    """Eight subjects, told by the pixels so that the packing does not matter."""
    return f"p{int(image[:4, :4].sum()) % 8}"


@pytest.mark.parametrize("made", [False, True], ids=["given splits", "made splits"])
def test_groups_are_never_parted_whatever_the_seed(load, whole, tmp_path, made):
    splits = all_images(whole) if made else whole
    text = write_manifest(tmp_path / "images", splits, group=subject)
    groups = open_source(text).splits["all" if made else "train"]
    group_of = dict(zip(groups.names, groups.groups, strict=True))
    for seed in range(20):
        data = load(text, seed=seed)
        train, val = (
            {group_of[data.names[i]] for i in split.positions_N}
            for split in (data.train, data.val)
        )
        assert train.isdisjoint(val)
        assert all(count for counts in data.counts.values() for count in counts.values())
        if made:
            in_test = set(group_of) - set(data.names)
            assert {group_of[name] for name in in_test}.isdisjoint(train | val)
    assert data.num_groups == 8


def test_subjects_of_other_names_are_the_same_data_and_other_subjects_are_not(
    load, whole, tmp_path
):
    def write_groups(name, group):
        return load(write_manifest(tmp_path / name, whole, group=group))

    data = write_groups("one", subject)
    renamed = write_groups("two", lambda image: f"patient {9 - int(subject(image)[1])}")
    moved = write_groups("three", lambda image: "p0" if subject(image) == "p1" else subject(image))
    without = load(write_manifest(tmp_path / "four", whole))
    assert everything(data) == everything(renamed)
    assert len({data.fingerprint, moved.fingerprint, without.fingerprint}) == 3
    assert data.pixels_fingerprint == moved.pixels_fingerprint == without.pixels_fingerprint
    assert data.test_fingerprint == moved.test_fingerprint == without.test_fingerprint
    assert (data.num_groups, without.num_groups) == (8, None)


def test_a_pattern_gives_the_groups_that_a_column_would_give(load, whole, tmp_path):
    text = write_manifest(tmp_path / "one", whole, group=subject)
    for split, images in whole.items():
        for i, (image, label) in enumerate(images):
            path = tmp_path / "two" / split / label / f"{subject(image)}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    assert everything(load(text)) == everything(load(str(tmp_path / "two"), group_pattern=r"^p\d"))


@pytest.mark.parametrize("change", ["pixels", "labels"])
def test_the_seal_sixteen_bit_test_images_do_not_move_the_window(load, whole, tmp_path, change):
    splits = recoloured(whole, "16 bits")
    before = load(write_arrays(tmp_path / "one", splits))
    other = np.full((32, 32), 65_535, dtype=np.uint16)
    splits["test"] = [(other - np.uint16(i), label) for i, (_, label) in enumerate(splits["test"])]
    after = load(write_arrays(tmp_path / "two", splits))
    assert before.window == after.window
    assert same_training_data(before, after)
    assert before.test_fingerprint != after.test_fingerprint


def test_the_window_is_that_of_the_given_training_images(load, tmp_path):
    def constant(*values):
        return [
            (np.full((8, 8), value + i, dtype=np.uint16), label)
            for value in values
            for i, label in enumerate(("a", "b"))
        ]

    splits = {
        "train": constant(1000, 2000, 3000),
        "val": constant(9, 50_000),
        "test": constant(60_000, 1),
    }
    data = load(write(tmp_path / "images", splits), image_size=8)
    assert data.window == (1000, 3001)
    assert data.shapes == {"8x8": 10} and data.modes == {"I;16": 10}


def test_three_classes_without_splits_are_all_everywhere(load, tmp_path):
    root, rng = tmp_path / "arrays", np.random.default_rng(0)
    root.mkdir()
    for name, count in {"a": 10, "b": 5, "c": 3}.items():
        np.save(root / f"{name}.npy", rng.integers(0, 256, (count, 9, 7, 3), dtype=np.uint8))
    data = load(str(root))
    assert data.classes == ("a", "b", "c")
    assert all(count > 0 for counts in data.counts.values() for count in counts.values())
    assert data.counts["test"] == {"a": 2, "b": 1, "c": 1}
    assert data.shapes == {"7x9": 14}


def test_a_class_too_small_for_made_splits_is_refused_by_name(load, tmp_path):
    root, rng = tmp_path / "arrays", np.random.default_rng(0)
    root.mkdir()
    for name, count in {"many": 10, "few": 2}.items():
        np.save(root / f"{name}.npy", rng.integers(0, 256, (count, 9, 7), dtype=np.uint8))
    with pytest.raises(ValueError, match="but class 'few' has 2; add images") as error:
        load(str(root))
    assert "\n" not in str(error.value)


def test_pixels_of_an_npz_file_that_are_damaged_are_refused_in_one_line(load, tmp_path):
    # Large enough that opening, which reads the header, does not come to the end.
    images = np.random.default_rng(0).integers(0, 256, (8, 99, 99), dtype=np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, train_images=images, train_labels=np.arange(8) % 2)
    content = bytearray(path.read_bytes())
    content[content.index(images[3].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"set.npz: train_images is damaged \(") as error:
        load(str(path))
    assert "\n" not in str(error.value)


needs_shared = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data are not here")


@pytest.mark.slow
@needs_shared
def test_the_chest_x_rays_are_the_same_data_as_folder_and_by_their_manifest(load):
    folder, manifest = (
        load(str(SHARED_DATA / "chest_xray" / name), image_size=32)
        for name in ("", "manifest.csv")
    )
    assert everything(folder) == everything(manifest)
    assert folder.counts["test"] == {"NORMAL": 200, "PNEUMONIA": 200}


@needs_shared
def test_pneumoniamnist_keeps_its_given_splits(load):
    data = load(str(SHARED_DATA / "pneumoniamnist.npz"), image_size=28)
    assert (len(data.train), len(data.val)) == (4708, 524)
    assert sum(data.counts["test"].values()) == 624
    assert data.made_splits == ()


def deep_folder(root, split_of):
    """16-bit pictures, those of number 0 to 7 much brighter, in the split that is asked for."""
    for i in range(16):
        path = root / split_of(i) / "AB"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        values = rng.integers(0, 60_000 if i < 8 else 4_000, (32, 32), dtype=np.uint16)
        Image.fromarray(values).save(path)
    for i in range(2):
        path = root / "test" / "AB"[i] / f"{i}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32), np.uint16)).save(path)
    return root


def test_the_name_of_the_pixels_depends_on_the_window_that_made_them(tmp_path):
    def load(root):
        return load_data(open_source(str(root)), image_size=32, seed=0, cache_dir=tmp_path / "c")

    whole = load(deep_folder(tmp_path / "whole", lambda i: "train"))
    given = load(deep_folder(tmp_path / "given", lambda i: "val" if i < 8 else "train"))
    assert whole.digests == given.digests
    assert whole.window != given.window
    assert whole.pixels_fingerprint != given.pixels_fingerprint
