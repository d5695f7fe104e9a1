"""Whatever is wrong with what a person brings, it is one line on stderr and exit code 2.

Through the command line, so that no way from a source, a manifest or a space to the user is left
out. What each reader says in detail is in the tests of its module.
"""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from slowly import slow

from studies.cli.search import main

GREY = np.arange(6 * 32 * 32, dtype=np.uint8).reshape(6, 32, 32)
KEYS = {f"{split}_images": GREY for split in ("train", "val", "test")} | {
    f"{split}_labels": np.array([0, 1, 0, 1, 0, 1]) for split in ("train", "val", "test")
}
SPACE = """name = "s"
[backbone]
choices = ["resnet18"]
[strategy]
choices = ["feature_extraction", "fine_tuning"]
[learning_rate]
low = 1e-4
high = 1e-1
log = true
[batch_size]
choices = [16]
[num_unfrozen_layers.fine_tuning]
low = 1
"""


def npz(**changed):
    """A writer of a MedMNIST-like file with arrays changed or (None) left out."""

    def write(home):
        arrays = {key: array for key, array in {**KEYS, **changed}.items() if array is not None}
        np.savez(home / "given.npz", **arrays)
        return "given.npz"

    return write


def npy(**arrays):
    def write(home):
        (home / "arrays").mkdir()
        for name, array in arrays.items():
            np.save(home / "arrays" / f"{name}.npy", array, allow_pickle=True)
        return "arrays"

    return write


def manifest(content, encoding="utf-8"):
    def write(home):
        for name in ("a", "b", "c", "d"):
            Image.fromarray(GREY[0]).save(home / f"{name}.png")
        (home / "given.csv").write_bytes(content.encode(encoding))
        return "given.csv"

    return write


def raw(name, content):
    def write(home):
        (home / name).write_bytes(content)
        return name

    return write


def folders(*names, content=None):
    def write(home):
        for name in names:
            (home / "images" / name).mkdir(parents=True)
            for i in range(3):
                path = home / "images" / name / f"{i}.png"
                Image.fromarray(GREY[i]).save(path)
        if content is not None:
            path.write_bytes(content)
        return "images"

    return write


ROWS = "a.png,x\nb.png,y\nc.png,x\nd.png,y\n"
SOURCES = {
    "nothing there": lambda home: "nowhere",
    "neither folder nor known file": raw("given.txt", b"text"),
    "empty name": lambda home: "",
    "npz: text": raw("given.npz", b"no archive"),
    "npz: cut short": raw("given.npz", b"PK\x03\x04 and no more"),
    "npz: no training images": npz(train_images=None),
    "npz: no labels": npz(train_labels=None),
    "npz: labels of another length": npz(train_labels=np.array([0, 1])),
    "npz: several labels an image": npz(train_labels=np.ones((6, 3), dtype=int)),
    "npz: labels of fractions": npz(train_labels=np.linspace(0, 1, 6)),
    "npz: one class": npz(
        train_labels=np.zeros(6, int), val_labels=np.zeros(6, int), test_labels=np.zeros(6, int)
    ),
    "npz: a class in the test set alone": npz(test_labels=np.array([0, 1, 2, 0, 1, 2])),
    "npz: float images": npz(train_images=GREY / 255.0),
    "npz: four channels": npz(train_images=np.zeros((6, 8, 8, 4), np.uint8)),
    "npz: flat images": npz(train_images=np.zeros((6, 64), np.uint8)),
    "npz: an object array": npz(train_images=np.array([{}] * 6, dtype=object)),
    "npy: one class": npy(a=GREY),
    "npy: an object array": npy(a=np.array([{}], dtype=object), b=GREY),
    "npy: float images": npy(a=GREY / 2.0, b=GREY),
    "npy: a class without test images": npy(a=GREY, b=GREY, test_a=GREY),
    "npy: test images without a class": npy(a=GREY, b=GREY, test_a=GREY, test_b=GREY, test_c=GREY),
    "npy: no image in a class": npy(a=GREY, b=GREY[:0]),
    "csv: empty": manifest(""),
    "csv: a header alone": manifest("path,label\n"),
    "csv: no label column": manifest("path\na.png\n"),
    "csv: a column twice": manifest("path,label,label\na.png,x,x\nb.png,y,y\n"),
    "csv: a missing file": manifest("path,label\n" + ROWS + "e.png,x\n"),
    "csv: a file twice": manifest("path,label\n" + ROWS + "a.png,x\n"),
    "csv: an empty label": manifest("path,label\na.png,\nb.png,y\n"),
    "csv: too many fields": manifest("path,label\na.png,x,train\nb.png,y\n"),
    "csv: an unknown split": manifest("path,label,split\na.png,x,train\nb.png,y,trian\n"),
    "csv: some rows without a split": manifest("path,label,split\na.png,x,train\nb.png,y,\n"),
    "csv: one class": manifest("path,label\na.png,x\nb.png,x\n"),
    "csv: too few images": manifest("path,label\na.png,x\nb.png,y\n"),
    "csv: an open quote": manifest('path,label\n"a.png,x\nb.png,y\n'),
    "csv: another encoding": manifest("path,label\na.png,\xfcbel\nb.png,y\n", "latin-1"),
    "csv: null bytes": manifest("path,label\na.png,x\0\nb.png,y\n"),
    "folder: classes too small to be split": folders("x", "y", content=b""),
    "folder: a class missing in the test split": folders("train/x", "train/y", "test/x"),
    "folder: an empty image": folders("train/x", "train/y", "test/x", "test/y", content=b""),
    "folder: garbage for an image": folders(
        "train/x", "train/y", "test/x", "test/y", content=b"garbage"
    ),
    "medmnist: no such set": lambda home: "medmnist:pneumonia",
    "medmnist: no such size": lambda home: "medmnist:pneumoniamnist@100",
    "medmnist: several labels an image": lambda home: "medmnist:chestmnist",
    "medmnist: volumes": lambda home: "medmnist:organmnist3d",
    "phantom: an unknown knob": lambda home: "phantom:trian=3",
}

