"""Where the metric is a loss the report says so: choices add to it, and calibration is named."""

from types import SimpleNamespace

from studies.report.task_d import _groups
from studies.report.task_e import _sealed
from studies.statistics.forecast import Forecast
from studies.statistics.intervals import Interval

FORECAST = {
    "value": 0.29,
    "low": 0.2,
    "high": 0.4,
    "naive": 0.2,
    "epoch_optimism": 0.07,
    "trial_optimism": 0.02,
    "num_models": 3,
    "num_trials": 12,
    "num_val": 100,
    "num_test": 400,
    "seeds_known": True,
}
TUNED = SimpleNamespace(
    number=7,
    strategy="fine_tuning",
    runs=[SimpleNamespace(number=0, params={"seed": 1})],
    values=[0.2, 0.2, 0.2],
)


def evidence(metric, **changes):
    fields = {
        "metric": metric,
        "name": "s",
        "openings": [],
        "forecasts": {"fine_tuning": Forecast(**FORECAST)},
        "candidate": lambda strategy: TUNED,
        "strategies": ["fine_tuning"],
        "over_seeds": lambda candidate: None,
        "evaluation": None,
    }
    return SimpleNamespace(**{**fields, **changes})


def words(block):
    for item in getattr(block, "items", []):
        yield "".join(part if isinstance(part, str) else part.text for part in item)


def test_what_choosing_has_made_up_is_added_to_a_loss_and_taken_off_an_accuracy():
    for metric, sign in (("loss", "plus"), ("accuracy", "less")):
        (line,) = (line for block in _sealed(evidence(metric)) for line in words(block))
        assert f"over 3 seeds, {sign} 0.0700 for the choice of epochs" in line


def test_the_interval_on_test_images_is_of_the_same_numbers_as_the_seeds(monkeypatch):
    monkeypatch.setattr("studies.report.task_d.seeds_interval", lambda evidence, candidate: None)
    before = {"value": 0.3, "low": 0.2, "high": 0.4}
    tested = {
        "values": [0.28, 0.32],
        "as_forecast": before,
        "metrics": {"loss": {"value": 0.26, "low": 0.2, "high": 0.3}},
    }
    opening = SimpleNamespace(result={"by_strategy": {"fine_tuning": tested}})
    groups = _groups(evidence("loss", evaluation=opening))
    assert groups["fine_tuning"]["test"] == ([0.28, 0.32], Interval(**before))
