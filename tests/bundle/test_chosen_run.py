"""The run to export is the first declared seed's of what confirming chose, or none."""

import numpy as np
import pytest
from bundles import run_study

from studies.bundle.export import best_predictions, find_chosen_run, read_trained
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.study import read_confirm, write_confirm
from studies.database.trials import read_trials
from studies.errors import UserError


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return run_study(tmp_path_factory.mktemp("home"))


@pytest.fixture
def storage(url):
    return open_existing(url)


@pytest.mark.parametrize("strategy", [None, "feature_extraction", "fine_tuning"])
def test_it_is_the_first_seeds_run_of_the_choice(storage, strategy):
    found = find_chosen_run(storage, "s", strategy)
    chosen = found.confirmed.best if strategy is None else found.confirmed.chosen[strategy]
    assert found.candidate == chosen and found.run in chosen.runs
    assert found.run.params["seed"] == found.config.seed == found.confirmed.seeds[0] == 1
    assert strategy in (None, found.config.strategy)


def test_its_predictions_are_those_of_the_best_epoch_and_its_weights_are_whole(storage):
    found = find_chosen_run(storage, "s", "feature_extraction")
    logits_NC, labels_N = best_predictions(storage, found.run)
    accuracy = (logits_NC.argmax(axis=1) == labels_N).mean()
    assert accuracy == pytest.approx(found.run.value) and logits_NC.shape == (len(labels_N), 2)
    state = read_trained(storage, found.run)
    assert set(state) == {"head.1.weight", "head.1.bias"}
    assert all(np.isfinite(tensor.numpy()).all() for tensor in state.values())


@pytest.mark.parametrize(
    ("name", "strategy", "message"),
    [
        ("t", None, "No study 't'"),
        ("s", "probing", "Unknown strategy 'probing'; choose from feature_extraction"),
        ("s/confirm", None, "was not made by transfer-studies"),
    ],
)
def test_what_is_not_there_is_refused(storage, name, strategy, message):
    with pytest.raises(UserError, match=message):
        find_chosen_run(storage, name, strategy)


def test_more_seeds_that_were_declared_and_not_run_make_the_choice_unfinished(tmp_path):
    url = run_study(tmp_path, strategies=["feature_extraction"], trials=1)
    confirm = load_study(open_existing(url), "s/confirm")
    declared = read_confirm(confirm)
    writable = load_study(open_storage(url), "s/confirm")
    write_confirm(writable, {**declared, "seeds": [*declared["seeds"], 99]})
    with pytest.raises(UserError, match=r"not finished \(2 of 3 trainings\): run `python -m"):
        find_chosen_run(open_existing(url), "s", None)


def test_a_better_trial_that_was_added_since_makes_the_choice_an_older_one(tmp_path):
    url = run_study(tmp_path, strategies=["feature_extraction"], trials=1)
    run_study(tmp_path, strategies=["feature_extraction"], trials=6, confirm=False)
    records = read_trials(load_study(open_existing(url), "s"))
    best = max((r for r in records if r.state == "COMPLETE"), key=lambda r: r.score("accuracy"))
    assert best.number > 0
    with pytest.raises(UserError, match=r"Since the study was confirmed, trials? .*: run `python"):
        find_chosen_run(open_existing(url), "s", None)
