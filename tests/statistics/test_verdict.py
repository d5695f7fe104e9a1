"""The difference of two strategies over seeds and images, and its sign.

Shapes: S seeds, N images, C classes. See test_verdict_simulated.py for what it is worth.
"""

import numpy as np
import pytest

from studies.statistics.intervals import bootstrap_over_seeds
from studies.statistics.metrics import METRICS
from studies.statistics.paired import difference_over_seeds, disagreement

ACCURACY = METRICS["accuracy"]


def runs(labels_N, wrong_by_seed):
    called = [
        np.where(np.arange(len(labels_N)) < n, 1 - labels_N, labels_N) for n in wrong_by_seed
    ]
    return np.stack([np.where(np.arange(2) == c_N[:, None], 0.9, 0.1) for c_N in called])


LABELS_N = np.arange(200) % 2


def test_a_sure_difference_is_better_one_way_and_worse_the_other():
    good, bad = runs(LABELS_N, (4, 6, 5)), runs(LABELS_N, (60, 64, 62))
    found = difference_over_seeds(ACCURACY, LABELS_N, good, bad)
    assert found.verdict == "better" and found.low > 0 and found.p < 0.05
    assert found.value == pytest.approx(57 / 200)
    other = difference_over_seeds(ACCURACY, LABELS_N, bad, good)
    assert other.verdict == "worse" and other.value == pytest.approx(-found.value)
    loss = difference_over_seeds(METRICS["loss"], LABELS_N, good, bad)
    assert loss.value < 0 and loss.verdict == "better"


def test_the_same_models_are_undecided_at_zero():
    same = runs(LABELS_N, (20, 24, 22))
    found = difference_over_seeds(ACCURACY, LABELS_N, same, same)
    assert (found.value, found.verdict) == (0.0, "undecided") and found.p > 0.05


def test_with_one_seed_seeds_are_not_known():
    good, bad = runs(LABELS_N, (4,)), runs(LABELS_N, (60,))
    assert not difference_over_seeds(ACCURACY, LABELS_N, good, bad).seeds_known


def test_disagreement_counts_images_on_which_one_alone_is_right():
    found = disagreement(LABELS_N, runs(LABELS_N, (10,)), runs(LABELS_N, (30,)))
    assert found == pytest.approx((20 + 2) / (200 + 2))


def test_of_a_metric_of_ones_own_less_may_be_better():
    def errors(labels_N, p_NC):
        return float((p_NC.argmax(axis=1) != labels_N).mean())

    good, bad = runs(LABELS_N, (4, 6, 5)), runs(LABELS_N, (60, 64, 62))
    found = difference_over_seeds(
        errors, LABELS_N, good, bad, larger_is_better=False, num_resamples=200
    )
    assert found.value < 0 and found.verdict == "better"


@pytest.mark.parametrize("shape", [(200, 2), (0, 200, 2), (3, 100, 2)])
def test_predictions_without_seeds_or_of_other_images_are_refused(shape):
    with pytest.raises(ValueError):
        difference_over_seeds(ACCURACY, LABELS_N, np.full(shape, 0.5), runs(LABELS_N, (4,)))


def test_images_that_are_hard_for_both_strategies_decide_nothing():
    # Both are wrong on 40 images of 200, and one on 8 more: 4 points, 2 standard errors of the
    # images that tell, but half of one of the images' own.
    a, b = runs(LABELS_N, (40, 40)), runs(LABELS_N, (48, 48))
    found = difference_over_seeds(ACCURACY, LABELS_N, a, b)
    alone = bootstrap_over_seeds(ACCURACY, LABELS_N, a)
    assert found.verdict == "better"
    assert found.high - found.low < 0.7 * (alone.high - alone.low)