SPACES = {
    "not TOML": "name = \n",
    "no name": SPACE.replace('name = "s"', ""),
    "an unknown table": SPACE + "[momentum]\nlow = 1\nhigh = 2\n",
    "an unknown backbone": SPACE.replace("resnet18", "resnet19"),
    "a network that is none": SPACE.replace("resnet18", "torchvision:resnet19"),
    "an unknown strategy": SPACE.replace('"fine_tuning"]', '"frozen"]'),
    "a batch of none": SPACE.replace("[16]", "[0]"),
    "a batch of words": SPACE.replace("[16]", '["many"]'),
    "an empty range": SPACE.replace("low = 1e-4", "low = 1.0"),
    "a range from zero on a logarithmic scale": SPACE.replace("low = 1e-4", "low = 0.0"),
    "more layers than there are": SPACE.replace("\nlow = 1\n", "\nlow = 100\n"),
    "layers of a frozen backbone": SPACE.replace(".fine_tuning]", ".feature_extraction]"),
    "a recipe of fine-tuning for both": SPACE + '[batch_norm]\nchoices = ["frozen"]\n',
    "a recipe's unknown choice": SPACE + '[class_weights]\nchoices = ["some"]\n',
    "a decay above one": SPACE + "[layer_decay.fine_tuning]\nchoices = [1.5]\n",
    "no view": SPACE + "[num_views]\nlow = 0\nhigh = 4\n",
    "a baseline outside": SPACE + '[[baselines]]\nstrategy = "feature_extraction"\nbatch_size = 8',
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDMNIST_DIR", str(tmp_path / "medmnist"))
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def error_of(capsys, *arguments):
    """The one line that the command line says; everything else is a failure of the test."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"Error: [^\n]+\n", err), err
    return err


@pytest.mark.parametrize("case", SOURCES)
@pytest.mark.parametrize("command", ["run", "data"])
def test_a_malformed_source(capsys, home, case, command):
    text = SOURCES[case](home)
    given = ["--data", text] if command == "run" else [text]
    options = ["--weights", "random", "--backbones", "resnet18"] if command == "run" else []
    error_of(capsys, command, *given, "--image-size", "32", *options)
    assert not (home / "studies.db").exists()


@pytest.mark.parametrize("case", SPACES)
@pytest.mark.parametrize("command", ["spaces", *slow(["run"])])
def test_a_malformed_space_with_its_file(capsys, home, case, command):
    (home / "mine.toml").write_text(SPACES[case], encoding="utf-8")
    given = ["--space", "mine.toml", "--weights", "random"] if command == "run" else ["mine.toml"]
    assert "mine.toml" in error_of(capsys, command, *given)


def test_the_space_that_the_malformed_ones_are_made_of_is_right(capsys, home):
    (home / "mine.toml").write_text(SPACE, encoding="utf-8")
    assert main(["spaces", "mine.toml"]) == 0


CELLS = st.text(st.sampled_from('ab,"\n;\t xé\0'), max_size=6) | st.sampled_from(
    ["a.png", "b.png", "train", "test", "x", "y", "../../etc/passwd"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.lists(CELLS, max_size=5), max_size=6))
def test_any_manifest_at_all_is_read_or_refused_in_one_line(capsys, home, rows):
    text = "path,label\n" + "\n".join(",".join(row) for row in rows)
    manifest(text)(home)
    code = main(["data", "given.csv", "--image-size", "32"])
    _, err = capsys.readouterr()
    assert code == 0 or (code == 2 and re.fullmatch(r"Error: [^\n]+\n", err)), (code, err)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(["low", "high", "log", "choices", "depth_share", "x"]),
    value=st.sampled_from(
        ["0", "-1", "1e400", "nan", "true", '"a"', "[]", "[1, 1]", "{}", "[[1]]"]
    ),
    table=st.sampled_from(
        ["[learning_rate]", "[batch_size]", "[strategy]", "[backbone]", "[suggested]"]
    ),
)
def test_any_value_in_a_space_is_taken_or_refused_in_one_line(capsys, home, key, value, table):
    lines = SPACE.splitlines()
    (home / "mine.toml").write_text(
        "\n".join([*lines, table, f"{key} = {value}"])
        if table == "[suggested]"
        else "\n".join(
            part
            for line in lines
            for part in ([line, f"{key} = {value}"] if line == table else [line])
        ),
        encoding="utf-8",
    )
    code = main(["spaces", "mine.toml"])
    _, err = capsys.readouterr()
    assert code == 0 or (code == 2 and re.fullmatch(r"Error: [^\n]+\n", err)), (code, err)
