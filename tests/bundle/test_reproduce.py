"""The script of a bundle trains its model again and gives the same validation metric."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from bundles import edit, run_study
from paths import ROOT
from PIL import Image

from studies.bundle.bundle import read_bundle
from studies.bundle.export import ExportOptions, export_study
from studies.bundle.reproduce import Places
from studies.cli.search import main
from studies.terminal.progress import LineProgress
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images


def export(home, out, **given):
    options = ExportOptions(
        storage=str(home / "studies.db"), out=out, places=Places(cache_dir=home / "cache"), **given
    )
    export_study(options, LineProgress())
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    run_study(folder, trials=2)
    return folder


@pytest.fixture(scope="module")
def made(home, tmp_path_factory):
    return export(home, tmp_path_factory.mktemp("made") / "b", strategy="fine_tuning")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "moved here")


def script(folder, cache, *given):
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "STUDIES_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    return subprocess.run(
        ["bash", str(folder / "reproduce.sh"), *given],
        cwd=cache.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
def test_the_script_of_a_moved_bundle_gives_the_same_metric_without_any_cache(folder, tmp_path):
    done = script(folder, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    value = read_bundle(folder).config.validation.value
    assert f"Reproduced: validation accuracy {value!r}" in done.stdout


def reproduce(folder, home, *given):
    return main(["reproduce", str(folder), "--cache-dir", str(home / "cache"), *given])


def test_another_metric_ends_with_code_1_and_both_numbers(folder, home, capsys):
    edit(folder, lambda values: values["validation"].update(value=0.123))
    assert reproduce(folder, home) == 1
    told = capsys.readouterr().out
    assert "Not reproduced" in told and "0.123" in told


def test_other_versions_are_named_where_the_metric_differs(folder, home, capsys):
    edit(folder, lambda values: values["validation"].update(value=0.123))
    edit(folder, lambda values: values["versions"].update(torch="0.4"))
    assert reproduce(folder, home) == 1
    assert f"torch {version('torch')} (was 0.4)" in capsys.readouterr().out


def test_other_data_are_refused(folder, home, capsys):
    assert reproduce(folder, home, "--data", "phantom:train=62,test=20,size=32") == 2
    assert "other training images or labels" in capsys.readouterr().err


def test_other_pretrained_weights_are_refused(folder, home, capsys):
    edit(folder, lambda values: values["weights"].update(sha256="random-7"))
    assert reproduce(folder, home) == 2
    assert "are not those that the study had" in capsys.readouterr().err


def test_a_refit_reproduces_the_training_before(home, tmp_path, capsys):
    folder = export(home, tmp_path / "b", strategy="fine_tuning", refit=True)
    assert reproduce(folder, home, "--json") == 0
    assert '"is_equal": true' in capsys.readouterr().out
    assert "trained once more" in (folder / "reproduce.sh").read_text(encoding="utf-8")


def write_folder(root, source):
    """A phantom as 16-bit PNG files, in a folder whose name a shell would trip over."""
    spec = parse_phantom(source)
    for split in ("train", "test"):
        images, labels = phantom_images(spec, split)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split / class_names(spec)[label] / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint16) * 40 + 300).save(path)
    return root


@pytest.mark.slow
def test_three_classes_of_sixteen_bits_with_a_split_for_each_seed(tmp_path, capsys):
    data = write_folder(tmp_path / "it's $(touch x)", "phantom:train=90,test=30,size=32,classes=3")
    home = tmp_path / "home"
    run_study(home, data=str(data), resplit=True)
    for strategy in ("feature_extraction", "fine_tuning"):
        folder = export(home, tmp_path / strategy, strategy=strategy)
        config = read_bundle(folder).config
        assert config.threshold is None and config.study.split_seed == 1
        assert config.preprocessing.window is not None
        done = script(folder, tmp_path / "cache")
        assert done.returncode == 0, done.stdout + done.stderr
    capsys.readouterr()
    assert main(["predict", str(folder), str(data / "train"), "--json"]) == 0
    assert not list(tmp_path.rglob("x"))


OWN = """
from torch import nn

def build():
    last = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3))
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), last)

BACKBONES = {"my_net": build}
"""


@pytest.mark.slow
def test_ones_own_backbone_is_exported_and_reproduced_with_its_file(tmp_path, capsys):
    from transfer.backbones import custom

    module = tmp_path / "my_nets.py"
    module.write_text(OWN, encoding="utf-8")
    home = tmp_path / "home"
    run_study(
        home,
        trials=2,
        space=None,
        backbones=("my_net",),
        backbone_module=module,
        weights="imagenet",
        image_size=32,
    )
    custom.from_files.clear()
    command = ["export", "--storage", str(home / "studies.db"), "--out", str(tmp_path / "b")]
    assert main(command) == 2
    assert "give --backbone-module" in capsys.readouterr().err
    assert main([*command, "--backbone-module", str(module)]) == 0
    custom.from_files.clear()
    assert reproduce(tmp_path / "b", home) == 2
    assert "give --backbone-module" in capsys.readouterr().err
    assert reproduce(tmp_path / "b", home, "--backbone-module", str(module)) == 0
