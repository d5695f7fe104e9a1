"""Controls as rows, and the alarm where a strategy has learned nothing."""

from types import SimpleNamespace

import pytest

from studies.control_rows import KEYS, alarms, control_rows
from studies.verdict_tables import SIGNS

COUNTS = {"train": {"a": 300, "b": 100}, "val": {"a": 75, "b": 25}, "test": {"a": 5, "b": 5}}


def trial(accuracy, state="COMPLETE", strategy=None, **params):
    return SimpleNamespace(
        state=state,
        best={"val": {"accuracy": accuracy, "loss": 0.1}},
        keyed_params=params,
        strategy=strategy,
    )


def control(name, backbone, weights, accuracy, **changes):
    return trial(accuracy, **dict(zip(KEYS, (name, backbone, weights), strict=True)), **changes)


def recipe(accuracy):
    record = trial(accuracy, candidate=0, backbone="resnet18")
    record.strategy = "fine_tuning"
    return record


def test_controls_are_rows_and_recipes_stand_with_the_mean_over_seeds():
    rows = control_rows(
        [
            control("majority", "none", "none", 0.5),
            control("knn", "resnet18", "random", 0.6),
            control("knn", "resnet50", "random", 0.7, state="FAIL"),
            recipe(0.8),
            recipe(0.9),
        ]
    )
    assert [(r["control"], r["backbone"], r["weights"]) for r in rows] == [
        ("majority", None, None),
        ("knn", "resnet18", "random"),
        ("default_recipe (fine_tuning)", "resnet18", "as searched"),
    ]
    assert rows[-1]["val"]["accuracy"] == pytest.approx(0.85)


@pytest.mark.parametrize(("accuracy", "is_alarm"), [(0.75, True), (0.80, True), (0.95, False)])
def test_a_strategy_at_the_rate_of_the_majority_class_raises_an_alarm(accuracy, is_alarm):
    candidate = SimpleNamespace(runs=[trial(accuracy), trial(accuracy)])
    confirmed = SimpleNamespace(chosen={"fine_tuning": candidate})
    found = alarms(confirmed, COUNTS, SIGNS)
    assert len(found) == is_alarm
    if is_alarm:
        assert found[0].startswith("Alarm: fine-tuning stands at the rate of the majority class")
        assert "75.0%" in found[0]
