"""A manifest is read line by line, and what is wrong is named by file and line."""

import pytest

from transfer.data.sources.manifest import open_manifest

RIGHT = "path,label\na/1.png,a\na/2.png,a\nb/1.png,b\n"
WITH_SPLITS = (
    "path,label,split\na/1.png,a,train\na/2.png,a,test\nb/1.png,b,train\nb/2.png,b,test\n"
)


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest beside images a/1.png .. b/3.png, whose content is their path."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            (tmp_path / name / f"{number}.png").write_text(f"{name}/{number}.png")

    def write(text, name="manifest.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def contents(items):
    return [items.read(i).decode() for i in range(len(items))]


def test_without_a_column_split_all_images_are_offered_at_once(manifest):
    source = open_manifest(manifest(RIGHT, "my list.csv"))
    assert (source.classes, source.name, source.kind) == (("a", "b"), "my_list", "manifest")
    assert source.splits.keys() == {"all"}
    assert contents(source.splits["all"]) == ["a/1.png", "a/2.png", "b/1.png"]
    assert source.splits["all"].labels_N.tolist() == [0, 0, 1]
    assert source.splits["all"].groups is None


def test_a_column_split_says_which_images_are_in_which(manifest):
    source = open_manifest(manifest(WITH_SPLITS + "a/3.png,a,val\nb/3.png,b,val\n"))
    assert {split: contents(items) for split, items in source.splits.items()} == {
        "train": ["a/1.png", "b/1.png"],
        "val": ["a/3.png", "b/3.png"],
        "test": ["a/2.png", "b/2.png"],
    }


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + RIGHT.encode(),
        RIGHT.replace("\n", "\r\n"),
        RIGHT.replace("\n", "\n\n"),
        RIGHT.removesuffix("\n"),
        RIGHT.replace(",", " , "),
        'path,"label"\n"a/1.png","a"\n"a/2.png",a\nb/1.png,b\n',
        "label,path\na,a/1.png\na,a/2.png\nb,b/1.png\n",
        RIGHT.replace("a/1", "./a/1").replace("b/1", "a/../b/1"),
    ],
    ids=["BOM", "CRLF", "empty lines", "no last end", "spaces", "quotes", "order", "paths"],
)
def test_the_same_manifest_may_be_written_in_many_ways(manifest, text):
    source = open_manifest(manifest(text))
    assert contents(source.splits["all"]) == ["a/1.png", "a/2.png", "b/1.png"]
    assert source.classes == ("a", "b")


def test_paths_may_be_absolute(manifest, tmp_path):
    text = RIGHT.replace("a/1.png", str(tmp_path / "a" / "1.png"))
    assert contents(open_manifest(manifest(text)).splits["all"])[0] == "a/1.png"


def test_other_columns_are_ignored_and_told(manifest):
    text = "path,age,label,\na/1.png,7,a,\nb/1.png,,b,\n"
    assert open_manifest(manifest(text)).ignored_columns == ("age",)


def test_labels_may_be_any_words(manifest):
    text = 'path,label\na/1.png,"mild, left"\nb/1.png,größer\n'
    assert open_manifest(manifest(text)).classes == ("größer", "mild, left")


def test_a_column_group_says_whose_picture_it_is(manifest):
    text = "path,label,group\na/1.png,a,p1\na/2.png,a,p2\nb/1.png,b,p1\n"
    assert open_manifest(manifest(text)).splits["all"].groups == ("p1", "p2", "p1")


def test_a_pattern_finds_groups_in_the_names_of_files(manifest):
    source = open_manifest(manifest(RIGHT), r"^(\d)\.")
    assert (source.splits["all"].groups, source.num_matched) == (("1", "2", "1"), 3)


LINES = RIGHT.splitlines()


