"""A study's explanation comes from its database alone, and is that of what was told."""

import json
from dataclasses import replace

import pytest
from bundles import run_study

import studies
from studies.bundle.bundle import read_bundle
from studies.database.artifacts import TEST_FEATURES
from studies.database.storage import open_existing
from studies.errors import UserError
from studies.evaluation.setup import find_finalists
from studies.explanation.explain import explain_study


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    url = run_study(home, data="phantom:train=80,test=40,size=32,shift=3")
    places = {"cache_dir": home / "cache"}
    studies.export_bundle("s", out=home / "b", storage=url, **places)
    opening = studies.evaluate_bundle(home / "b", **places).opening
    storage = open_existing(url)
    return storage, find_finalists(storage, read_bundle(home / "b").config), opening


def explain(given):
    storage, found, opening = given
    return explain_study(storage, found.name, found.confirmed, opening)


def test_both_strategies_are_explained_as_they_were_forecast_and_evaluated(evaluated):
    _, _, opening = evaluated
    found = explain(evaluated)
    assert set(found) == {"feature_extraction", "fine_tuning"}
    for strategy, explanation in found.items():
        told = opening.result["by_strategy"][strategy]["metrics"]
        assert explanation.test == pytest.approx(told["accuracy"]["value"])
        forecast = opening.predicted["by_strategy"][strategy]
        assert explanation.forecast.as_json() == forecast
        assert explanation.classes == ("NORMAL", "OPACITY") and explanation.num_seeds == 2
        total = forecast["naive"] + sum(step.change.value for step in explanation.steps)
        assert total == pytest.approx(explanation.test)
        json.dumps(explanation.as_json(), allow_nan=False)


def test_recalls_are_those_of_the_evaluation(evaluated):
    _, _, opening = evaluated
    for strategy, explanation in explain(evaluated).items():
        told = opening.result["by_strategy"][strategy]["metrics"]
        for path in explanation.paths:
            recall = told[f"recall@{explanation.classes[path.label]}"]["value"]
            assert path.test == pytest.approx(recall)


def test_the_validation_value_is_that_of_the_confirmed_runs(evaluated):
    _, found, _ = evaluated
    for strategy, explanation in explain(evaluated).items():
        steps = {step.cause: step.change.value for step in explanation.steps}
        assert explanation.forecast.naive == pytest.approx(found.candidates[strategy].mean)
        assert set(steps) == {"optimism", "class_prior", "shift", "rest"}
        by_class = sum(path.share * path.validation for path in explanation.paths)
        start = explanation.forecast.naive + steps["class_prior"]
        assert by_class == pytest.approx(start, abs=0.01)


def test_explaining_leaves_the_database_as_it_is(evaluated):
    storage, _, _ = evaluated
    before = [path.stat().st_mtime_ns for path in sorted(storage.files.rglob("*"))]
    explain(evaluated)
    assert before == [path.stat().st_mtime_ns for path in sorted(storage.files.rglob("*"))]


def test_seeds_with_validation_images_of_their_own_are_not_explained(evaluated):
    storage, found, opening = evaluated
    resplit = replace(found, confirmed=replace(found.confirmed, resplit=True))
    with pytest.raises(UserError, match="validation images of its own"):
        explain((storage, resplit, opening))


def test_an_opening_without_an_end_is_not_explained(evaluated):
    storage, found, opening = evaluated
    with pytest.raises(UserError, match="Opening 1 of the test images has no result"):
        explain((storage, found, replace(opening, result=None)))


def test_missing_features_are_named(evaluated):
    storage, found, opening = evaluated
    ids = {**opening.result["artifacts"], TEST_FEATURES: "gone"}
    without = replace(opening, result={**opening.result, "artifacts": ids})
    with pytest.raises(UserError, match="features of test images are missing"):
        explain((storage, found, without))
