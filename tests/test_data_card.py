"""The card says what the data are in 80 columns; the preview shows training images alone."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from rich.console import Console

from studies.data_card import GAP, NAME_WIDTH, TILE, describe, save_preview
from studies.statistics.intervals import wilson_interval
from studies.terminal.data import print_card
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source

AWKWARD = ("[red]benign[/red]", "a very long name of a class " * 5)


def write_arrays(root, names=("a", "b"), num_images=20, dtype=np.uint8, colour=False):
    """A folder of .npy files in which every image has a value of its own, in grey or in red."""
    root.mkdir()
    for label, name in enumerate(names):
        values = np.arange(num_images, dtype=dtype) + num_images * label
        images = np.broadcast_to(values[:, None, None], (num_images, 9, 7))
        channels = [images, np.zeros_like(images), np.zeros_like(images)]
        np.save(root / f"{name}.npy", np.stack(channels, axis=-1) if colour else images)
    return root


def load(source, tmp_path, **given):
    options = {"image_size": 16, "seed": 0, "cache_dir": tmp_path / "cache", **given}
    return load_data(source, **options)


def write_manifest(tmp_path):
    lines = ["path,label,group,age,[b]"]
    for i in range(40):
        Image.fromarray(np.full((8, 8 + i % 5), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{AWKWARD[i % 2]},p{i // 4},7,x")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path / "list.csv"


@pytest.fixture
def manifest(tmp_path):
    source = open_source(str(write_manifest(tmp_path)))
    return source, load(source, tmp_path)


def printed(card):
    console = Console(width=80, file=io.StringIO())
    print_card(console, card)
    return console.file.getvalue()


def test_the_card_is_json_and_says_all_of_the_data(manifest):
    source, data = manifest
    card = json.loads(json.dumps(describe(source, data)))
    assert card["source"] == source.text and card["kind"] == "manifest"
    assert card["classes"] == sorted(name.strip() for name in AWKWARD)
    assert card["counts"] == data.counts and card["made_splits"] == ["val", "test"]
    assert sum(card["sizes"].values()) == sum(card["modes"].values()) == len(data)
    assert card["groups"] == {"num_groups": 10, "num_matched": None}
    assert card["ignored_columns"] == ["age", "[b]"]
    assert card["fingerprint"] == data.fingerprint
    assert card["test_fingerprint"] == data.test_fingerprint


def test_the_width_of_the_interval_is_wilsons_at_nine_in_ten(tmp_path):
    source = open_source("phantom:train=100,test=200,size=32")
    card = describe(source, load(source, tmp_path))
    for split, right, total in (("val", 18, 20), ("test", 180, 200)):
        low, high = wilson_interval(right, total)
        assert card["interval_width"][split] == pytest.approx(high - low)
    assert card["groups"] is card["window"] is None


def test_the_window_is_on_the_card_and_printed(tmp_path):
    source = open_source(str(write_arrays(tmp_path / "arrays", dtype=np.uint16)))
    card = describe(source, load(source, tmp_path))
    low, high = card["window"]
    assert f"{low} to {high} become 0 to 255" in printed(card)


def test_the_card_fits_eighty_columns_and_shows_markup_as_it_is(manifest):
    text = printed(describe(*manifest))
    assert max(map(len, text.splitlines())) <= 80
    assert "[red]benign[/red]" in text and "columns age, [b]" in text
    assert "val (made)" in text and "and 2 more" in text


@pytest.mark.parametrize("pattern", [None, r"^\d"])
def test_a_group_pattern_tells_how_many_files_it_matched(tmp_path, pattern):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(np.full((8, 8), i + 20 * (name == "b"), dtype=np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    source = open_source(str(tmp_path / "images"), group_pattern=pattern)
    text = printed(describe(source, load(source, tmp_path)))
    assert ("10 (20 files matched the pattern)" in text) == (pattern is not None)


def tiles(path, num_rows, num_columns):
    """The red value in the middle of every tile."""
    sheet = np.asarray(Image.open(path))[..., 0]
    rows = [GAP + row * (TILE + GAP) + TILE // 2 for row in range(num_rows)]
    columns = [NAME_WIDTH + column * (TILE + GAP) + TILE // 2 for column in range(num_columns)]
    return sheet[np.ix_(rows, columns)]


@pytest.mark.parametrize("colour", [False, True])
def test_the_preview_shows_training_images_of_each_class_in_its_row(tmp_path, colour):
    source = open_source(str(write_arrays(tmp_path / "arrays", colour=colour)))
    data = load(source, tmp_path)
    save_preview(data, tmp_path / "new" / "preview.png")
    shown = tiles(tmp_path / "new" / "preview.png", 2, 8)
    values = data.images(np.arange(len(data)))[:, 0, 0, 0]
    for label, row in enumerate(shown):
        assert len(set(row.tolist())) == 8
        in_class = values[data.train.positions_N[data.train.labels_N == label]]
        assert set(row.tolist()) <= set(in_class.tolist())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preview.png"]


def test_a_class_of_few_images_has_few_tiles_and_names_are_drawn_beside(tmp_path):
    source = open_source(str(write_arrays(tmp_path / "x", ("a", "größer " * 20, "肺炎"), 5)))
    save_preview(load(source, tmp_path), tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as sheet:
        assert sheet.size == (NAME_WIDTH + 3 * (TILE + GAP), 3 * (TILE + GAP) + GAP)
        for row in range(3):
            box = (0, row * (TILE + GAP) + GAP, NAME_WIDTH, (row + 1) * (TILE + GAP))
            assert np.asarray(sheet.crop(box)).min() < 128
            margin = (NAME_WIDTH - GAP, box[1], NAME_WIDTH, box[3])
            assert np.asarray(sheet.crop(margin)).min() == 255


@pytest.mark.parametrize("name", ["preview.jpg", "preview", "preview.png.txt"])
def test_another_suffix_is_refused(manifest, tmp_path, name):
    with pytest.raises(ValueError, match=r"let its name end in .png") as error:
        save_preview(manifest[1], tmp_path / name)
    assert "\n" not in str(error.value) and not (tmp_path / name).exists()


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(manifest, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="can't be written to") as error:
        save_preview(manifest[1], tmp_path / "file" / "preview.png")
    assert "\n" not in str(error.value)


def test_describing_and_showing_data_does_not_load_torch(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from studies.data_card import describe, save_preview\n"
        "from transfer.data.loading import load_data\n"
        "from transfer.data.sources.open import open_source\n"
        "source = open_source('phantom:train=10,test=10,size=32')\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "data = load_data(source, image_size=16, seed=0, cache_dir=folder)\n"
        "describe(source, data)\n"
        "save_preview(data, folder / 'preview.png')\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    root = ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
