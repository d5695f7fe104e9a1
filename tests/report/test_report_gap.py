"""The over-fitting that Task D shows is that of the networks that were kept."""

from types import SimpleNamespace

import numpy as np
import pytest

from studies.report.judged import Judged, _gap

NUM_VAL = 40


def run(train_accuracy):
    """A training that on its way looked perfect on the training images."""
    return SimpleNamespace(
        best={"train": {"accuracy": 1.0}, "val": {"accuracy": 0.75}},
        train_metrics=None if train_accuracy is None else {"accuracy": train_accuracy},
    )


def gap(*train_accuracies):
    """Of networks that are right on three of four validation images."""
    labels_N = np.zeros(NUM_VAL, dtype=np.int64)
    right_N = np.arange(NUM_VAL) % 4 > 0
    probabilities_NC = np.column_stack((right_N, ~right_N)).astype(np.float64)
    evidence = SimpleNamespace(
        confirmed=None,
        best_epoch=lambda run: (labels_N, probabilities_NC),
        groups=lambda run: None,
    )
    runs = [run(accuracy) for accuracy in train_accuracies]
    return _gap(Judged(evidence=evidence, test=None), SimpleNamespace(runs=runs))


def test_the_gap_is_measured_on_the_kept_networks_and_not_on_the_way_there():
    found = gap(0.85, 0.95)
    assert found.value == pytest.approx(0.9 - 0.75)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("unmeasured", [(None, 0.95), (None, None)])
def test_without_a_measurement_of_every_seed_there_is_no_gap(unmeasured):
    assert gap(*unmeasured) is None
