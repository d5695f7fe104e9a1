"""Candidates are the best of each strategy; the choice is made on the mean over seeds."""

from types import SimpleNamespace

import pytest

from studies.confirm import Candidate, Confirmed, candidates, choose, confirm_seeds, confirmed


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
        "keyed_params": {"strategy": strategy, "number": number},
        "timing": {"training": 1.0, "validation": 0.5},
    }
    return SimpleNamespace(**{**fields, **changes})


def run(candidate, seed, value, loss=0.5, seconds=1.0, **changes):
    """A training of a candidate over a seed."""
    params = {"candidate": candidate, "seed": seed}
    timing = {"training": seconds, "validation": 0.0}
    return trial(100 + seed, value=value, loss=loss, params=params, timing=timing, **changes)


def candidate(number, values, strategy="fine_tuning", seconds=1.0, loss=0.5):
    runs = [run(number, seed, v, loss, seconds) for seed, v in enumerate(values, start=1)]
    return Candidate(number=number, strategy=strategy, configuration={}, runs=runs)


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
    (found,) = confirmed(chosen, records, seeds=[1, 2, 3])
    assert (found.number, found.values) == (3, [0.7, 0.8])
    assert found.mean == pytest.approx(0.75)
    assert found.standard_error == pytest.approx(0.05)


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
