"""The notes of a study, its repeats and its controls: what a person must know of them."""

import re
from dataclasses import replace

import pytest
from bundles import run_study

from studies.dashboard.notes import METRICS, confirm_note, controls_note, search_note
from studies.database.storage import create_study, open_storage
from studies.database.study import write_confirm, write_search
from studies.results.controls import alarms, read_learned
from studies.results.study import read_evidence
from transfer.config import METRICS as SEARCHED
from transfer.config import TITLES


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return run_study(tmp_path_factory.mktemp("made"), trials=6)


@pytest.fixture(scope="module")
def evidence(database):
    return read_evidence(open_storage(database), "s")


@pytest.fixture
def unconfirmed(tmp_path):
    return read_evidence(open_storage(run_study(tmp_path, trials=2, confirm=False)), "s")


def shown(note):
    """As Markdown shows it."""
    return re.sub(r"\\(.)", r"\1", note)


def test_the_note_has_question_data_space_and_commands(evidence, database):
    note = shown(search_note(evidence))
    assert "Which is better on these images" in note
    assert "| NORMAL | 24 | 6 | 10 |" in note and "source phantom:train=60" in note
    assert "| learning_rate | feature extraction | 0.001 to 0.01, logarithmic |" in note
    assert "tiny: 4 combinations" in note or "tiny:" in note
    assert "Sampled by TPE, each strategy on its own with an equal share of the trials" in note
    assert "seed 0; at most 3 epochs, patience 5" in note
    for command in ("run --name s", "status s", "confirm s", "report s", "export s"):
        assert f"    python -m studies {command} --storage {database}" in note


def test_the_note_names_the_metric_and_says_how_far_the_study_is(evidence):
    note = shown(search_note(evidence))
    assert "trials: 6 of 6: 6 complete, 0 pruned" in note
    assert f"value of a trial: accuracy: {METRICS['accuracy']}" in note
    assert "the test images: are sealed" in note


def test_every_metric_of_a_study_is_explained():
    assert set(METRICS) == set(SEARCHED)


def test_the_best_of_each_strategy_stand_there_with_what_they_are_worth(evidence):
    note = shown(search_note(evidence))
    for strategy, words in TITLES.items():
        best = evidence.best(strategy)
        said = rf"best of \d by {words}: trial {best.number}, {100 * best.value:.1f} %"
        assert re.search(said, note)
        complete = [t for t in evidence.of_strategy(strategy) if t.state == "COMPLETE"]
        losses = [trial.best["val"]["calibrated_loss"] for trial in complete]
        assert best.best["val"]["calibrated_loss"] == min(losses)
    assert "too good, both" in note


def test_before_the_first_trial_there_is_nothing_to_judge(evidence):
    note = shown(search_note(replace(evidence, trials=[], confirmed=None)))
    assert "No verdict yet: no trial has ended." in note and "too good" not in note


def test_what_ran_first_is_what_was_stored_as_the_opening(tmp_path):
    given = {"space": "demo", "weights": "random", "epochs": 2, "confirm": False}
    url = run_study(tmp_path, trials=4, data="phantom:train=40,test=20,size=32", **given)
    evidence = read_evidence(open_storage(url), "s")
    assert evidence.trials[0].keyed_params == evidence.study.opening[0]
    listed = shown(search_note(evidence)).partition("probes first:")[2].partition("##")[0]
    assert listed.count("\n- ") == len(evidence.study.opening) == 4
    assert "learning_rate 0.0001" in listed


@pytest.mark.parametrize(("pruner", "words"), [("median", "once 4 of them"), ("none", "no trial")])
def test_pruning_is_explained(evidence, pruner, words):
    evidence.study.identity["settings"]["pruner"] = pruner
    assert words in shown(search_note(evidence))


def test_before_confirming_there_is_no_verdict(unconfirmed):
    note = shown(search_note(unconfirmed))
    assert "No verdict yet: the best trials were not trained again over seeds" in note


def test_after_confirming_the_verdict_stands_in_both_notes(evidence):
    sentence = evidence.comparison.sentence
    assert sentence in shown(search_note(evidence))
    assert sentence in shown(confirm_note(evidence))


def test_repeats_say_why_which_seeds_and_what_each_gave(evidence):
    note = shown(confirm_note(evidence))
    assert "trainings: 4 of 4 finished" in note and "seeds: 1, 2" in note
    for candidate in evidence.confirmed.candidates:
        values = ", ".join(f"{100 * value:.1f} %" for value in candidate.values)
        assert f"| {candidate.number} (chosen) |" in note and values in note
    assert "These trials never feed the sampler" in note


def test_repeats_that_are_not_finished_give_no_verdict(evidence):
    unfinished = replace(evidence, confirming=(3, 4))
    note = shown(confirm_note(unfinished))
    assert "3 of 4 finished" in note and "## Verdict" not in note and "(chosen)" not in note
    note = shown(search_note(unfinished))
    assert "No verdict yet: confirming is not finished (3 of 4 trainings)." in note
    assert "configuration found in" not in note


def test_where_all_seeds_of_a_strategy_failed_there_is_no_verdict(evidence):
    mine = [c for c in evidence.confirmed.candidates if c.strategy == "fine_tuning"]
    half = replace(evidence, confirmed=replace(evidence.confirmed, candidates=mine))
    note = shown(search_note(half))
    assert "No verdict: of one strategy no training over seeds is complete." in note


def test_repeats_before_the_first_is_complete_are_explained_as_well(unconfirmed):
    confirm = create_study(unconfirmed.storage, "s/confirm", "accuracy")
    write_search(confirm, unconfirmed.study.search_id)
    write_confirm(confirm, {"candidates": [0], "seeds": [1], "resplit": True, "choose": "best"})
    note = shown(confirm_note(read_evidence(unconfirmed.storage, "s")))
    assert "drawn anew for every seed" in note and "(chosen)" not in note


def test_controls_stand_there_with_their_values(evidence):
    note = shown(controls_note(evidence))
    assert "| majority |   |   | 50.0 % |" in note
    for control in evidence.controls[1:]:
        name, value = control.params["control"], f"{100 * control.value:.1f} %"
        assert f"| {name} | resnet18 | random | {value} |" in note
    assert "What the search must beat" in note


def test_an_alarm_stands_in_the_note_of_the_controls(evidence):
    """Random weights and a dozen images: nothing was learned."""
    learned = read_learned(evidence.storage, evidence.confirmed, evidence.counts)
    lines = alarms(learned, TITLES)
    assert lines and all(line in shown(controls_note(evidence)) for line in lines)
