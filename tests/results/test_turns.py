"""Whose turn it is, and what each strategy has had."""

from types import SimpleNamespace

import pytest

from studies.results.turns import next_strategy, share_json, share_lines, share_of, spent_on

EXTRACTION, TUNING = "feature_extraction", "fine_tuning"


def record(strategy, seconds=1.0, state="COMPLETE", counts=True):
    running = state == "RUNNING"
    return SimpleNamespace(
        strategy=strategy,
        seconds=None if running else seconds,
        state=state,
        counts=counts and not running,
    )


def turns(records, share="trials", num_turns=6, seconds=None):
    """Who is next, again and again, with trials of these seconds."""
    records, given = list(records), []
    for _ in range(num_turns):
        given.append(next_strategy(share, (EXTRACTION, TUNING), records))
        records.append(record(given[-1], (seconds or {}).get(given[-1], 1.0)))
    return given


def test_equal_shares_of_the_trials_alternate_whatever_they_take():
    seconds = {EXTRACTION: 0.1, TUNING: 100.0}
    assert turns([], seconds=seconds) == [EXTRACTION, TUNING] * 3


def test_a_strategy_that_is_behind_catches_up():
    assert turns([record(EXTRACTION)] * 3) == [TUNING] * 3 + [EXTRACTION, TUNING, EXTRACTION]


def test_equal_shares_of_the_seconds_give_the_next_trial_to_who_has_spent_less():
    given = turns([], "seconds", 9, {EXTRACTION: 1.0, TUNING: 3.5})
    assert given == [EXTRACTION, TUNING] + [EXTRACTION] * 3 + [TUNING] + [EXTRACTION] * 3


def test_a_running_trial_is_taken_to_last_as_long_as_others_of_its_strategy():
    records = [record(EXTRACTION, 4.0), record(TUNING, 3.0), record(TUNING, state="RUNNING")]
    assert next_strategy("seconds", (EXTRACTION, TUNING), records) == EXTRACTION
    assert spent_on(TUNING, records).seconds == 6.0


@pytest.mark.parametrize("share", ["trials", "seconds"])
def test_of_several_workers_at_the_start_each_takes_another_strategy(share):
    running = [record(EXTRACTION, state="RUNNING")]
    assert next_strategy(share, (EXTRACTION, TUNING), running) == TUNING


@pytest.mark.parametrize("share", ["trials", "seconds"])
def test_one_strategy_alone_has_every_turn(share):
    assert next_strategy(share, (TUNING,), [record(TUNING)] * 5) == TUNING


def test_what_does_not_count_is_nobodys_share():
    lost = record(EXTRACTION, counts=False, state="FAIL")
    assert spent_on(EXTRACTION, [lost, record(EXTRACTION)]).trials == 1


def test_shares_are_told_by_strategy_in_words_and_as_json():
    records = [record(EXTRACTION, 1.0), record(EXTRACTION, 2.0), record(TUNING, 30.0)]
    (line,) = share_lines("trials", records)
    assert "by trials: feature extraction 2 (3.0 s), fine-tuning 1 (30.0 s)" in line
    assert share_json("seconds", records) == {
        "of": "seconds",
        EXTRACTION: {"trials": 2, "seconds": 3.0},
        TUNING: {"trials": 1, "seconds": 30.0},
    }
    assert share_lines("trials", records[:2]) == []


def test_a_study_of_before_there_were_shares_goes_on_with_equal_trials():
    assert share_of({}) == "trials" and share_of({"share": "seconds"}) == "seconds"
