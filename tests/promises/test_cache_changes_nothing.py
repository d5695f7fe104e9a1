"""A study's table is the same with a cache, with one cleared before every trial, and with none."""

import pytest

from studies.search.objective import Objective
from studies.search.run import run_study
from studies.settings import read_options
from studies.signals import StopSignals
from studies.terminal.progress import LineProgress
from transfer.cache import clear

SPACE = """
name = "small"
[backbone]
choices = ["resnet18", "mobilenet_v3_small"]
[strategy]
choices = ["feature_extraction", "fine_tuning"]
[batch_size]
choices = [8, 20]
[learning_rate]
low = 1e-4
high = 1e-2
log = true
[num_unfrozen_layers.fine_tuning]
low = 1
high = 5
[[baselines]]
strategy = "feature_extraction"
learning_rate = 1e-3
batch_size = 20
[[baselines]]
strategy = "fine_tuning"
learning_rate = 1e-3
batch_size = 8
depth_share = 0.3
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(SPACE)

    def run(name, before_trial=lambda cache_dir: None, **given):
        cache_dir = tmp_path / name
        options = read_options(
            {
                "data": "phantom:train=60,test=20,size=32",
                "space": str(tmp_path / "small.toml"),
                "weights": "random",
                "trials": 6,
                "epochs": 3,
                "num_views": 2,
                "confirm": False,
                "storage": f"sqlite:///{tmp_path}/{name}.db",
                "cache_dir": cache_dir,
                **given,
            }
        )
        run_one = Objective.run

        def watched(self, suggestion):
            before_trial(cache_dir)
            run_one(self, suggestion)

        with monkeypatch.context() as patched, StopSignals() as signals:
            patched.setattr(Objective, "run", watched)
            records = run_study(options, LineProgress(), signals).records
        rows = [
            (
                r.number,
                r.state,
                r.value,
                r.params,
                r.values,
                [(epoch["train"], epoch["val"]) for epoch in r.history],
            )
            for r in records
        ]
        return rows, [r.cache for r in records]

    return run


@pytest.mark.slow
def test_the_table_is_the_same_with_a_cache_without_one_and_with_one_that_is_cleared(table):
    rows, kept = table("kept")
    assert len(rows) == 6 and {row[3]["strategy"] for row in rows} == {
        "feature_extraction",
        "fine_tuning",
    }
    assert any(cache["was_at_hand"] for cache in kept)
    cleared, starts = table("cleared", clear)
    assert cleared == rows and not any(cache["was_at_hand"] for cache in starts)
    none, starts = table("none", cache_limit=0)
    assert none == rows and {cache["start"] for cache in starts} == {0}
