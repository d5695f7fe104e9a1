"""Forecasts, corrections and verdicts of simulated studies are as good as is promised.

The long runs are those of `benchmarks/simulated_studies.py`, whose table is looked at here, so
that a bound has the power to fail; single runs are done again, so that the table is today's.
"""

import sys
from pathlib import Path

import pytest
from paths import ROOT
from scipy.stats import binom

from studies.statistics.intervals import wilson_interval

sys.path.insert(0, str(ROOT / "benchmarks"))

import simulated_studies
from nulls import AHEAD, ALARM, DIFFERS, HELPED, WAYS

TABLE = simulated_studies.read(Path(simulated_studies.__file__).with_suffix(".jsonl"))
WORLDS = list(simulated_studies.WORLDS)


def starting(*kinds):
    return [name for name in WORLDS if name.startswith(kinds)]


def found(name, fewest):
    runs, means = simulated_studies.means(TABLE, name)
    assert runs >= fewest
    return runs, means


def least(runs, share):
    """Of so many runs fewer hold in one case of a thousand, where each does in ``share``."""
    return binom.ppf(0.001, runs, share)


# Its interval has the optimism as if it were known: where configurations truly differ, it isn't.
TOO_NARROW = {"forecast, configurations differ": 0.88}


@pytest.mark.parametrize("world", starting("forecast, ", "forecast by"))
def test_a_forecast_is_right_to_two_points_and_its_interval_holds(world):
    runs, means = found(world, 100)
    assert means["naive_off"] > 0.005
    assert abs(means["off"]) < 0.02
    assert round(means["held"] * runs) >= least(runs, TOO_NARROW.get(world, 0.93))


@pytest.mark.parametrize("world", starting("forecast, "))
def test_most_of_what_choosing_by_the_metric_adds_is_taken_off(world):
    _, means = found(world, 1000)
    assert means["naive_off"] > 0.02 and abs(means["off"]) < 0.5 * means["naive_off"]


@pytest.mark.parametrize("scenario", simulated_studies.STUDIES)
def test_what_was_chosen_by_the_calibrated_loss_looks_less_too_good(scenario):
    by_metric, by_loss = (
        found(f"forecast{by}, {scenario}", 100)[1]["naive_off"]
        for by in ("", " by calibrated loss")
    )
    assert by_loss < by_metric


@pytest.mark.parametrize(
    "world", [f"optimism, {scenario}" for scenario in simulated_studies.SEARCHES]
)
def test_the_best_of_equal_trials_is_corrected_to_a_point(world):
    runs, means = found(world, 1000)
    assert means["naive_off"] > 0.09 and abs(means["off"]) < 0.01
    assert round(means["held"] * runs) >= least(runs, 0.95)


@pytest.mark.parametrize("world", starting("optimism, one better"))
def test_one_better_trial_among_equals_is_right_to_a_point_and_a_half(world):
    runs, means = found(world, 1000)
    assert abs(means["off"]) < 0.015
    # Not 95 %: where the better trial is as likely missed as found, its gap is hard to tell.
    assert round(means["held"] * runs) >= least(runs, 0.90)


@pytest.mark.parametrize("world", starting("twins"))
def test_twins_are_called_different_in_at_most_five_in_a_hundred(world):
    runs, means = found(world, 1000)
    assert round(means["different"] * runs) <= binom.ppf(0.999, runs, 0.05)


# From two seeds that differ by far more than images do nobody knows by how much they differ.
TOO_FEW_SEEDS = {
    f"mean, 2 seeds, spread {spread}, {num_images} images"
    for spread in ("0.02", "0.03")
    for num_images in (400, 1000)
}


@pytest.mark.parametrize("world", starting("mean"))
def test_the_interval_over_any_number_of_seeds_covers(world):
    runs, means = found(world, 1000)
    assert round(means["held"] * runs) >= least(runs, 0.90 if world in TOO_FEW_SEEDS else 0.95)


@pytest.mark.parametrize("num_images", [80, 400, 1000])
@pytest.mark.parametrize("num_seeds", [3, 5])
def test_errors_that_seeds_do_not_share_average_out(num_seeds, num_images):
    _, means = found(f"mean, {num_seeds} seeds, spread 0, {num_images} images", 1000)
    low, high = wilson_interval(round(0.88 * num_images), num_images)
    assert means["width"] < high - low


@pytest.mark.parametrize("world", starting("margin"))
def test_at_the_margin_equivalence_is_wrongly_said_in_at_most_two_and_a_half_in_a_hundred(world):
    runs, means = found(world, 1000)
    wrong = "not_worse_or_better" if "0.86 and" in world else "not_better_or_worse"
    assert round(means[wrong] * runs) <= binom.ppf(0.999, runs, 0.025)


