"""Candidates are the best of each strategy; the choice is made on the mean over seeds."""

from types import SimpleNamespace

import pytest

from studies.results.choice import (
    Candidate,
    Confirmed,
    candidates,
    choose,
    confirm_seeds,
    confirmed,
    is_repeat_of,
    seed_remarks,
)
from transfer.config import score_of


def trial(number, strategy="fine_tuning", value=0.8, loss=0.5, **changes):
    """A complete trial of the search."""
    fields = {
        "number": number,
        "state": "COMPLETE",
        "duplicate_of": None,
        "strategy": strategy,
        "value": value,
        "best": {"val": {"loss": loss, "accuracy": value}},
        "params": {"strategy": strategy},
        "keyed_params": {"strategy": strategy},
        "counts": changes.get("state", "COMPLETE") in ("COMPLETE", "FAIL"),
        "reason": None,
        "config": {},
        "chosen_by": None,
        "fingerprints": {},
        "timing": {"training": 1.0, "validation": 0.5},
    }
    found = SimpleNamespace(**{**fields, **changes})
    found.score = lambda metric: score_of(metric, found.value)
    return found


def run(candidate, seed, value, loss=0.5, seconds=1.0, **changes):
    """A training of a candidate over a seed."""
    params = {"candidate": candidate, "seed": seed}
    fields = {
        "params": params,
        "keyed_params": {"strategy": "fine_tuning", **params},
        "timing": {"training": seconds, "validation": 0.0},
    }
    return trial(100 + seed, value=value, loss=loss, **(fields | changes))


def candidate(number, values, strategy="fine_tuning", seconds=1.0, loss=0.5, failures=None):
    """With seeds 1, 2, ... and their values: None for one that failed."""
    seeds = range(1, len(values) + 1)
    done = [(seed, v) for seed, v in zip(seeds, values, strict=True) if v is not None]
    lost = {seed: ["diverged"] for seed in seeds if values[seed - 1] is None}
    return Candidate(
        number=number,
        strategy=strategy,
        configuration={},
        runs=[run(number, seed, value, loss, seconds) for seed, value in done],
        seeds=list(seeds),
        failures=lost | (failures or {}),
    )


def test_no_seed_of_confirming_is_the_searchs():
    assert confirm_seeds(0, 3) == [1, 2, 3]
    assert confirm_seeds(2**32 - 2, 3) == [2**32 - 1, 0, 1]
    for seed in (0, 7, 2**32 - 1):
        assert seed not in confirm_seeds(seed, 100)


def test_more_seeds_begin_with_the_same_ones():
    assert confirm_seeds(5, 5)[:3] == confirm_seeds(5, 3)


def test_candidates_are_the_best_of_each_strategy_the_bests_first():
    records = [
        trial(0, "feature_extraction", 0.7),
        trial(1, "fine_tuning", 0.9),
        trial(2, "fine_tuning", 0.95),
        trial(3, "feature_extraction", 0.8),
        trial(4, "fine_tuning", 0.99, state="PRUNED"),
        trial(5, "fine_tuning", 0.85),
    ]
    assert [c.number for c in candidates(records, "accuracy", 1)] == [3, 2]
    assert [c.number for c in candidates(records, "accuracy", 2)] == [3, 2, 0, 1]
    assert [c.number for c in candidates(records[:1], "accuracy", 2)] == [0]
    assert candidates([], "accuracy", 2) == []


def test_of_the_loss_the_lowest_are_the_best():
    records = [trial(i, value=value) for i, value in enumerate((0.5, 0.2, 0.9))]
    assert [c.number for c in candidates(records, "loss", 2)] == [1, 0]


def test_runs_are_found_by_candidate_and_seed_and_only_complete_ones_count():
    chosen = [trial(3), trial(4)]
    records = [
        run(3, 2, 0.8),
        run(3, 1, 0.7),
        run(3, 9, 0.99),
        run(4, 1, 0.9, state="FAIL"),
        run(5, 1, 0.9),
    ]
    found, lost = confirmed(chosen, records, seeds=[1, 2, 3])
    assert (lost.number, lost.runs, lost.missing) == (4, [], [1, 2, 3])
    assert (found.number, found.values) == (3, [0.7, 0.8])
    assert found.mean == pytest.approx(0.75)
    assert found.standard_error == pytest.approx(0.05)


