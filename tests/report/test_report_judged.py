"""Claims and gains are judged on images that chose nothing, as soon as there are any.

Shapes: S seeds, N images, C classes, K controls.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from studies.report.claims import judge
from studies.report.judged import Judged
from studies.report.task_b_c import gain_words
from studies.statistics.calibration import uncalibrated
from studies.statistics.paired import Measurement, with_known_result

LABELS_N = np.arange(60) % 2


def logits(num_wrong):
    called_N = np.where(np.arange(len(LABELS_N)) < num_wrong, 1 - LABELS_N, LABELS_N)
    return np.where(np.arange(2) == called_N[:, None], 2.0, -2.0)


def evidence(**changes):
    opening = SimpleNamespace(result={"by_strategy": {"fine_tuning": {"trial": 7}}})
    fields = {
        "metric": "accuracy",
        "forecasts": {"fine_tuning": SimpleNamespace(optimism=0.04)},
        "confirmed": SimpleNamespace(resplit=False),
        "evaluation": opening,
        "test_was_seen": False,
        "groups": lambda run: None,
        "best_epoch": lambda run: (LABELS_N, uncalibrated(logits(run.num_wrong))),
    }
    return SimpleNamespace(**{**fields, **changes})


def run(number, num_wrong):
    return SimpleNamespace(number=number, num_wrong=num_wrong)


TUNED = SimpleNamespace(strategy="fine_tuning", number=7, runs=[run(0, 3), run(1, 4)])
PROBE = [run(20, 10)]
TEST = {
    "labels_N": LABELS_N,
    "fine_tuning_SNC": np.stack([logits(20), logits(21)]),
    "control_numbers": np.array([11, 20]),
    "controls_KNC": np.stack([logits(50), logits(22)]),
}


def accuracies(predictions):
    labels_N, given_SNC, _ = predictions
    return [float((given_NC.argmax(axis=1) == labels_N).mean()) for given_NC in given_SNC]


def test_before_the_evaluation_there_are_only_validation_images():
    judged = Judged(evidence=evidence(), test=None)
    assert judged.images == "validation images"
    assert accuracies(judged.of_candidate(TUNED)) == [57 / 60, 56 / 60]
    assert accuracies(judged.of_controls(PROBE)) == [50 / 60]


def test_behind_it_the_stored_predictions_for_test_images_judge():
    judged = Judged(evidence=evidence(), test=TEST)
    assert judged.images == "test images"
    assert accuracies(judged.of_candidate(TUNED)) == [40 / 60, 39 / 60]
    assert accuracies(judged.of_controls(PROBE)) == [38 / 60]


def test_a_choice_that_was_not_evaluated_and_controls_without_predictions_give_none():
    judged = Judged(evidence=evidence(), test=TEST)
    other = SimpleNamespace(strategy="fine_tuning", number=8, runs=TUNED.runs)
    assert judged.of_candidate(other) is None and judged.of_candidate(None) is None
    assert judged.of_controls([run(99, 0)]) is None and judged.of_controls([]) is None


def test_every_seed_with_images_of_its_own_gives_none():
    apart = evidence(confirmed=SimpleNamespace(resplit=True))
    assert Judged(evidence=apart, test=None).of_candidate(TUNED) is None


def difference(test, metric="accuracy", chosen=("fine_tuning", None), **changes):
    judged = Judged(evidence=evidence(**changes), test=test)
    pair = judged.of_candidate(TUNED), judged.of_controls(PROBE)
    return judged.difference(metric, *pair, chosen=chosen)


def test_the_optimism_of_a_choice_goes_with_its_difference_on_images_that_chose_it():
    assert difference(None).optimism == (0.04, 0.0)
    assert difference(None, chosen=(None, None)).optimism is None
    assert difference(TEST).optimism is None


@pytest.mark.parametrize("changes", [{"forecasts": {}}, {"metric": "loss"}])
def test_an_optimism_that_nobody_knows_has_no_bound(changes):
    assert difference(None, **changes).optimism == (float("inf"), 0.0)


def gain(low, high, optimism=None):
    return Measurement(value=(low + high) / 2, low=low, high=high, p=0.01, optimism=optimism)


@pytest.mark.parametrize(
    ("found", "metric", "words"),
    [
        (gain(0.01, 0.05), "accuracy", "the search helped"),
        (gain(-0.05, -0.01), "accuracy", "the search did harm"),
        (gain(-0.05, -0.01), "loss", "the search helped"),
        (gain(-0.01, 0.05), "accuracy", "not shown to help"),
        (gain(0.01, 0.05, (0.02, 0.0)), "accuracy", "not judged: these images chose it"),
        (gain(0.03, 0.05, (0.02, 0.0)), "accuracy", "the search helped"),
        (
            with_known_result(gain(0.03, 0.05)),
            "accuracy",
            "not judged: these images may have chosen it, as a result on them was known",
        ),
    ],
)
def test_a_gain_is_told_as_its_interval_allows(found, metric, words):
    assert gain_words(found, 3, 3, metric) == words


@pytest.mark.parametrize("seeds", [(3, 1), (1, 3)])
def test_a_gain_over_one_training_is_not_judged(seeds):
    assert gain_words(gain(0.01, 0.05), *seeds, "accuracy").startswith("not judged: with one seed")


def test_images_whose_result_was_known_before_judge_no_difference_of_a_choice():
    """Whoever saw it may have chosen by it: an opening that is the second one chose."""
    assert difference(TEST, test_was_seen=True).optimism == (float("inf"), float("inf"))
    assert judge(difference(TEST, test_was_seen=True)) == "not judged"
    assert difference(TEST, chosen=(None, None), test_was_seen=True).optimism is None
