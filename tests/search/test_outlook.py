"""`data` says what is there and what `run` would do, and `run` then does it."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import studies
from studies.database.storage import load_study, open_existing
from studies.database.study import read_study
from studies.search.preview import look_at_data
from studies.settings import read_options
from studies.terminal.data import print_outlook
from studies.terminal.progress import LineProgress


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("transfer.weights.places._packaged_path", lambda *arguments: None)
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path):
    """30 images of 10 subjects in each of two classes, without splits."""
    rng = np.random.default_rng(0)
    for name in ("A", "B"):
        (tmp_path / "my images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 255, (40, 48), dtype=np.uint8)
            path = tmp_path / "my images" / name / f"{name}{i // 3}_{i}.png"
            Image.fromarray(pixels).save(path)
    return "my images"


def look(preview=None, **given):
    return look_at_data(read_options(given), preview, LineProgress())


def said(outlook):
    console = Console(width=80, file=io.StringIO(), record=True)
    print_outlook(console, outlook)
    return console.export_text()


def test_the_outlook_has_the_defaults_the_splits_to_be_made_and_the_command(images):
    found = look(data=images)
    text = said(found["run"])
    assert "python -m studies run --data 'my images' will make study 'my_images':" in text
    assert "30 trials of at most 15 epochs at 224 x 224 px, space 'default'" in text
    assert "images are squeezed to a square" in text
    assert "about 20 % become the test set" in text
    assert "about 20 % of the training images are set aside" in text
    assert "the test images stay sealed" in text
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_how_images_become_squares_is_said_and_goes_into_the_command(images):
    found = look(data=images, resize="pad")
    assert found["run"]["resize"] == "pad"
    assert found["run"]["command"].endswith("--resize pad")
    assert "images are padded to a square" in said(found["run"])


def test_what_is_given_goes_into_the_command_and_the_outlook(images):
    found = look(data=images, image_size=32, group_pattern=r"([AB]\d+)_")
    assert found["run"]["image_size"] == 32
    assert found["run"]["command"] == (
        "python -m studies run --data 'my images' --group-pattern '([AB]\\d+)_' --image-size 32"
    )
    assert found["groups"] == {"num_groups": 20, "num_matched": 60}


def test_backbones_at_hand_are_told_from_those_to_be_downloaded(images, tmp_path):
    found = look(data=images, image_size=32)["run"]
    assert found["backbones"] == {} and "resnet50" in found["without_weights"]
    assert "none at hand" in said(found)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "resnet18.safetensors").write_bytes(b"looked for, not read")
    found = look(data=images, image_size=32, weights_dir=tmp_path / "w")["run"]
    assert found["backbones"] == {"resnet18": "weights folder"}
    assert "--weights-dir" in found["command"]


def test_the_phantom_has_its_own_space_size_and_trials():
    found = look(data="phantom:train=20,test=10,size=64")["run"]
    assert (found["space"], found["image_size"]) == ("demo", 64)
    assert found["trials"] < 30


def test_a_study_is_then_made_of_the_splits_that_were_shown(images):
    found = look(data=images, image_size=32)
    studies.run(
        data=images,
        image_size=32,
        weights="random",
        backbones=("resnet18",),
        trials=1,
        confirm=False,
    )
    study = read_study(load_study(open_existing("sqlite:///studies.db"), found["run"]["study"]))
    assert study.identity["data"]["counts"] == found["counts"]
    assert study.identity["data"]["test_fingerprint"] == found["test_fingerprint"]


def test_a_preview_is_a_picture_of_training_images(images, tmp_path):
    look(data=images, image_size=32, preview=tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 100


def test_a_wrong_preview_ends_in_a_value_error(images, tmp_path):
    with pytest.raises(ValueError, match=r"let its name end in \.png"):
        look(data=images, image_size=32, preview=tmp_path / "seen.html")
