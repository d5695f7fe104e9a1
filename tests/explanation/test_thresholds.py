"""A threshold known before, and the best one, which nobody could have known."""

import json

import numpy as np
import pytest
from planted import evidence, seen

from studies.explanation.thresholds import find_thresholds
from studies.statistics.calibration import called


def thresholds(metric="accuracy", seed=0, **planted):
    val, test = seen(evidence(seed, **planted))
    return find_thresholds(
        metric, val.labels_N, val.probabilities_SNC, test.labels_N, test.probabilities_SNC
    )


def test_values_are_those_of_calling_by_each_seeds_threshold():
    _, test = seen(evidence(0, bias=1.0))
    found = thresholds(bias=1.0)
    by_hand = [
        (called(p_NC, threshold) == test.labels_N).mean()
        for p_NC, threshold in zip(test.probabilities_SNC, found.thresholds, strict=True)
    ]
    assert found.at_threshold == pytest.approx(np.mean(by_hand))
    plain = (test.probabilities_SNC.argmax(axis=2) == test.labels_N).mean()
    assert found.most_probable == pytest.approx(plain)


def test_the_best_is_the_best_of_all_thresholds():
    _, test = seen(evidence(0, num_test=60, shift=1.0))
    found = thresholds(num_test=60, shift=1.0)
    best = [
        max((called(p_NC, t) == test.labels_N).mean() for t in np.linspace(0, 1.001, 5000))
        for p_NC in test.probabilities_SNC
    ]
    assert found.at_best.value == pytest.approx(np.mean(best), abs=1e-9)
    assert found.at_best.value >= max(found.at_threshold, found.most_probable)


def test_a_biased_model_is_helped_by_a_threshold_from_validation_images():
    found = thresholds(bias=1.2)
    assert found.change.low > 0 and found.change.value > 0.03


def test_where_only_test_images_have_moved_it_does_not_help_and_the_best_one_does():
    found = thresholds(shift=1.0, num_test=400)
    assert found.change.low < 0.01 and found.best_change.low > 0


def test_without_a_cause_the_threshold_is_not_found_to_matter():
    outside = [not (f := thresholds(seed=s).change).low <= 0 <= f.high for s in range(20)]
    assert sum(outside) <= 4


def test_three_images_are_no_proof():
    labels_N = np.repeat([0, 1], 50)
    p_N = np.where(labels_N == 1, 0.9, 0.1)
    test_N = p_N.copy()
    test_N[:3] = 0.45
    val_N = np.where(p_N > 0.5, 0.45, 0.1)  # So that the threshold is below 0.45.
    pairs = [np.stack([1 - p, p], axis=1)[None] for p in (val_N, test_N)]
    found = find_thresholds("accuracy", labels_N, pairs[0], labels_N, pairs[1])
    assert found.change.value == pytest.approx(-0.03)
    assert found.change.high > 0


@pytest.mark.parametrize(
    ("metric", "used"), [("auroc", "accuracy"), ("loss", "accuracy"), ("f1", "f1")]
)
def test_metrics_that_need_probabilities_leave_it_to_accuracy(metric, used):
    assert thresholds(metric).metric == used


def test_more_than_two_classes_have_no_threshold():
    labels_N = np.arange(30) % 3
    p_SNC = np.full((1, 30, 3), 1 / 3)
    assert find_thresholds("accuracy", labels_N, p_SNC, labels_N, p_SNC) is None


def test_json_says_that_the_best_one_is_not_attainable():
    told = json.loads(json.dumps(thresholds().as_json(), allow_nan=False))
    assert told["best"]["attainable"] is False
    assert told["best"]["low"] <= told["best"]["value"] <= told["best"]["high"] <= 1
