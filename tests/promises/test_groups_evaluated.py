"""Whose image each is goes from the names of files through the whole study to its report."""

from pathlib import Path

import numpy as np
import pytest
from bundles import run_study
from PIL import Image

from studies.bundle.export import ExportOptions, export_study
from studies.bundle.reproduce import Places
from studies.cli.search import main
from studies.database.artifacts import (
    TEST_FEATURES,
    TEST_PREDICTIONS,
    read_arrays,
    read_predictions,
)
from studies.database.storage import load_study, open_existing
from studies.database.study import read_study
from studies.database.trials import read_trials
from studies.evaluation.evaluate import EvaluateOptions, evaluate_bundle
from studies.signals import StopSignals
from studies.terminal.progress import LineProgress
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images

IMAGES = 2  # of a subject


def write_subjects(root, source="phantom:train=120,test=40,size=32"):
    spec = parse_phantom(source)
    for split in ("train", "test"):
        images, labels = phantom_images(spec, split)
        for label, name in enumerate(class_names(spec)):
            (root / split / name).mkdir(parents=True)
            for i, place in enumerate(np.flatnonzero(labels == label)):
                file = f"{split}{name}{i // IMAGES}_{i % IMAGES}.png"
                Image.fromarray(images[place]).save(root / split / name / file)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_subjects(home / "images")
    storage = run_study(
        home,
        data=str(home / "images"),
        group_pattern=r"^([a-zA-Z]+\d+)_",
        trials=2,
    )
    places = Places(cache_dir=home / "cache")
    export_study(
        ExportOptions(storage=storage, out=home / "out", places=places, strategy="fine_tuning"),
        LineProgress(),
    )
    options = EvaluateOptions(bundle=home / "out", storage=storage, places=places)
    return home, storage, evaluate_bundle(options, LineProgress(), StopSignals()).as_json()


@pytest.mark.slow
def test_the_evaluation_counts_images_and_subjects(evaluated):
    _, _, found = evaluated
    assert (found["n"], found["subjects"]) == (40, 20)
    difference = found["difference"]
    assert (difference["num_images"], difference["num_subjects"]) == (40, 20)
    assert "of 20 subjects" in difference["sentence"]


@pytest.mark.slow
def test_groups_are_stored_with_predictions_and_features(evaluated):
    _, storage_text, found = evaluated
    storage = open_existing(storage_text)
    said = read_arrays(storage, found["artifacts"][TEST_PREDICTIONS], "predictions")
    looks = read_arrays(storage, found["artifacts"][TEST_FEATURES], "features")
    subject_of = dict(zip(said["names_N"], said["groups_N"], strict=True))
    for name, group in subject_of.items():
        stem = Path(name).name.partition("_")[0]
        others = {g for n, g in subject_of.items() if Path(n).name.startswith(f"{stem}_")}
        assert others == {group}
    assert np.array_equal(looks["test_groups"], said["groups_N"])
    study = load_study(storage, "s")
    stored = read_predictions(storage, read_trials(study)[0])
    assert np.array_equal(stored.groups_N, looks["val_groups"])
    # No subject is in two splits that are made.
    assert not set(looks["val_groups"]) & set(looks["train_groups"])
    assert read_study(study).identity["data"]["subjects"]["test"] == 20


@pytest.mark.slow
def test_the_report_says_that_subjects_are_drawn(evaluated, capsys):
    home, storage, _ = evaluated
    assert main(["report", "s", "--storage", storage, "--out", str(home / "report")]) == 0
    text = (home / "report/report.md").read_text("utf-8")
    assert "of whole subjects drawn anew" in text and "20 subjects" in text
    assert "permutation" in text
