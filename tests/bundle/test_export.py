"""What is exported is the chosen configuration's first declared seed, and that very network."""

import io
import json
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from bundles import run_study, save_images

from studies.bundle import export
from studies.bundle.bundle import read_bundle
from studies.bundle.config import CARD, MODEL, ONNX
from studies.bundle.export import ExportOptions, export_study
from studies.bundle.reproduce import Places, Recipe, load_same_data
from studies.cli.search import main
from studies.database.storage import load_study, open_existing
from studies.database.study import read_confirm
from studies.database.trials import read_trials
from studies.errors import UserError
from studies.results import choice as confirm
from studies.results.choice import read_confirmed
from studies.statistics.calibration import Calibration, find_calibration, find_threshold
from studies.terminal.progress import LineProgress

STRATEGIES = ["feature_extraction", "fine_tuning"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a confirmed study, ``s``, and one that isn't, ``raw``."""
    folder = tmp_path_factory.mktemp("home")
    run_study(folder, name="raw", confirm=False, strategies=STRATEGIES[:1], trials=1)
    run_study(folder)
    return folder


@pytest.fixture(scope="module")
def confirmed(home):
    storage = open_existing(str(home / "studies.db"))
    records = read_trials(load_study(storage, "s"))
    return read_confirmed(load_study(storage, "s/confirm"), records, "accuracy")


def exported(home, out, **given):
    places = Places(cache_dir=home / "cache")
    options = {"name": "s", "storage": str(home / "studies.db"), "out": out, "places": places}
    return export_study(ExportOptions(**(options | given)), LineProgress())


@pytest.fixture(scope="module")
def bundles(home, tmp_path_factory):
    """A bundle of each strategy."""
    folder = tmp_path_factory.mktemp("bundles")
    for strategy in STRATEGIES:
        exported(home, folder / strategy, strategy=strategy)
    return {strategy: read_bundle(folder / strategy) for strategy in STRATEGIES}


def predictions(home, run):
    content = (home / "studies.files" / "artifacts" / run.predictions).read_bytes()
    with np.load(io.BytesIO(content)) as stored:
        return stored["logits_ENC"][run.best_epoch - 1], stored["labels_N"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_declared_seed_is_exported_whatever_the_others_gave(
    bundles, confirmed, strategy
):
    config, chosen = bundles[strategy].config, confirmed.chosen[strategy]
    assert config.study.seeds == tuple(confirmed.seeds) == (1, 2)
    assert config.study.seed == config.config.seed == 1
    assert (config.study.trial, config.config.strategy) == (chosen.number, strategy)
    assert config.validation.value == chosen.values[0]
    assert config.validation.values == tuple(chosen.values)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_bundle_is_the_network_that_was_validated(home, bundles, confirmed, strategy):
    bundle, run = bundles[strategy], confirmed.chosen[strategy].runs[0]
    data = load_same_data(
        Recipe.of(bundle.config), Places(cache_dir=home / "cache"), LineProgress()
    )
    found_NC = bundle.classifier(CPU).logits(data.images(data.val.positions_N))
    expected_NC, labels_N = predictions(home, run)
    assert np.array_equal(labels_N, data.val.labels_N)
    assert np.allclose(found_NC, expected_NC, atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_calibration_and_threshold_are_those_of_its_best_epoch(home, bundles, confirmed, strategy):
    logits_NC, labels_N = predictions(home, confirmed.chosen[strategy].runs[0])
    config = bundles[strategy].config
    expected = find_calibration(logits_NC, labels_N)
    assert Calibration(**config.calibration.model_dump()) == expected
    assert config.threshold == find_threshold(expected.probabilities(logits_NC), labels_N)


def test_without_a_strategy_the_better_one_is_taken(home, confirmed, tmp_path):
    config = exported(home, tmp_path / "b").config
    assert config.study.trial == confirmed.best.number


def test_it_knows_its_study_data_weights_and_database(home, bundles):
    config = bundles[STRATEGIES[0]].config
    assert config.study.storage == f"sqlite:///{(home / 'studies.db').resolve()}"
    assert (config.study.name, config.study.split_seed) == ("s", 0)
    assert config.data.source == "phantom:train=60,test=20,size=32"
    assert config.weights.sha256 == "random-0"
    assert config.versions["torch"] == version("torch")
    assert config.search.num_trials == 4 and config.search.num_confirmed == 2


def test_a_database_is_named_without_its_password():
    storage = SimpleNamespace(path=None, url="postgresql://me:secret@host/studies")
    assert export._shown_storage(storage) == "postgresql://me:***@host/studies"


def test_before_confirming_it_is_refused_with_the_command(home, capsys):
    storage = str(home / "studies.db")
    assert main(["export", "raw", "--storage", storage]) == 2
    told = capsys.readouterr().err
    assert "is not confirmed" in told and "python -m studies confirm raw --storage" in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "probing"}, "Unknown strategy 'probing'; choose from feature_extraction"),
        ({"name": "t"}, "No study 't'"),
        ({"storage": "nowhere.db"}, "No study database at nowhere.db"),
    ],
)
def test_what_is_not_there_is_refused(home, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        exported(home, tmp_path / "b", **given)
    assert not (tmp_path / "b").exists()


def test_a_strategy_of_which_nothing_is_confirmed_is_refused(home, tmp_path, monkeypatch):
    def only_one(study, records, metric):
        found = read_confirmed(study, records, metric)
        rest = [c for c in found.candidates if c.strategy != "fine_tuning"]
        return replace(found, candidates=rest)

    monkeypatch.setattr(export, "read_confirmed", only_one)
    with pytest.raises(UserError, match="No configuration of fine_tuning"):
        exported(home, tmp_path / "b", strategy="fine_tuning")


def test_a_choice_among_unfinished_trainings_is_refused(home, tmp_path, monkeypatch):
    study = load_study(open_existing(f"sqlite:///{home / 'studies.db'}"), "s/confirm")
    stored = {**read_confirm(study), "seeds": [1, 2, 3]}
    monkeypatch.setattr(confirm, "read_confirm", lambda study: stored)
    with pytest.raises(UserError, match=r"not finished \(. of 6 trainings\): run `python -m"):
        exported(home, tmp_path / "b")


def test_no_other_seed_takes_the_place_of_one_that_failed(home, tmp_path, monkeypatch):
    def without_the_first(study, records, metric):
        found = read_confirmed(study, records, metric)
        rest = [replace(c, runs=c.runs[1:]) for c in found.candidates]
        return replace(found, candidates=rest)

    monkeypatch.setattr(export, "read_confirmed", without_the_first)
    with pytest.raises(UserError, match=r"with seed 1 failed .* no other seed may take its place"):
        exported(home, tmp_path / "b")


def test_missing_weights_of_the_training_are_named(home, tmp_path):
    files = home / "studies.files" / "artifacts"
    hidden = files.rename(files.with_name("hidden"))
    try:
        with pytest.raises(UserError, match=r"weights of trial . of the confirmed ones are miss"):
            exported(home, tmp_path / "b")
    finally:
        hidden.rename(files)


def test_a_foreign_folder_is_refused_before_anything_is_trained(home, tmp_path, monkeypatch):
    save_images(tmp_path / "b", 1)
    monkeypatch.setattr(export, "train_again", None)
    with pytest.raises(UserError, match=r"holds '000\.png'"):
        exported(home, tmp_path / "b", refit=True)


def test_the_same_export_again_gives_the_same_model_in_its_place(home, tmp_path):
    first = exported(home, tmp_path / "b").config
    second = exported(home, tmp_path / "b").config
    assert first.files == second.files


@pytest.fixture(scope="module")
def refit(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("refit") / "b"
    exported(home, out, strategy="fine_tuning", refit=True)
    return read_bundle(out)


def test_a_refit_keeps_calibration_threshold_and_numbers_and_says_so(bundles, refit):
    before, after = bundles["fine_tuning"].config, refit.config
    assert after.refit and not before.refit
    for name in ("calibration", "threshold", "validation", "configuration", "study"):
        assert getattr(after, name) == getattr(before, name)
    assert "**Refit.**" in (refit.folder / CARD).read_text(encoding="utf-8")


def test_a_refit_trains_the_last_layers_only(bundles, refit):
    before, after = (
        safetensors.torch.load_file(bundle.folder / MODEL)
        for bundle in (bundles["fine_tuning"], refit)
    )
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert all(key.startswith(("layer4.1.", "head.")) for key in changed)
    assert {"head.1.weight", "layer4.1.conv1.weight"} <= changed


def test_a_refit_sees_all_images_for_the_best_epochs(home, bundles, tmp_path, monkeypatch):
    seen = []

    def watched(recipe, data, *given, num_epochs):
        seen.append((recipe.config.seed, len(data.train), num_epochs))
        return train_again(recipe, data, *given, num_epochs=num_epochs)

    train_again = export.train_again
    monkeypatch.setattr(export, "train_again", watched)
    exported(home, tmp_path / "b", strategy="feature_extraction", refit=True)
    best = bundles["feature_extraction"].config.validation.best_epoch
    assert seen == [(1, 60, best)]


def test_the_command_tells_where_it_is_and_writes_onnx(home, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra: onnx)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(home / "cache"))
    command = ["export", "s", "--storage", str(home / "studies.db"), "--onnx"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"] == str(tmp_path / "s-bundle") and told["onnx_difference"] <= 1e-4
    assert (tmp_path / "s-bundle" / ONNX).is_file()
    read_bundle(tmp_path / "s-bundle")
    assert main(["predict", "s-bundle", str(save_images(tmp_path / "i", 1)[0]), "--json"]) == 0
