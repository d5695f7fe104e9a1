"""Side by side: each strategy's best with its interval, time saved, the early verdict."""

import numpy as np
import pytest
from made_up_trials import epoch, record

from studies.results.comparison import compare, interim_verdict, seconds_saved
from studies.statistics.intervals import wilson_interval

NUM_VAL = 400


PROBE, TUNED = "feature_extraction", "fine_tuning"


def test_each_strategy_stands_with_its_best_trial_the_better_one_first():
    records = [
        record(0, PROBE, 0.80),
        record(1, PROBE, 0.85),
        record(2, TUNED, 0.8225),
        record(3, TUNED, 0.60, state="PRUNED"),
    ]
    summaries = compare(records, "accuracy", NUM_VAL)
    assert list(summaries) == [PROBE, TUNED]
    assert [s.best.number for s in summaries.values()] == [1, 2]
    assert summaries[PROBE].accuracy_interval == wilson_interval(340, 400)
    assert (summaries[TUNED].num_trials, summaries[TUNED].num_pruned) == (2, 1)
    assert summaries[TUNED].seconds == 20.0


def test_accuracy_is_shown_whatever_the_metric():
    poor = record(0, PROBE, 0.3, history=[epoch(1, 0.8, loss=0.3)])
    good = record(1, PROBE, 0.2, history=[epoch(1, 0.7, loss=0.2)])
    (summary,) = compare([poor, good], "loss", NUM_VAL).values()
    assert (summary.value, summary.accuracy) == (0.2, 0.7)


def test_interrupted_trials_and_duplicates_are_not_in_the_sums():
    records = [
        record(0, PROBE, 0.8),
        record(1, PROBE, None, state="FAIL", reason="interrupted"),
        record(2, PROBE, 0.8, duplicate_of=0),
    ]
    summary = compare(records, "accuracy", NUM_VAL)[PROBE]
    assert (summary.num_trials, summary.seconds) == (1, 10.0)


def test_a_strategy_without_a_complete_trial_is_left_out():
    assert compare([record(0, TUNED, 0.6, state="PRUNED")], "accuracy", NUM_VAL) == {}


@pytest.mark.parametrize(
    ("state", "num_epochs", "saved"), [("PRUNED", 4, 11 * 2.0), ("COMPLETE", 4, 0.0)]
)
def test_pruning_saves_the_epochs_that_were_not_run(state, num_epochs, saved):
    history = [epoch(i + 1, 0.5) for i in range(num_epochs)]
    assert seconds_saved([record(0, TUNED, 0.5, state=state, history=history)], 15) == saved


def test_a_duplicate_of_a_pruned_trial_saves_nothing():
    pruned = record(1, TUNED, 0.5, state="PRUNED", duplicate_of=0, history=[], timing={})
    assert seconds_saved([pruned], 15) == 0


def calls(accuracy, num_val=NUM_VAL, shift=0):
    """Labels and probabilities of a model that is wrong on the images from ``shift`` on."""
    labels_N = np.arange(num_val) % 2
    wrong_N = np.zeros(num_val, bool)
    wrong_N[shift : shift + round((1 - accuracy) * num_val)] = True
    called_N = np.where(wrong_N, 1 - labels_N, labels_N)
    return labels_N, np.where(np.arange(2) == called_N[:, None], 0.9, 0.1), None


def test_no_verdict_before_a_probe_is_complete():
    assert interim_verdict([record(0, TUNED, 0.9)], "accuracy", NUM_VAL, lambda _: None) is None


BOTH = [record(0, PROBE, 0.84, "resnet50"), record(1, PROBE, 0.85, "mobilenet_v2")]


def test_the_early_verdict_names_every_backbone_with_its_interval():
    verdict = interim_verdict(BOTH, "accuracy", NUM_VAL, lambda _: None)
    assert verdict.index("mobilenet_v2 85.0%") < verdict.index("resnet50 84.0%")
    assert "[81.2%, 88.2%]" in verdict and "over" not in verdict


@pytest.mark.parametrize(
    ("first", "second", "shift", "told"),
    [
        (0.85, 0.82, 0, "better"),
        (0.85, 0.82, 200, "not shown to differ"),
    ],
)
def test_the_first_two_are_compared_on_the_same_images(first, second, shift, told):
    # Their own intervals overlap in both cases; in one the second errs where the first does.
    predictions = {1: calls(first), 0: calls(second, shift=shift)}
    verdict = interim_verdict(BOTH, "accuracy", NUM_VAL, lambda record: predictions[record.number])
    assert "mobilenet_v2 over resnet50 +3.0 points" in verdict
    assert verdict.endswith(f": {told}.")


def test_of_too_few_subjects_the_early_verdict_says_so_and_the_study_goes_on():
    labels_N, given_NC, _ = calls(0.84)
    verdict = interim_verdict(BOTH, "accuracy", 2, lambda _: (labels_N, given_NC, labels_N))
    assert "too few validation images or subjects to tell which is better" in verdict