@pytest.mark.parametrize(
    "other",
    [
        {"keyed_params": {"strategy": "fine_tuning", "rate": 1, "candidate": 3, "seed": 1}},
        {"fingerprints": {"data": "other", "test": "t"}},
        {"config": {"epochs": 2, "seed": 1}},
        {"config": {"epochs": 1, "backbone": "net", "seed": 1}},
    ],
    ids=["configuration", "data", "epochs", "backbone"],
)
def test_a_training_of_something_else_is_no_repeat_of_a_trial(other):
    """Candidate number and seed alone would make it one."""
    made = {
        "config": {"epochs": 1, "backbone": "resnet18", "seed": 0},
        "fingerprints": {"data": "d", "test": "t"},
    }
    config = {"config": {**made["config"], "seed": 1}}
    assert is_repeat_of(trial(3, **made), run(3, 1, 0.9, **(made | config)))
    assert not is_repeat_of(trial(3, **made), run(3, 1, 0.9, **(made | config | other)))
    assert confirmed([trial(3, **made)], [run(3, 1, 0.9, **(made | config | other))], [1]) == []


def test_what_an_older_version_did_not_store_is_no_difference():
    old = {"config": {"epochs": 1, "seed": 0}, "fingerprints": {}}
    new = {"config": {"epochs": 1, "views": 1, "seed": 1}, "fingerprints": {"data": "d"}}
    assert is_repeat_of(trial(3, **old), run(3, 1, 0.9, **new))


def test_a_candidate_that_failed_on_most_seeds_does_not_win():
    """The one seed that it survived is the best of all."""
    stable, lucky = candidate(0, [0.90, 0.91, 0.92]), candidate(1, [None, None, 0.95])
    for how in ("best", "cheapest"):
        assert choose([stable, lucky], "accuracy", how).number == 0
    assert choose([candidate(0, [0.5, 0.6]), candidate(1, [None, 0.1])], "loss").number == 0
    found = Confirmed(
        metric="accuracy",
        seeds=[1, 2, 3],
        resplit=False,
        how="best",
        candidates=[candidate(0, [0.90, 0.91, 0.92], "feature_extraction"), lucky],
    )
    assert list(found.chosen) == ["feature_extraction", "fine_tuning"] and found.best.number == 0


def test_where_no_candidate_has_all_its_seeds_those_that_lack_the_fewest_compete_and_it_is_said():
    lacking_one, lacking_two = candidate(0, [None, 0.7, 0.7]), candidate(1, [None, None, 0.9])
    assert choose([lacking_one, lacking_two], "accuracy").number == 0
    found = Confirmed(
        metric="accuracy",
        seeds=[1, 2, 3],
        resplit=False,
        how="best",
        candidates=[lacking_one, lacking_two],
    )
    names = {"fine_tuning": "fine-tuning"}
    told = " ".join(seed_remarks(found, names))
    assert "No configuration of fine-tuning has a complete training with each of its" in told
    assert "trial 0, which lacks the fewest" in told
    assert "Trial 0: seed 1 failed once (diverged); `confirm` trains it again" in told


def test_a_training_that_was_done_again_counts_and_is_told():
    records = [
        run(3, 1, None, state="FAIL", reason="out of memory"),
        run(3, 1, 0.7),
        run(3, 2, 0.8),
    ]
    (found,) = confirmed([trial(3)], records, seeds=[1, 2])
    assert found.values == [0.7, 0.8] and found.missing == []
    assert found.as_json()["retried"] == [{"seed": 1, "reasons": ["out of memory"]}]
    everything = Confirmed(
        metric="accuracy", seeds=[1, 2], resplit=False, how="best", candidates=[found]
    )
    assert seed_remarks(everything, {"fine_tuning": "fine-tuning"}) == [
        "Trial 3: seed 1 failed once (out of memory) and was trained again."
    ]


