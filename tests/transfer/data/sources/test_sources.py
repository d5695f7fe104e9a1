"""What the user wrote is opened as what it is; what is nothing is refused with what there is."""

import numpy as np
import pytest

from transfer.data.sources.open import open_source
from transfer.data.sources.phantom import parse_phantom, phantom_images

IMAGES = np.zeros((4, 5, 6), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_everything(home):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (home / "folder" / split / name).mkdir(parents=True)
            (home / "folder" / split / name / "1.png").touch()
    for name in ("a", "b"):
        (home / "classes" / name).mkdir(parents=True)
        (home / "classes" / name / "1.png").touch()
    (home / "arrays").mkdir()
    for name in ("a", "b"):
        np.save(home / "arrays" / f"{name}.npy", IMAGES)
    with (home / "x.NPZ").open("wb") as file:
        np.savez(file, train_images=IMAGES, train_labels=LABELS)
    (home / "list.csv").write_text("path,label\nclasses/a/1.png,a\nclasses/b/1.png,b\n")


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("folder", "folder", "folder"),
        ("folder/", "folder", "folder"),
        ("classes", "class folders", "classes"),
        ("arrays", "npy folder", "arrays"),
        ("x.NPZ", "npz", "x"),
        ("list.csv", "manifest", "list"),
        ("./list.csv", "manifest", "list"),
        ("phantom", "phantom", "phantom"),
    ],
)
def test_every_kind_of_source_is_known_by_its_looks(home, text, kind, name):
    write_everything(home)
    source = open_source(text)
    assert (source.kind, source.name) == (kind, name)
    if kind != "phantom":
        assert source.text == str((home / text).resolve())


@pytest.mark.parametrize(
    "text", ["no/such/folder", "phantoms", "", "no.npz", "x" * 5000, "nul\0", "~nobody/x", "a\nb"]
)
def test_what_is_not_there_is_refused_with_what_data_takes(home, text):
    with pytest.raises(ValueError) as error:
        open_source(text)
    said = str(error.value)
    assert said.startswith(f"No data at {text!r}; --data takes ")
    for word in (
        "train/CLASS/",
        "only CLASS/",
        ".npz",
        ".npy",
        ".csv",
        "medmnist:NAME",
        "phantom",
    ):
        assert word in said
    assert "\n" not in said


def test_a_file_of_another_kind_is_refused_with_what_data_takes(home):
    (home / "images.zip").touch()
    with pytest.raises(ValueError, match=r"^Can't use 'images.zip'; --data takes "):
        open_source("images.zip")


def test_arrays_beside_class_folders_are_refused(home):
    write_everything(home)
    (home / "arrays" / "c").mkdir()
    with pytest.raises(ValueError, match=r"holds both .npy files \(a.npy\) and folders \(c\)"):
        open_source("arrays")


def test_an_array_that_lies_beside_train_and_test_is_passed_over(home):
    write_everything(home)
    np.save(home / "folder" / "features.npy", IMAGES)
    assert open_source("folder").kind == "folder"


@pytest.mark.parametrize("text", ["arrays", "x.NPZ", "phantom", "medmnist:pneumoniamnist"])
def test_a_group_pattern_is_refused_where_there_are_no_file_names(home, text):
    write_everything(home)
    with pytest.raises(
        ValueError, match=r"^Group pattern 'p' needs file names to search"
    ) as error:
        open_source(text, group_pattern="p")
    assert text in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["phantom", "phantom:train=10,test=12,size=32,classes=3"])
def test_the_phantom_offers_its_images_at_their_size_without_a_val_split(text):
    source, spec = open_source(text), parse_phantom(text)
    assert (source.name, source.natural_size) == ("phantom", spec.size)
    assert source.splits.keys() == {"train", "test"}
    assert len(source.classes) == spec.classes
    images_NHW, labels_N = phantom_images(spec, "test")
    items = source.splits["test"]
    assert np.array_equal(items.labels_N, labels_N)
    assert np.array_equal(items.decode(items.read(3)).pixels, images_NHW[3])
    assert len(set(items.names)) == spec.test


def test_a_wrong_phantom_is_refused():
    with pytest.raises(ValueError, match="Unknown phantom key 'tain'"):
        open_source("phantom:tain=10")
