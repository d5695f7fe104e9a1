"""Arrays are opened by their headers, read when asked for, and refused when they are not right."""

import zipfile

import numpy as np
import pytest
from paths import SHARED

from transfer.data.sources import arrays
from transfer.data.sources.arrays import available_memory_bytes, open_npy_folder, open_npz

PNEUMONIA = SHARED / "data" / "pneumoniamnist.npz"
GREY = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)
LABELS = np.array([7, 10, 7, 10])


def contents(**changed):
    """A whole set of arrays; a change of None leaves a key out."""
    whole = {f"{split}_images": GREY for split in ("train", "val", "test")}
    whole |= {f"{split}_labels": LABELS for split in ("train", "val", "test")}
    return {key: value for key, value in (whole | changed).items() if value is not None}


NO_VAL = {"val_images": None, "val_labels": None}
TRAIN_ONLY = NO_VAL | {"test_images": None, "test_labels": None}


@pytest.fixture
def npz(tmp_path):
    def write(save=np.savez_compressed, **changed):
        path = tmp_path / "set.npz"
        save(path, **contents(**changed))
        return path

    return write


def pixels(items, i):
    return items.decode(items.read(i)).pixels


@pytest.mark.parametrize("images", [GREY, COLOUR, GREY * np.uint16(300), COLOUR * np.uint16(300)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_image_of_an_npz_file_keeps_its_values(npz, images, save):
    source = open_npz(npz(save, train_images=images, val_images=np.asfortranarray(images)))
    assert source.splits.keys() == {"train", "val", "test"}
    for split in ("train", "val"):
        for i, image in enumerate(images):
            assert np.array_equal(pixels(source.splits[split], i), image)
            assert pixels(source.splits[split], i).dtype == images.dtype


@pytest.mark.parametrize("kind", [np.uint8, np.int64, ">i4"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_may_have_any_integer_type_and_one_column(npz, kind, shape):
    source = open_npz(npz(train_labels=LABELS.astype(kind).reshape(shape)))
    assert source.classes == ("7", "10")
    assert source.splits["train"].labels_N.tolist() == [0, 1, 0, 1]


def test_classes_are_in_the_order_of_their_numbers(npz):
    labels = np.array([10, 9, 2, -1])
    given = {f"{split}_labels": labels for split in ("train", "val", "test")}
    assert open_npz(npz(**given)).classes == ("-1", "2", "9", "10")


@pytest.mark.parametrize(
    ("changed", "splits"), [(NO_VAL, {"train", "test"}), (TRAIN_ONLY, {"all"}), ({}, None)]
)
def test_val_may_be_missing_and_so_may_all_splits(npz, changed, splits):
    found = open_npz(npz(**changed)).splits.keys()
    assert found == (splits or {"train", "val", "test"})


def test_other_arrays_in_the_file_are_passed_over(npz):
    assert open_npz(npz(note=np.array({"a": "pickled object"}, dtype=object))).classes


def test_opening_reads_no_pixel(npz, monkeypatch):
    loaded = []
    load = arrays._load
    monkeypatch.setattr(arrays, "_load", lambda path, key: loaded.append(key) or load(path, key))
    source = open_npz(npz())
    assert set(loaded) == {"train_labels", "val_labels", "test_labels"}
    for i in range(4):
        source.splits["val"].read(i)
    assert loaded[3:] == ["val_images"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": None}, "has no train_images"),
        ({"val_labels": None}, "has no val_labels"),
        ({"test_images": None, "test_labels": None}, "must hold train_images and train_labels"),
        (dict.fromkeys(contents()), "has nothing"),
        ({"train_images": GREY.astype(np.float32)}, "uint8 or uint16, but is of float32"),
        ({"train_images": GREY.astype(np.int64)}, "uint8 or uint16, but is of int64"),
        ({"train_images": GREY.astype(bool)}, "uint8 or uint16, but is of bool"),
        ({"train_images": GREY.astype(object)}, "uint8 or uint16, but is of object"),
        ({"train_images": GREY[0]}, "must have the shape (N, H, W) or (N, H, W, 3)"),
        ({"train_images": GREY[..., None]}, "but has (4, 5, 6, 1)"),
        ({"train_images": COLOUR[:, None]}, "but has (4, 1, 5, 6, 3)"),
        ({"train_images": GREY[:0], "train_labels": LABELS[:0]}, "but has (0, 5, 6)"),
        ({"train_images": GREY[:, :0]}, "but has (4, 0, 6)"),
        ({"train_labels": LABELS[:3]}, "train has 4 images and 3 labels"),
        ({"train_labels": np.eye(4, dtype=np.uint8)}, "several labels for an image"),
        ({"train_labels": LABELS.astype(float)}, "must be integers of shape (N,) or (N, 1)"),
        ({"train_labels": LABELS.astype(str)}, "must be integers of shape (N,) or (N, 1)"),
        ({"train_labels": LABELS.astype(object)}, "must be integers of shape (N,) or (N, 1)"),
        ({"train_labels": LABELS.reshape(4, 1, 1)}, "must be integers of shape (N,) or (N, 1)"),
        ({"test_labels": np.array([7, 7, 7, 7])}, "Class '10' has no image in test"),
        ({"test_labels": np.array([7, 10, 8, 8])}, "Class '8' has no image in train"),
        (TRAIN_ONLY | {"train_labels": np.zeros(4, int)}, "2 or more classes, has only '0'"),
    ],
)
def test_an_npz_file_that_is_not_right_is_refused_in_one_line(npz, changed, message):
    path = npz(**changed)
    with pytest.raises(ValueError) as error:
        open_npz(path)
    assert message in str(error.value)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\3\4" + bytes(100), "truncated"])
def test_a_damaged_npz_file_is_refused_in_one_line(npz, content):
    path = npz()
    path.write_bytes(path.read_bytes()[:-100] if content == "truncated" else content)
    with pytest.raises(ValueError, match=r"set.npz is damaged or no .npz file \(.+\)\.$") as error:
        open_npz(path)
    assert "\n" not in str(error.value)


def test_damage_anywhere_is_refused_or_gives_images(npz):
    path, rng = npz(), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            items = open_npz(path).splits["train"]
            assert pixels(items, 0).shape
        except ValueError as error:
            assert str(error) and "\n" not in str(error)


def test_an_array_that_claims_more_than_is_there_is_refused(tmp_path, npz):
    path, fake = npz(), tmp_path / "fake.npz"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(fake, "w") as changed:
        for member in whole.namelist():
            content = whole.read(member)
            if member == "train_images.npy":
                content = content.replace(b"(4, 5, 6)", b"(4, 5, 9)")
            changed.writestr(member, content)
    with pytest.raises(ValueError, match="another length than its header says"):
        open_npz(fake)


def test_what_would_not_fit_into_half_of_the_memory_is_refused_with_both_numbers(npz, monkeypatch):
    path = npz(train_images=np.zeros((4, 1000, 1000), np.uint8))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(arrays, "available_memory_bytes", lambda: 6_000_000)
    with pytest.raises(ValueError, match=r"unpacks to 4 MB, but .*, 3 MB, may be used") as error:
        open_npz(path)
    assert "\n" not in str(error.value)


def test_the_available_memory_is_found_or_assumed(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   300 kB\n")
    (tmp_path / "garbled").write_text("MemAvailable")
    assert available_memory_bytes(tmp_path / "meminfo") == 300 * 1024
    assert available_memory_bytes(tmp_path / "garbled") == arrays.ASSUMED_MEMORY_BYTES
    assert available_memory_bytes(tmp_path / "missing") > 2**20


def test_given_names_are_the_names_of_the_labels(npz):
    labels = {f"{split}_labels": np.array([0, 1, 0, 1]) for split in ("train", "val", "test")}
    assert open_npz(npz(**labels), class_names=["x", "y"]).classes == ("x", "y")
    with pytest.raises(ValueError, match="labels 0 to 1, but its 1 classes are numbered 0 to 0"):
        open_npz(npz(**labels), class_names=["x"])


@pytest.fixture
def npy(tmp_path):
    def write(**files):
        folder = tmp_path / "arrays"
        folder.mkdir()
        for name, array in files.items():
            path = folder / f"{name}.npy"
            np.save(path, array) if isinstance(array, np.ndarray) else path.write_bytes(array)
        return folder

    return write


def test_a_folder_of_arrays_offers_a_class_for_each_file(npy):
    deep = np.full((2, 3, 4), 60_000, dtype=np.uint16)
    folder = npy(b=deep, a=GREY, test_a=GREY[:1], test_b=deep[:1])
    np.save(folder / ".hidden.npy", GREY)
    source = open_npy_folder(folder)
    assert source.classes == ("a", "b")
    assert source.counts() == {"train": {"a": 4, "b": 2}, "test": {"a": 1, "b": 1}}
    assert np.array_equal(pixels(source.splits["train"], 3), GREY[3])
    assert np.array_equal(pixels(source.splits["train"], 5), deep[1])
    assert np.array_equal(pixels(source.splits["test"], 1), deep[0])


def test_without_test_files_all_images_are_offered_at_once(npy):
    assert open_npy_folder(npy(a=GREY, b=COLOUR, c=GREY)).counts() == {
        "all": {"a": 4, "b": 4, "c": 4}
    }


PICKLE = np.array([{}], dtype=object)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": GREY}, "2 or more classes, has only 'a'"),
        ({"test_a": GREY, "test_b": GREY}, "lacks a.npy, b.npy"),
        ({"a": GREY, "b": GREY, "c": GREY, "test_b": GREY}, "lacks test_a.npy, test_c.npy"),
        ({"a": GREY, "b": GREY, "test_a": GREY, "test_c": GREY}, "lacks c.npy, test_b.npy"),
        ({"a": GREY, "b": b""}, "b.npy is damaged or no array"),
        ({"a": GREY, "b": b"no array"}, "b.npy is damaged or no array"),
        ({"a": GREY, "b": b"\x93NUMPY\x01\x00"}, "b.npy is damaged or no array"),
        ({"a": GREY, "b": PICKLE}, "b.npy is damaged or no array"),
        ({"a": GREY, "b": GREY[0]}, "b.npy must have the shape"),
        ({"a": GREY, "b": GREY[:0]}, "b.npy must have the shape"),
        ({"a": GREY, "b": GREY / 2}, "b.npy must be of uint8 or uint16"),
    ],
)
def test_a_folder_of_arrays_that_is_not_right_is_refused_in_one_line(npy, files, message):
    with pytest.raises(ValueError) as error:
        open_npy_folder(npy(**files))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.skipif(not PNEUMONIA.is_file(), reason="the shared data are not here")
def test_pneumoniamnist_opens_with_its_published_counts():
    source = open_npz(PNEUMONIA)
    counts = {split: sum(count.values()) for split, count in source.counts().items()}
    assert counts == {"train": 4708, "val": 524, "test": 624}
    assert source.classes == ("0", "1")
    assert pixels(source.splits["test"], 623).shape == (28, 28)
