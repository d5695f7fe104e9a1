"""Phantoms whose test images are shifted, and not, from the study to its explanation.

Nothing here was fitted to the phantom: the numbers of `studies.explanation.domain` are those of
any data set.
"""

import numpy as np
import pytest
from scipy.stats import spearmanr

import studies
from studies.bundle.bundle import read_bundle
from studies.database.storage import open_existing
from studies.evaluation.setup import find_finalists
from studies.explanation.explain import explain_study
from studies.watchers import NOWHERE

STRENGTHS = (0.5, 1.0, 1.5, 2.5)
SPACE = """
name = "probe"
[backbone]
choices = ["efficientnet_lite0"]
[strategy]
choices = ["feature_extraction"]
[learning_rate.feature_extraction]
low = 1e-3
high = 1e-2
log = true
[batch_size]
choices = [32]
"""


@pytest.fixture
def explained(tmp_path, monkeypatch):
    """Run, export, evaluate and explain a study of a phantom."""
    # Controls, pictures and notes take most of the time, and no part in the explanation.
    monkeypatch.setattr("studies.search.run.run_controls", lambda *_, **__: [])
    monkeypatch.setattr("studies.workflow.FACES", NOWHERE)
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")

    def explained(shift, seed):
        home = tmp_path / f"{shift}-{seed}"
        home.mkdir()
        given = {"storage": f"sqlite:///{home / 'studies.db'}", "cache_dir": home / "cache"}
        data = f"phantom:train=300,test=200,size=48,shift={shift},seed={seed}"
        studies.run(
            name="s",
            data=data,
            space=str(tmp_path / "space.toml"),
            image_size=48,
            epochs=8,
            trials=3,
            top=1,
            seeds=2,
            seed=seed,
            **given,
        )
        studies.export_bundle("s", out=home / "b", **given)
        opening = studies.evaluate_bundle(home / "b", cache_dir=given["cache_dir"]).opening
        storage = open_existing(given["storage"])
        found = find_finalists(storage, read_bundle(home / "b").config)
        return explain_study(storage, found.name, found.confirmed, opening)["feature_extraction"]

    return explained


def intervals(found):
    """All intervals by name, and the value each holds where there is no cause."""
    named = {step.cause: (step.change, 0.0) for step in found.steps}
    named["threshold"] = found.thresholds.change, 0.0
    for path in found.paths:
        named[f"shift of {path.label}"] = path.shift, 0.0
        named[f"rest of {path.label}"] = path.rest, 0.0
    for level in found.levels:
        named[f"test images, {level.images}"] = level.test, 0.5
        named[f"training images, {level.images}"] = level.reference, 0.5
    return named


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_shift_no_interval_leaves_zero_in_more_than_one_seed_of_ten(explained):
    found = [explained(0.0, seed) for seed in range(10)]
    assert np.mean([abs(one.step("shift").change.value) for one in found]) < 0.01
    left: dict[str, int] = {}
    for one in found:
        for name, (interval, null) in intervals(one).items():
            left[name] = left.get(name, 0) + (not interval.low <= null <= interval.high)
    assert {name: count for name, count in left.items() if count > 1} == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_shift_costs_grows_with_the_shift_in_the_class_that_has_it(explained):
    found = {
        (strength, seed): explained(strength, seed) for strength in STRENGTHS for seed in range(5)
    }
    lost = [-one.step("shift").change.value for one in found.values()]
    # Of all seeds, and not of the weakest shift: a ratio of two numbers near 0 tells nothing.
    whole = [one.forecast.naive - one.test for one in found.values()]
    of_shift, of_all = (
        np.reshape(each, (len(STRENGTHS), -1)).sum(axis=1) for each in (lost, whole)
    )
    share = of_shift / of_all
    strengths = [strength for strength, _ in found]
    assert spearmanr(strengths, lost).statistic > 0.8
    assert (share[1:] > 0.75).all() and (share[1:] < 1.1).all()
    strongest = [found[STRENGTHS[-1], seed] for seed in range(5)]
    assert all(one.leading.cause == "shift" for one in strongest)
    assert {one.classes[one.leading_class.label] for one in strongest} == {"NORMAL"}
