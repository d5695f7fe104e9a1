"""Data and weights are looked for where they last were, and are the same or refused."""

import shutil

import pytest
import torch
from bundles import run_study, save_images
from safetensors.torch import save_file

import studies
from studies.database.storage import load_study, open_existing
from studies.database.study import StudyRecord, read_study
from studies.errors import UserError
from studies.search.places import find_last_weights, open_last_source
from studies.search.setup import find_source
from studies.settings import StudyOptions
from transfer.backbones.find import block_tensors, find_backbone

BACKBONE = "squeezenet1_1"
SPACE = f"""
name = "one"
backbone.choices = ["{BACKBONE}"]
strategy.choices = ["feature_extraction"]
batch_size.choices = [16]
learning_rate.choices = [1e-3]
"""


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    """No cache of torch hub, no package, no network."""

    def unreachable(*given, **options):
        raise OSError("unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)


def write_weights(folder, seed=0):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    tensors = block_tensors(BACKBONE, find_backbone(BACKBONE).build())
    path = folder / f"{BACKBONE}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def run(home, **given):
    (home / "one.toml").write_text(SPACE)
    options = {"space": str(home / "one.toml"), "weights": "imagenet", "trials": 1, "epochs": 1}
    return run_study(home, **({"seeds": 1} | options | given))


@pytest.mark.slow
def test_weights_are_found_again_by_run_export_evaluate_and_reproduce_without_the_flag(tmp_path):
    path = write_weights(tmp_path / "weights")
    url = run(tmp_path, weights_dir=path.parent)
    stored = read_study(load_study(open_existing(url), "s"))
    assert stored.weight_places == {BACKBONE: str(path)}
    run(tmp_path)  # goes on
    cache = {"cache_dir": tmp_path / "cache"}
    exported = studies.export_bundle("s", storage=url, out=tmp_path / "b", **cache)
    assert exported.config.weights.path == str(path)
    assert studies.evaluate_bundle(tmp_path / "b", **cache).result["n"] == 20
    moved = shutil.move(path, tmp_path / path.name)
    told = rf"were last at {path}, where no file is now.*--weights-dir"
    with pytest.raises(UserError, match=told):
        studies.export_bundle("s", storage=url, out=tmp_path / "c", **cache)
    with pytest.raises(UserError, match=told):
        run(tmp_path)
    run(tmp_path, weights_dir=tmp_path)
    stored = read_study(load_study(open_existing(url), "s"))
    assert stored.weight_places == {BACKBONE: str(moved)}


def found(last, **given):
    options = {"weights": "imagenet", "seed": 0, "sha256": "abc", "weights_dir": None}
    return find_last_weights(BACKBONE, last=None if last is None else str(last), **options | given)


def test_only_the_same_file_is_taken(tmp_path):
    path = write_weights(tmp_path / "weights")
    sha256 = found(None, weights_dir=path.parent).sha256
    assert found(path, sha256=sha256).path == path
    with pytest.raises(UserError, match=f"were last at {path}, where another file is now"):
        found(path)


def test_a_folder_that_is_given_goes_before_the_last_place(tmp_path):
    path, other = write_weights(tmp_path / "a"), write_weights(tmp_path / "b", seed=1)
    sha256 = found(None, weights_dir=path.parent).sha256
    assert found(path, sha256=sha256, weights_dir=other.parent).path == other


def test_data_that_are_gone_are_named_with_the_flag_that_helps(tmp_path):
    save_images(tmp_path / "images" / "A", 1)
    save_images(tmp_path / "images" / "B", 1)
    place = str(tmp_path / "images")
    assert open_last_source(place, None).text == place
    stored = StudyRecord(
        identity={"data": {"source": "/before", "group_pattern": None}},
        trials=1,
        timeout_seconds=None,
        places={"data": place},
    )
    assert find_source(StudyOptions(), stored).text == place
    moved = shutil.move(place, tmp_path / "moved")
    with pytest.raises(UserError, match=f"were last at {place}, where nothing is now.*--data"):
        find_source(StudyOptions(), stored)
    assert find_source(StudyOptions(data=str(moved)), stored).text == str(moved)


@pytest.mark.parametrize("text", ["phantom", "phantom:train=20,test=10,size=32"])
def test_built_in_data_are_no_file(text):
    assert open_last_source(text, None).text == text


def test_a_folder_without_a_file_of_the_backbone_hides_no_last_place(tmp_path):
    path = write_weights(tmp_path / "a")
    sha256 = found(None, weights_dir=path.parent).sha256
    (tmp_path / "b").mkdir()
    assert found(path, sha256=sha256, weights_dir=tmp_path / "b").path == path
