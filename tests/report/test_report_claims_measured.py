"""What claims rest on is read from the trainings over seeds of both choices.

Shapes: E epochs, N images, C classes.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from studies.report.judged import measured

LABELS_N = np.arange(40) % 2


def probabilities(num_wrong, sure=0.8):
    called_N = np.where(np.arange(40) < num_wrong, 1 - LABELS_N, LABELS_N)
    return np.where(np.arange(2) == called_N[:, None], sure, 1 - sure)


def run(number, seconds, **changes):
    """A training of three epochs, the second of which was kept; the last is worse and surer."""
    fields = {
        "number": number,
        "best_epoch": 2,
        "timing": {"training": 0.9 * seconds, "validation": 0.1 * seconds},
        "history": [
            {"training_seconds": 0.3 * seconds, "validation_seconds": seconds / 30}
            for _ in range(3)
        ],
        "peak_memory_bytes": 10 * number + 1,
        "num_trainable_parameters": 5,
        "similarity": None,
        "train_metrics": None,
    }
    return SimpleNamespace(**{**fields, **changes})


def candidate(strategy, seconds, **changes):
    runs = [run(i, s, **changes) for i, s in enumerate(seconds)]
    return SimpleNamespace(
        strategy=strategy, number=1, configuration={"backbone": "net"}, runs=runs
    )


def evidence(tuned, extracted, resplit=False):
    found = {"fine_tuning": tuned, "feature_extraction": extracted}
    epochs_ENC = np.stack([probabilities(6), probabilities(2), probabilities(9, 0.99)])
    return SimpleNamespace(
        metric="accuracy",
        candidate=found.get,
        controls=[],
        confirmed=SimpleNamespace(resplit=resplit),
        evaluation=None,
        forecasts={},
        num_images=lambda split: 100,
        best_epoch=lambda run: (LABELS_N, probabilities(2)),
        epochs=lambda run: (LABELS_N, epochs_ENC),
        groups=lambda run: None,
    )


def found(resplit=False, **changes):
    tuned = candidate("fine_tuning", [10.0, 12.0], **changes)
    return measured(evidence(tuned, candidate("feature_extraction", [1.0, 1.1]), resplit))


def test_costs_are_those_of_the_two_choices_over_seeds():
    costs = found()
    assert costs.seconds_ratio.value == pytest.approx((10 * 12 / 1.1) ** 0.5)
    assert costs.seconds_to_best_ratio.value == pytest.approx(costs.seconds_ratio.value)
    assert costs.seconds_ratio.low > 1


def test_harm_is_told_by_the_epochs_and_needs_images_that_seeds_share():
    assert found().tuned_harm.value > 0.5 and found().tuned_harm.low > 0
    assert found(resplit=True).tuned_harm is None


def test_a_gap_is_that_of_the_kept_network_or_not_measured():
    assert found().tuned_gap is None
    known = found(train_metrics={"accuracy": 1.0})
    assert known.tuned_gap.value == pytest.approx(2 / 40) and known.extracted_gap is None