@pytest.mark.parametrize("world", starting("calibration"))
def test_slope_and_intercept_hold_their_truth(world):
    runs, means = found(world, 10_000)
    for held in {"slope_held", "intercept_held"} & set(means):
        assert round(means[held] * runs) >= least(runs, 0.94)


@pytest.mark.parametrize("world", starting("calibration, sharpness"))
def test_a_calibrated_model_has_no_excess_and_seldom_a_small_p(world):
    """Its error itself is far above 0, and no interval around it would hold its 0."""
    runs, means = found(world, 10_000)
    if "sharpness 1," in world:
        assert means["ece"] > 0.03 and abs(means["excess"]) < 0.001
        assert round(means["small_p"] * runs) <= binom.ppf(0.999, runs, 0.05)
    else:
        assert means["excess"] > 0.03 and means["small_p"] > 0.5


NULLS = starting("null study")
EITHER_WAY = [
    "learns task-specific features",
    "is costly to train",
    "overfits small data",
    "is efficient",
    "overfits less",
    "can't learn task-specific features, and loses by it",
    "is worse where pretrained features don't suit",
    HELPED,
    DIFFERS,
]


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("said", EITHER_WAY)
@pytest.mark.parametrize("world", NULLS)
def test_a_claim_or_gain_that_is_not_there_is_seldom_said(world, said, way):
    runs, means = found(world, 400)
    assert round(means[f"{said}, {way}"] * runs) <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("world", NULLS)
def test_of_a_study_where_nothing_helps_each_claim_that_is_measured_is_counted(world):
    counted = {f"{said}, {way}" for said in EITHER_WAY for way in WAYS} | {ALARM, AHEAD}
    assert set(found(world, 400)[1]) == counted


@pytest.mark.parametrize("world", starting("alarm"))
def test_of_networks_that_know_nothing_the_alarm_is_raised(world):
    """Judged at the epochs that the same images chose it would be silent in many."""
    runs, means = found(world, 1000)
    assert round(means["alarm"] * runs) >= least(runs, 0.95)
    assert means["alarm_by_those_that_chose"] < 0.9


@pytest.mark.parametrize("world", NULLS)
def test_what_learned_raises_no_alarm(world):
    runs, means = found(world, 400)
    assert round(means[ALARM] * runs) <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("world", NULLS)
def test_judged_as_if_the_images_had_chosen_nothing_it_would_be_said_often(world):
    runs, means = found(world, 400)
    assert means[AHEAD] > 0.02
    said = means[f"learns task-specific features, {WAYS[0]}"]
    assert round(said * runs) > binom.ppf(0.999, runs, 0.05)


def test_a_long_search_is_not_called_better_than_a_short_one_for_its_length():
    """On the images that chose both it looks better, in so many studies that it would be."""
    runs, means = found("null study, 200 images, 20 trials against 1", 400)
    taken, before = (round(means[f"{DIFFERS}, {way}"] * runs) for way in WAYS[:2])
    assert before <= binom.ppf(0.999, runs, 0.05) < taken


@pytest.mark.parametrize(
    "world",
    [
        "calibration, 3 seeds that differ, 400 images",
        "null study, 133 patients of 3 images",
        "forecast, both differ",
        "forecast by calibrated loss, equal",
        "optimism, and lasting errors",
        "twins, 3 seeds, spread 0.02, 400 images",
        "mean, 2 seeds, spread 0.01, 80 images",
        "margin, 0.86 and 0.88, spread 0.02",
    ],
)
def test_the_stored_runs_are_those_of_today(world):
    (line,) = (line for line in TABLE if (line["world"], line["first"]) == (world, 0))
    assert simulated_studies.run(world, 0) == pytest.approx(line["first_run"], rel=1e-6, abs=1e-9)


def test_a_table_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.jsonl"
    arguments = ["x", "--only", "twins, 2 seeds, spread 0, 80", "--out", str(out), "--runs"]
    for runs in ("50", "100", "100"):
        monkeypatch.setattr(sys, "argv", [*arguments, runs])
        simulated_studies.main()
    lines = simulated_studies.read(out)
    assert [line["first"] for line in lines] == [0, 50]
    shares = [line["different"] for line in lines]
    runs, means = simulated_studies.means(lines, lines[0]["world"])
    assert runs == 100 and means["different"] == pytest.approx(sum(shares) / 2)
    assert "100 runs; per cent or points: different" in capsys.readouterr().out
