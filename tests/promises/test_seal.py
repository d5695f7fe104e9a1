"""The seal: no test pixel or label reaches model, metric, choice or person during `run`."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from phantom_folders import write_folder
from PIL import Image
from test_resume import command, table


def replace_test_by_noise(root: Path) -> None:
    """Noise for every test image, and the class folders exchanged: no label stays true."""
    noise = np.random.default_rng(7)
    for path in (root / "test").rglob("*.png"):
        Image.fromarray(noise.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    first, second = sorted((root / "test").iterdir())
    first.rename(root / "test" / "held")
    second.rename(first)
    (root / "test" / "held").rename(second)


def run(folder: Path, data: Path, n_trials: int = 8) -> dict[str, object]:
    arguments = command(folder, n_trials=n_trials)
    arguments[arguments.index("--data") + 1] = str(data)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_noise_for_test_images_and_false_test_labels_change_no_digit(tmp_path: Path) -> None:
    true, noisy = tmp_path / "true", tmp_path / "noisy"
    true.mkdir()
    noisy.mkdir()
    write_folder(tmp_path / "images", "phantom:train=60,test=20,size=32")
    run(true, tmp_path / "images")
    shutil.copytree(tmp_path / "images", tmp_path / "noise")
    replace_test_by_noise(tmp_path / "noise")
    run(noisy, tmp_path / "noise")
    assert len(table(true)) >= 8
    assert table(true) == table(noisy)


@pytest.mark.slow
def test_a_study_whose_test_images_changed_is_not_resumed(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", "phantom:train=60,test=20,size=32")
    run(tmp_path, tmp_path / "images", n_trials=2)
    replace_test_by_noise(tmp_path / "images")
    arguments = command(tmp_path, n_trials=3)
    arguments[arguments.index("--data") + 1] = str(tmp_path / "images")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "other test images or labels" in done.stderr