def changed(number, line):
    """The right manifest with another line of this number."""
    return "\n".join([*LINES[: number - 1], line, *LINES[number:]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "manifest.csv line 1: no column path and no column label"),
        ("\n\n", "manifest.csv line 1: no column path and no column label"),
        (changed(1, "path"), "manifest.csv line 1: no column label; it must name path,label"),
        (changed(1, "file,label"), "manifest.csv line 1: no column path"),
        (changed(1, "Path,Label"), "manifest.csv line 1: no column path and no column label"),
        (RIGHT.replace(",", ";"), "separated by commas, but is 'path;label'"),
        (changed(1, "path,label,label"), "manifest.csv line 1: the column label is there 2 times"),
        (changed(2, "a/1.png"), "manifest.csv line 2: 1 values, but the header has 2."),
        (changed(3, "a/2.png,a,x"), "manifest.csv line 3: 3 values, but the header has 2."),
        (changed(3, ",a"), "manifest.csv line 3: no path; every line needs a value"),
        (changed(3, "a/2.png, "), "manifest.csv line 3: no label; every line needs a value"),
        (changed(4, "b/9.png,b"), "manifest.csv line 4: no file 'b/9.png' (looked for /"),
        (changed(4, "b,b"), "manifest.csv line 4: no file 'b'"),
        (changed(4, "x" * 5000 + ",b"), "manifest.csv line 4: no file 'xxx"),
        (changed(4, "b/\0.png,b"), "manifest.csv line 4: the path 'b/\\x00.png' can't be shown"),
        (changed(4, 'b/1.png,"b\nb"'), "line 5: the label 'b\\nb' can't be shown"),
        (changed(4, "b/1.png,\x1b[2J"), "line 4: the label '\\x1b[2J' can't be shown"),
        (changed(3, "a/1.png,a"), "manifest.csv line 3: 'a/1.png' is in line 2 already."),
        (changed(4, "./a/1.png,b"), "manifest.csv line 4: './a/1.png' is in line 2 already."),
        (changed(3, '"a/2.png,a'), "manifest.csv line 4: bad quoting or a bad field"),
        (changed(3, '"a/2.png"x,a'), "manifest.csv line 3: bad quoting or a bad field"),
        (changed(3, "x" * 200_000 + ",a"), "manifest.csv line 3: bad quoting or a bad field"),
        (RIGHT.encode() + b"b/\xff.png,b\n", "manifest.csv line 5: is not UTF-8"),
        (RIGHT.encode("utf-16"), "manifest.csv line 1: is not UTF-8"),
        ("path,label\n", "must hold images of 2 or more classes, has none."),
        (changed(4, "b/1.png,a"), "must hold images of 2 or more classes, has only 'a'."),
        (WITH_SPLITS.replace("test", "Test"), "manifest.csv line 3: unknown split 'Test'; choose"),
        (WITH_SPLITS.replace("test", ""), "manifest.csv line 3: no split; every line needs"),
        (WITH_SPLITS.replace("test", "val"), "must hold train and test in its column split"),
        (WITH_SPLITS.replace("test", "train"), "has train; without the column the splits are"),
        (WITH_SPLITS.replace("a,test", "a,train"), "Class 'a' has no image in test"),
        (WITH_SPLITS + "a/3.png,a,val\n", "Class 'b' has no image in val"),
        (WITH_SPLITS.replace("b,test", "c,test"), "Class 'c' has no image in train"),
        (WITH_SPLITS.replace("split", "group").replace("train", ""), "line 2: no group; every"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused_in_one_line(manifest, text, message):
    with pytest.raises(ValueError) as error:
        open_manifest(manifest(text))
    assert message in str(error.value)
    assert "manifest.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"Group pattern '(' is no regular expression (missing )"),
        ("zebra", "Group pattern 'zebra' matches the name of no file (the first is 'a/1.png')"),
        ("^a", "is searched in the file's name, not in its folder."),
        ("x*", "matches the name of no file"),
    ],
)
def test_a_pattern_of_no_use_is_refused_in_one_line(manifest, pattern, message):
    with pytest.raises(ValueError) as error:
        open_manifest(manifest(RIGHT), pattern)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_pattern_beside_a_column_group_is_refused(manifest):
    text = "path,label,group\na/1.png,a,p1\nb/1.png,b,p1\n"
    with pytest.raises(ValueError, match="has a column group, and a group pattern"):
        open_manifest(manifest(text), "p")
