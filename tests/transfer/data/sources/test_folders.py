"""A folder's splits, classes and files are found unopened; what it lacks is said."""

import pytest
from PIL import Image

from transfer.data.sources.open import open_source

RIGHT = ("train/a/1.png", "train/a/2.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")


@pytest.fixture
def folder(tmp_path):
    """Make files (their content is their path) and empty folders, which end in a slash."""

    def make(paths, name="images"):
        root = tmp_path / name
        root.mkdir()
        for path in paths:
            if path.endswith("/"):
                (root / path).mkdir(parents=True)
                continue
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        return root

    return make


def without(*left_out):
    return [path for path in RIGHT if not path.startswith(left_out)]


def test_a_folder_offers_its_classes_its_splits_and_the_bytes_of_its_files(folder):
    source = open_source(str(folder([*RIGHT, "val/a/1.png", "val/b/1.png"])))
    assert source.classes == ("a", "b")
    assert source.splits.keys() == {"train", "val", "test"}
    train = source.splits["train"]
    assert train.names == ("train/a/1.png", "train/a/2.png", "train/b/1.png")
    assert train.labels_N.tolist() == [0, 0, 1]
    assert [train.read(i).decode() for i in range(len(train))] == list(train.names)
    assert source.counts()["train"] == {"a": 2, "b": 1}


def test_the_val_folder_may_be_missing(folder):
    assert open_source(str(folder(RIGHT))).splits.keys() == {"train", "test"}


def test_images_are_found_at_any_depth_and_by_suffix_whatever_else_lies_there(folder):
    more = [
        "train/a/deep/er/3.JPG",
        "train/a/.hidden.png",
        "train/a/notes.txt",
        "train/.git/x.png",
        "train/a/.thumbnails/x.png",
    ]
    source = open_source(str(folder([*RIGHT, *more])))
    assert source.classes == ("a", "b")
    assert source.splits["train"].names == (
        "train/a/1.png",
        "train/a/2.png",
        "train/a/deep/er/3.JPG",
        "train/b/1.png",
    )


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (without("train"), "has no folder 'train'; it must hold train/CLASS/ and test/CLASS/"),
        (without("test"), "has no folder 'test'; it must hold train/CLASS/ and test/CLASS/"),
        (["train/", "test/"], "must hold a folder for each of 2 classes or more, has none;"),
        (without("train/b"), "must hold a folder for each of 2 classes or more, has only 'a';"),
        ([*without("train/b"), "train/b/"], "Class 'b' has no image in"),
        ([*without("train/b"), "train/b/1.txt"], "Class 'b' has no image in"),
        (without("test/b"), "Class 'b' has no image in"),
        ([*without("test/b"), "test/b/"], "Class 'b' has no image in"),
        ([*RIGHT, "test/c/1.png"], "Class 'c' is in"),
        ([*RIGHT, "val/"], "Class 'a' has no image in"),
        ([*RIGHT, "val/a/1.png"], "Class 'b' has no image in"),
        ([*RIGHT, "val/a/1.png", "val/b/1.png", "val/c/1.png"], "Class 'c' is in"),
        (["val/a/1.png", "val/b/1.png"], "has no folder 'train'"),
        ([], "must hold a folder for each of 2 classes or more, has none; it must hold train/"),
        (["a/1.png"], "has only 'a'; it must hold train/CLASS/ and test/CLASS/"),
        (["a/1.png", "b/"], "Class 'b' has no image in"),
        (["a/1.png", "b/.1.png", "b/.x/2.png"], "Class 'b' has no image in"),
        (["a/1.png", "b\n/1.png"], "has characters that can't be shown"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise_is_refused_in_one_line(folder, paths, message):
    root = folder(paths)
    with pytest.raises(ValueError) as error:
        open_source(str(root))
    assert message in str(error.value)
    assert str(root) in str(error.value) or "be shown" in message
    assert "\n" not in str(error.value)


def test_a_split_that_is_wrong_is_named(folder):
    with pytest.raises(ValueError, match=r"images/val but not in .*images/train; every"):
        open_source(str(folder([*RIGHT, "val/a/1.png", "val/c/1.png"])))


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [("chest_xray", "chest_xray"), ("my images (2)", "my_images__2"), ("__", "study")],
)
def test_the_short_name_of_a_folder_can_name_a_study(folder, folder_name, name):
    assert open_source(str(folder(RIGHT, folder_name))).name == name


def test_the_same_folder_is_the_same_text_however_it_is_written(folder, monkeypatch):
    root = folder(RIGHT)
    monkeypatch.chdir(root.parent)
    assert open_source("images/../images/").text == open_source(str(root)).text


def test_a_folder_of_classes_alone_offers_all_its_images_at_once(folder):
    source = open_source(
        str(folder(["b/1.png", "a/1.png", "a/deep/2.png", "a/.x.png", ".c/1.png"]))
    )
    assert (source.kind, source.classes) == ("class folders", ("a", "b"))
    assert source.splits.keys() == {"all"}
    assert source.splits["all"].names == ("a/1.png", "a/deep/2.png", "b/1.png")
    assert source.counts() == {"all": {"a": 2, "b": 1}}


def test_groups_are_found_in_the_names_of_files_and_not_of_folders(folder):
    paths = ["a7/p1_1.png", "a7/p1_2.png", "a7/q.png", "b7/p2_1.png"]
    source = open_source(str(folder(paths)), group_pattern=r"[a-z]\d")
    assert source.splits["all"].groups == ("p1", "p1", "/a7/q.png", "p2")
    assert source.num_matched == 3


def test_without_a_pattern_no_groups_are_known(folder):
    source = open_source(str(folder(RIGHT)))
    assert (source.num_matched, source.splits["train"].groups) == (None, None)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Train", "train"),
        ("TEST", "test"),
        ("valid", "val"),
        ("validation", "val"),
        ("dev", "val"),
    ],
)
def test_a_folder_that_looks_like_a_split_of_another_name_is_no_class(tmp_path, name, meant):
    for folder in (name, "A", "B"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / folder / "0.png")
    with pytest.raises(ValueError, match=f"Folder '{name}' .* rename it to '{meant}'"):
        open_source(str(tmp_path))
