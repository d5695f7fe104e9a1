"""Predictions are those of the image alone; what is not an image is refused by name."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from bundles import edit, make_bundle, save_images
from paths import ROOT
from PIL import Image

from studies.bundle.bundle import read_bundle
from studies.bundle.predict import image_paths, predict
from studies.cli.search import main
from studies.errors import UserError
from studies.terminal.progress import LineProgress
from transfer.data.decoding import resize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made") / "b")


@pytest.fixture(scope="module")
def bundle(folder):
    return read_bundle(folder)


def shares(bundle, paths):
    found = predict(bundle, paths, torch.device("cpu"), LineProgress())
    return np.array([list(p.probabilities.values()) for p in found])


def test_one_image_many_images_and_another_order_give_the_same_bits(bundle, tmp_path):
    paths = save_images(tmp_path, 70)
    together = shares(bundle, paths)
    assert len(np.unique(together[:, 0])) == 70 and together.min() > 0.01
    assert np.array_equal(together[::-1], shares(bundle, paths[::-1]))
    for i in (0, 5, 15, 16, 69):
        assert np.array_equal(together[i], shares(bundle, [paths[i]])[0])
        assert np.array_equal(together[i:], shares(bundle, paths[i:]))


def test_a_grey_image_is_the_same_among_colour_images_and_saved_as_colour(bundle, tmp_path):
    grey = save_images(tmp_path, 1)[0]
    as_colour, colour = tmp_path / "same.png", tmp_path / "colour.png"
    Image.open(grey).convert("RGB").save(as_colour)
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(colour)
    alone = shares(bundle, [grey])[0]
    assert np.array_equal(shares(bundle, [colour, as_colour, grey])[1:], [alone, alone])


def test_moved_to_another_folder_and_process_it_gives_the_same_bits(folder, bundle, tmp_path):
    images = tmp_path / "images"
    expected = shares(bundle, save_images(images, 20))
    moved = shutil.copytree(folder, tmp_path / "far" / "away")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "STUDIES_CACHE_DIR": str(tmp_path / "cache"),
        "HOME": str(elsewhere),
    }
    done = subprocess.run(
        [sys.executable, "-m", "studies", "predict", str(moved), str(images), "--json"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["predictions"]
    found = np.array([list(p["probabilities"].values()) for p in told])
    assert np.array_equal(found, expected)


def test_three_classes_are_called_by_the_most_probable_one(tmp_path):
    bundle = read_bundle(make_bundle(tmp_path / "b", classes=("A", "B", "C")))
    found = predict(bundle, save_images(tmp_path / "i", 9), torch.device("cpu"), LineProgress())
    for p in found:
        assert list(p.probabilities) == ["A", "B", "C"]
        assert sum(p.probabilities.values()) == pytest.approx(1)
        assert p.label == max(p.probabilities, key=p.probabilities.__getitem__)


def test_two_classes_are_called_by_the_threshold(bundle, folder, tmp_path):
    paths = save_images(tmp_path / "i", 12)
    positive = shares(bundle, paths)[:, 1]
    other = shutil.copytree(folder, tmp_path / "b")
    middle = float(np.median(positive))
    edit(other, lambda values: values.update(threshold=middle))
    found = predict(read_bundle(other), paths, torch.device("cpu"), LineProgress())
    assert [p.label == "OPACITY" for p in found] == (positive >= middle).tolist()


@pytest.mark.parametrize("how", ["squeeze", "pad", "crop"])
def test_an_image_becomes_a_square_as_the_config_says(folder, tmp_path, how):
    other = shutil.copytree(folder, tmp_path / "b")
    edit(other, lambda values: values["preprocessing"].update(resize=how))
    values = np.random.default_rng(0).integers(0, 256, (60, 100), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "wide.png")
    Image.fromarray(resize(values, 32, how)).save(tmp_path / "square.png")
    wide, square = shares(read_bundle(other), [tmp_path / "wide.png", tmp_path / "square.png"])
    assert np.array_equal(wide, square)


def test_sixteen_bits_are_seen_through_the_stored_window(folder, tmp_path):
    wide, narrow = (shutil.copytree(folder, tmp_path / name) for name in ("wide", "narrow"))
    edit(wide, lambda values: values["preprocessing"].update(window=[0, 65535]))
    edit(narrow, lambda values: values["preprocessing"].update(window=[1000, 9000]))
    paths = save_images(tmp_path / "i", 3, depth=16)
    seen = [shares(read_bundle(path), paths) for path in (wide, narrow)]
    assert not np.allclose(*seen)
    # A window is linear: what it makes of these pixels can be saved in 8 bits as well.
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 256
    Image.fromarray((values * 257).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "flat.png")
    deep, flat = shares(read_bundle(wide), [tmp_path / "deep.png", tmp_path / "flat.png"])
    assert np.array_equal(deep, flat)


def test_sixteen_bits_are_refused_where_no_window_is_known(bundle, tmp_path):
    with pytest.raises(UserError, match="16 bits, but the model was trained on images of 8 bits"):
        shares(bundle, save_images(tmp_path, 1, depth=16))


def test_all_that_is_no_image_is_named_and_nothing_predicted(folder, tmp_path, capsys):
    good = save_images(tmp_path / "i", 1)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:100])
    bad = [tmp_path / name for name in ("notes.txt", "empty.png", "cut.png")]
    assert main(["predict", str(folder), *map(str, [*good, *bad]), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert "3 of 4 can't be used" in told.err
    assert all(str(path) in told.err for path in bad)


def test_folders_are_searched_by_suffix_and_hidden_files_left_out(tmp_path):
    save_images(tmp_path, 1)
    save_images(tmp_path / "deep" / "er", 1)
    save_images(tmp_path / ".hidden", 1)
    (tmp_path / ".DS_Store.png").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "B.JPG").touch()
    found = [str(path.relative_to(tmp_path)) for path in image_paths([tmp_path])]
    assert found == ["000.png", "B.JPG", "deep/er/000.png"]


def test_a_file_that_is_named_is_read_whatever_its_suffix(bundle, tmp_path):
    path = save_images(tmp_path, 1)[0].rename(tmp_path / "scan")
    assert len(shares(bundle, image_paths([path, path, tmp_path / "scan"]))) == 1


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "No file or folder"), ("", "No image in")]
)
def test_a_path_without_images_is_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        image_paths([tmp_path / name])


def test_a_pipe_is_refused_instead_of_read_for_ever(bundle, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png .not a file"):
        shares(bundle, [tmp_path / "pipe.png"])


def test_table_csv_and_json_say_the_same(folder, tmp_path, capsys):
    paths = save_images(tmp_path / "i", 3)
    command = ["predict", str(folder), str(tmp_path / "i")]
    assert main([*command, "--json", "--csv", str(tmp_path / "p.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["NORMAL", "OPACITY"] and told["bundle"] == str(folder)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    for row, p in zip(rows, told["predictions"], strict=True):
        assert (row["path"], row["label"]) == (p["path"], p["label"])
        for name, value in p["probabilities"].items():
            assert float(row[f"probability_{name}"]) == value
    assert main(command) == 0
    table = capsys.readouterr().out
    for p in told["predictions"]:
        assert f"{p['probabilities']['OPACITY']:.4f}" in table


def test_names_are_shown_as_they_are_and_are_no_commands_to_a_terminal(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    image = save_images(tmp_path / "i", 1)[0]
    for name in (b"[bold]x[red].png", b"\x1b[31mred.png", b"\xff.png"):
        shutil.copy(image, os.path.join(b"i", name))
    assert main(["predict", str(folder), "i"]) == 0
    table = capsys.readouterr().out
    assert "i/[bold]x[red].png" in table and "\x1b" not in table
    assert main(["predict", str(folder), "i", "--csv", "p.csv"]) == 0
    assert b"\xff.png" in (tmp_path / "p.csv").read_bytes()


def test_a_damaged_bundle_ends_with_one_line(folder, tmp_path, capsys):
    image = save_images(tmp_path / "i", 1)[0]
    broken = shutil.copytree(folder, tmp_path / "b")
    edit(broken, lambda values: values["calibration"].update(scale=9.0), signed=False)
    assert main(["predict", str(broken), str(image)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: ") and told.count("\n") == 1


def test_a_csv_that_cannot_be_written_is_the_users_error(folder, tmp_path, capsys):
    image = save_images(tmp_path / "i", 1)[0]
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "p.csv"
    assert main(["predict", str(folder), str(image), "--csv", str(target)]) == 2
    assert "can't be written" in capsys.readouterr().err
