"""The stored simulation holds what it promises, and is the one that the functions give today.

The long runs are `benchmarks/coverage.py`'s; here a handful of them is done again.
"""

import importlib.util
import sys
from collections import defaultdict

import pytest
from paths import ROOT
from scipy.stats import binom

HERE = ROOT / "benchmarks"


def load(name):
    """The script, by a name that is no installed package's."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


simulated = load("coverage")
TABLE = simulated.read(HERE / "coverage.jsonl")
# One model's interval is not about seeds.
NOT_ABOUT_SEEDS = {"seeds differ"}
# Few groups with most of the images, and a loss of heavy tails: known to be too narrow.
KNOWN = {("uneven", "accuracy"): 0.92, ("heavy tails", "loss"): 0.92}
# A run with AUROC costs ten times as much.
FEWEST = {"auroc": 1000}


def rows():
    found = defaultdict(lambda: defaultdict(int))
    for line in TABLE:
        if line["world"] in simulated.WORLDS and line["by_group"]:
            for key in ("runs", "model_covered", "mean_covered", "different"):
                found[line["world"], line["metric"]][key] += line[key]
    return found


@pytest.mark.parametrize("row", list(rows()), ids=" ".join)
def test_intervals_and_verdicts_hold_in_every_world(row):
    found = rows()[row]
    runs = found["runs"]
    assert runs >= FEWEST.get(row[1], 10_000)
    if row[0] not in NOT_ABOUT_SEEDS:
        assert found["model_covered"] >= binom.ppf(0.001, runs, KNOWN.get(row, 0.94))
    assert found["mean_covered"] >= binom.ppf(0.001, runs, 0.94)
    assert found["different"] <= binom.ppf(0.999, runs, 0.05)


def test_taken_as_independent_images_of_few_subjects_are_not_covered():
    # What groups are for: where this fails, the worlds have become harmless.
    lines = [ln for ln in TABLE if ln["world"] == "40x10" and not ln["by_group"]]
    covered, runs = (sum(line[key] for line in lines) for key in ("model_covered", "runs"))
    assert covered <= binom.ppf(0.999, runs, 0.8)


def test_sets_of_the_same_subjects_are_told_apart_no_more_often_than_by_chance():
    lines = [ln for ln in TABLE if ln["world"] in simulated.TWO_SETS and ln["by_group"]]
    assert {line["world"] for line in lines} == set(simulated.TWO_SETS)
    for world in simulated.TWO_SETS:
        mine = [line for line in lines if line["world"] == world]
        runs = sum(line["runs"] for line in mine)
        for key in ("told_apart", "shift_leaves_0"):
            count = sum(line[key] * line["runs"] for line in mine)
            assert count <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize(
    ("world", "metric"),
    [("100x4", "accuracy"), ("uneven", "accuracy"), ("90:10", "auroc"), ("three classes", "f1")],
)
@pytest.mark.parametrize("by_group", [False, True])
def test_the_stored_runs_are_those_of_today(world, metric, by_group):
    (line,) = (
        line
        for line in TABLE
        if (line["world"], line["metric"], line["by_group"], line["first"])
        == (world, metric, by_group, 0)
    )
    for what, interval in simulated.one_run(world, metric, 0, by_group=by_group).items():
        assert interval == pytest.approx(line["first_run"][what], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("by_group", [False, True])
def test_the_stored_sets_are_those_of_today(by_group):
    world = "sets 25/50 x4"
    (line,) = (
        line
        for line in TABLE
        if (line["world"], line["by_group"], line["first"]) == (world, by_group, 0)
    )
    found = simulated.one_run_of_sets(world, 0, by_group=by_group)
    assert found == pytest.approx(line["first_run"], rel=1e-4, abs=1e-6)


def test_a_table_goes_on_where_it_was_stopped():
    worlds, done = ["100x4", "sets 20/20 x10"], simulated.BLOCK
    every = list(simulated.missing([], worlds, 2 * done))
    assert len(every) == 8
    lines = [
        {"world": world, "metric": metric, "by_group": by_group, "first": first}
        for world, metric, by_group, first in every[:3]
    ]
    assert list(simulated.missing(lines, worlds, 2 * done)) == every[3:]
