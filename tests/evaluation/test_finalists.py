"""What a bundle's study has for the final test evaluation, or why there can be none."""

import shutil
from dataclasses import replace

import numpy as np
import optuna
import pytest
from bundles import run_study

from studies.bundle.config import read_config
from studies.bundle.export import ExportOptions, export_study
from studies.bundle.reproduce import Places
from studies.database.artifacts import read_arrays, read_predictions
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.study import read_confirm, write_confirm
from studies.errors import UserError
from studies.evaluation.setup import find_finalists, forecast_of
from studies.results.choice import CONFIRM
from studies.results.forecasts import calibration_of
from studies.statistics.calibration import find_calibration
from studies.terminal.progress import LineProgress


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    run_study(home)
    places = Places(cache_dir=home / "cache")
    options = ExportOptions(storage=str(home / "studies.db"), out=home / "b", places=places)
    export_study(options, LineProgress())
    return home


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made, tmp_path / "home")


@pytest.fixture
def storage(home):
    return open_storage(str(home / "studies.db"))


@pytest.fixture
def bundle(home):
    return read_config(home / "b")


def test_both_choices_and_the_controls_are_found(storage, bundle):
    found = find_finalists(storage, bundle)
    assert set(found.candidates) == {"feature_extraction", "fine_tuning"}
    assert found.candidates[bundle.config.strategy].number == bundle.study.trial
    assert found.num_test == 20 and found.metric == "accuracy"
    assert len(found.on_features) == 3  # majority, and two on features of random weights
    assert all(run.weights for run in found.recipes)


def test_a_forecast_takes_the_search_and_the_seeds_into_account(storage, bundle):
    found = find_finalists(storage, bundle)
    for strategy, candidate in found.candidates.items():
        told = forecast_of(storage, found, strategy)
        assert told.naive == pytest.approx(candidate.mean)
        assert told.num_models == len(candidate.runs) == 2
        complete = [t for t in found.trials if t.state == "COMPLETE" and t.strategy == strategy]
        assert told.num_trials == len(complete)
        assert (told.num_val, told.num_test) == (12, 20)
        one = forecast_of(storage, found, strategy, num_models=1)
        assert one.value == told.value and one.num_models == 1


def test_a_calibration_is_found_on_the_trainings_own_validation_images(storage, bundle):
    found = find_finalists(storage, bundle)
    run = found.candidates["feature_extraction"].runs[1]
    stored = read_predictions(storage, run)
    best_NC = stored.logits_ENC[run.best_epoch - 1]
    assert calibration_of(storage, run) == find_calibration(best_NC, stored.labels_N)


def test_a_study_that_is_not_the_bundles_is_refused(storage, bundle):
    study = bundle.study.model_copy(update={"name": "t", "search_id": None})
    with pytest.raises(UserError, match="No study 't'"):
        find_finalists(storage, bundle.model_copy(update={"study": study}))
    changes = [
        {"configuration": {**bundle.configuration, "batch_size": 3}},
        {"data": bundle.data.model_copy(update={"test_fingerprint": "5" * 64})},
        {"study": bundle.study.model_copy(update={"confirm_trial": 99})},
        {"study": bundle.study.model_copy(update={"search_id": "another"})},
    ]
    for change in changes:
        with pytest.raises(UserError, match="not the one that the bundle comes from"):
            find_finalists(storage, bundle.model_copy(update=change))


def test_a_study_that_has_confirmed_otherwise_since_is_refused(storage, bundle):
    confirm = load_study(storage, f"s/{CONFIRM}")
    write_confirm(confirm, {**read_confirm(confirm), "seeds": [2, 1]})
    with pytest.raises(UserError, match="confirmed otherwise; export it again"):
        find_finalists(storage, bundle)


def test_a_trained_part_that_is_missing_is_named_before_anything_is_opened(storage, bundle):
    found = find_finalists(storage, bundle)
    run = found.candidates["fine_tuning"].runs[-1]
    (storage.files / "artifacts" / run.weights).unlink()
    with pytest.raises(UserError, match=f"weights of trial {run.number} over seeds are missing"):
        find_finalists(storage, bundle)


def test_without_controls_there_are_none(storage, bundle):
    optuna.delete_study(study_name="s/controls", storage=storage.database)
    assert find_finalists(storage, bundle).controls == []


def test_predictions_that_are_missing_are_named(storage, bundle):
    found = find_finalists(storage, bundle)
    trial = next(t for t in found.trials if t.strategy == "fine_tuning")
    with pytest.raises(UserError, match="predictions of trial"):
        read_predictions(storage, replace(trial, predictions=None))
    with pytest.raises(UserError, match="The arrays are missing"):
        read_arrays(open_existing(storage.url), "nothing", "arrays")
    stored = read_arrays(storage, trial.predictions, "arrays")
    assert np.array_equal(stored["logits_ENC"], read_predictions(storage, trial).logits_ENC)
