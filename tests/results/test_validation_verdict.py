"""The two choices are compared on validation images where these are the same for both."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import run_study

from studies.database.artifacts import read_predictions
from studies.database.storage import load_study, open_existing
from studies.database.trials import read_trials
from studies.results.choice import CONFIRM, read_confirmed
from studies.results.comparison import compare_on_validation
from studies.results.forecasts import forecast_of_candidate


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return open_existing(run_study(tmp_path_factory.mktemp("home")))


@pytest.fixture
def trials(storage):
    return read_trials(load_study(storage, "s"))


@pytest.fixture
def confirmed(storage):
    records = read_trials(load_study(storage, "s"))
    return read_confirmed(load_study(storage, f"s/{CONFIRM}"), records, "accuracy")


def test_it_is_the_difference_of_the_means_over_seeds(storage, confirmed, trials):
    found = compare_on_validation(storage, confirmed, trials)
    means = {name: candidate.mean for name, candidate in confirmed.chosen.items()}
    difference = means["fine_tuning"] - means["feature_extraction"]
    assert found.difference.value == pytest.approx(difference)
    assert found.difference.num_seeds == 2 and "12 validation images" in found.sentence
    run = confirmed.chosen["fine_tuning"].runs[0]
    assert found.difference.num_images == len(read_predictions(storage, run).labels_N)
    assert np.isfinite(found.difference.low)
    assert found.margin == confirmed.margin == 0.02
    assert [choice.trial for choice in found.choices] == [
        confirmed.chosen[name].number for name in ("fine_tuning", "feature_extraction")
    ]
    assert sum(choice.num_trials for choice in found.choices) == sum(t.counts for t in trials)


def test_it_allows_for_what_the_forecasts_take_off(storage, confirmed, trials):
    found = compare_on_validation(storage, confirmed, trials)
    expected = [
        forecast_of_candidate(
            storage, trials, confirmed.chosen[name], metric="accuracy", num_test=100
        ).optimism
        for name in ("fine_tuning", "feature_extraction")
    ]
    assert found.optimism == pytest.approx([max(0.0, value) for value in expected])
    assert found.optimism[0] > 0
    given = {"fine_tuning": SimpleNamespace(optimism=0.25)}
    again = compare_on_validation(storage, confirmed, trials, given)
    assert again.optimism == (0.25, float("inf"))


def test_a_choice_that_lacks_a_seed_is_not_compared(storage, confirmed, trials):
    seeds = [*confirmed.seeds, 99]
    lacking = [
        replace(c, seeds=seeds) if c.strategy == "fine_tuning" else c for c in confirmed.candidates
    ]
    found = replace(confirmed, candidates=lacking, seeds=seeds)
    assert found.chosen["fine_tuning"].missing
    assert compare_on_validation(storage, found, trials) is None


def test_one_strategy_or_images_of_their_own_give_none(storage, confirmed, trials):
    alone = [c for c in confirmed.candidates if c.strategy == "fine_tuning"]
    assert compare_on_validation(storage, replace(confirmed, candidates=alone), trials) is None
    assert compare_on_validation(storage, replace(confirmed, resplit=True), trials) is None


def test_predictions_that_are_gone_give_none(storage, confirmed, trials):
    gone = [
        replace(c, runs=[replace(run, predictions="gone") for run in c.runs])
        for c in confirmed.candidates
    ]
    assert compare_on_validation(storage, replace(confirmed, candidates=gone), trials) is None
