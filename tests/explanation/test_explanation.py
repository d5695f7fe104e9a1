"""What leads, in which class, and that all of it goes into JSON."""

import json
from dataclasses import replace

import pytest
from test_points_lost import explained

from studies.explanation.explanation import REMEDIES, Level, Step
from studies.explanation.shift import ClassPath
from studies.statistics.intervals import Interval


def interval(value, half):
    return Interval(value=value, low=value - half, high=value + half)


def test_the_leading_cause_lost_most_of_those_that_are_shown():
    found = explained(shift=2.0)
    assert found.leading.cause == "shift" and found.leading.is_shown
    assert found.classes[found.leading_class.label] == "NORMAL"


def test_without_a_cause_nothing_leads():
    found = explained(num_val=40, num_test=40, epochs=0.01)
    assert found.leading is None and found.leading_class is None
    assert found.as_json()["leading"] is None


def test_what_was_gained_never_leads():
    found = explained(bias=0.8, val_share=0.2, test_share=0.8)
    assert found.step("class_prior").change.low > 0
    assert found.leading is None or found.leading.cause != "class_prior"


def test_a_loss_that_grows_is_lost():
    found = explained(metric="loss", shift=2.0)
    assert found.step("shift").change.low > 0 and found.step("shift").is_loss
    assert found.leading.cause == "shift"


@pytest.mark.parametrize(
    ("change", "is_shown"),
    [(interval(-0.1, 0.05), True), (interval(-0.1, 0.2), False), (interval(0.0, 0.0), False)],
)
def test_a_step_is_shown_where_its_interval_leaves_zero(change, is_shown):
    step = Step(cause="shift", change=change, is_loss=True)
    assert step.is_shown is is_shown and step.remedy == REMEDIES["shift"]


@pytest.mark.parametrize(
    ("test", "p", "is_told_apart"),
    [
        (interval(0.8, 0.1), 0.01, True),
        # The interval is for the eye: with few subjects it may leave 0.5 by chance.
        (interval(0.8, 0.1), 0.2, False),
        (interval(0.55, 0.1), 0.05, False),
        (None, None, False),
    ],
)
def test_images_are_told_apart_where_the_permutation_test_says_so(test, p, is_told_apart):
    level = Level(images="all", test=test, reference=None, p=p, reference_p=0.001)
    assert level.is_told_apart is is_told_apart
    assert level.as_json()["reference_p"] == 0.001


def test_the_worst_of_many_classes_must_be_shown_for_their_number():
    def path(label, half):
        return ClassPath(
            label=label,
            num_val=50,
            num_test=50,
            share=0.1,
            validation=0.9,
            shift=interval(-0.10, half),
            rest=interval(0.0, 0.1),
            test=0.8,
            matched=0.5,
            matched_test=0.9,
            unmatched_test=0.7,
        )

    found = explained(shift=2.0)
    others = [path(label, 0.5) for label in range(1, 10)]
    barely = replace(found, paths=(path(0, 0.095), *others))
    assert barely.paths[0].shift.high < 0 and barely.leading_class is None
    assert replace(found, paths=(path(0, 0.095),)).leading_class is not None
    assert replace(found, paths=(path(0, 0.05), *others)).leading_class.label == 0


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "loss"])
def test_json_holds_all_of_it(metric):
    found = explained(metric=metric, shift=1.0)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    steps = [step["cause"] for step in told["steps"]]
    assert steps[:4] == ["optimism", "class_prior", "shift", "rest"]
    total = told["validation"] + sum(step["value"] for step in told["steps"])
    assert total == pytest.approx(told["test"])
    assert all(step["remedy"] for step in told["steps"])
    assert {row["images"] for row in told["domain"]} == {"all", "NORMAL", "OPACITY"}
    assert [row["class"] for row in told["classes"]] == ["NORMAL", "OPACITY"]
    assert told["thresholds"]["best"]["attainable"] is False
    assert set(told["calibration"]) == {"validation_before", "test_before", "test_after"}
    assert set(told["calibration"]["test_after"]["intercepts"]) == {"OPACITY"}
    assert told["sentences"]