def test_why_a_candidate_lost_all_its_seeds_is_told():
    failed = [run(4, seed, None, state="FAIL", reason="out of memory") for seed in (1, 2)]
    (lost,) = confirmed([trial(4)], failed, seeds=[1, 2])
    found = Confirmed(
        metric="accuracy", seeds=[1, 2], resplit=False, how="best", candidates=[], lost=[lost]
    )
    assert seed_remarks(found, {}) == [
        f"Trial 4: seed {seed} failed once (out of memory); `confirm` trains it again, with the "
        "same seed."
        for seed in (1, 2)
    ]
    reasons = ["out of memory"]
    assert found.as_json()["lost"] == [
        {"trial": 4, "failed": [{"seed": seed, "reasons": reasons} for seed in (1, 2)]}
    ]


def test_a_seed_counts_once_however_often_it_was_trained():
    (found,) = confirmed([trial(3)], [run(3, 1, 0.7), run(3, 1, 0.9)], seeds=[1])
    assert found.values == [0.7]


def test_with_one_seed_nobody_knows_the_error():
    assert candidate(0, [0.8]).standard_error == float("inf")
    assert candidate(0, [0.8]).as_json()["standard_error"] is None


def test_the_best_mean_is_chosen_and_not_the_best_seed():
    assert choose([candidate(0, [0.99, 0.5]), candidate(1, [0.8, 0.8])], "accuracy").number == 1
    assert choose([candidate(0, [0.9, 0.1]), candidate(1, [0.6, 0.6])], "loss").number == 0
    assert choose([], "accuracy") is None


def test_ties_go_to_the_lower_loss_and_then_to_the_earlier_trial():
    tied = [
        candidate(2, [0.8], loss=0.3),
        candidate(1, [0.8], loss=0.4),
        candidate(3, [0.8], loss=0.3),
    ]
    assert choose(tied, "accuracy").number == 2


@pytest.mark.parametrize(
    ("cheap", "number"), [([0.88, 0.90], 1), ([0.80, 0.81], 0)], ids=["within", "beyond"]
)
def test_the_cheapest_within_one_standard_error_is_chosen(cheap, number):
    found = [candidate(0, [0.88, 0.92], seconds=9.0), candidate(1, cheap, seconds=1.0)]
    assert choose(found, "accuracy", "cheapest").number == number
    assert choose(found, "accuracy", "best").number == 0


def test_seeds_that_move_all_candidates_alike_make_none_of_them_as_good():
    # Each alone is unsure by 3 points; the second is worse by a point with every seed.
    found = [
        candidate(0, [0.85, 0.90, 0.95], seconds=9.0),
        candidate(1, [0.84, 0.89, 0.941], seconds=1.0),
    ]
    assert choose(found, "accuracy", "cheapest").number == 0
    losses = [
        candidate(0, [0.25, 0.30, 0.35], seconds=9.0),
        candidate(1, [0.26, 0.31, 0.359], seconds=1.0),
    ]
    assert choose(losses, "loss", "cheapest").number == 0


def test_with_one_seed_the_cheapest_must_be_as_good():
    found = [candidate(0, [0.9], seconds=9.0), candidate(1, [0.89], seconds=1.0)]
    assert choose(found, "accuracy", "cheapest").number == 0
    found.append(candidate(2, [0.9], seconds=2.0, loss=0.9))
    assert choose(found, "accuracy", "cheapest").number == 2


def test_each_strategy_has_its_choice_and_the_better_one_is_first():
    found = Confirmed(
        metric="accuracy",
        seeds=[1, 2],
        resplit=False,
        how="best",
        candidates=[
            candidate(0, [0.9, 0.9], "feature_extraction"),
            candidate(1, [0.8, 0.8], "fine_tuning"),
            candidate(2, [0.95, 0.95], "fine_tuning"),
        ],
    )
    assert [(s, c.number) for s, c in found.chosen.items()] == [
        ("fine_tuning", 2),
        ("feature_extraction", 0),
    ]
    assert found.best.number == 2 and found.as_json()["best"] == 2
    nothing = Confirmed(metric="accuracy", seeds=[1], resplit=False, how="best", candidates=[])
    assert nothing.best is None and nothing.chosen == {}
