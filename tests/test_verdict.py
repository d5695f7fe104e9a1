"""The verdict is worded as the interval allows, and says what it would take to tell.

Shapes: S seeds, N images, C classes. See test_verdict_simulated.py for what it is worth.
"""

import numpy as np
import pytest

from studies.scores import METRICS
from studies.verdict import difference_over_seeds, disagreement, images_needed, verdict_sentence

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


def test_the_same_models_are_not_distinguishable_and_the_sentence_says_what_would_be_needed():
    same = runs(LABELS_N, (20, 24, 22))
    found = difference_over_seeds(ACCURACY, LABELS_N, same, same)
    assert (found.value, found.verdict) == (0.0, "not distinguishable") and found.p > 0.05
    needed = images_needed(
        0.02,
        image_variance=found.image_variance,
        seed_variance=found.seed_variance,
        num_seeds=3,
    )
    text = verdict_sentence(found, "accuracy", 200, 3, 0.02, needed)
    assert text.startswith("not distinguishable with 200 test images and 3 seeds; a difference of")
    assert "2 points would need about" in text and "better" not in text


def test_with_one_seed_it_is_said_that_seeds_are_not_known():
    good, bad = runs(LABELS_N, (4,)), runs(LABELS_N, (60,))
    found = difference_over_seeds(ACCURACY, LABELS_N, good, bad)
    assert not found.seeds_known
    needed = images_needed(0.02, image_variance=found.image_variance)
    text = verdict_sentence(found, "accuracy", 200, 1, 0.02, needed)
    assert "these two models alone" in text and text.startswith("better by 28.0 points")


def test_a_smaller_margin_needs_more_images_and_seeds_alone_may_hide_it():
    few, many = (images_needed(m, image_variance=0.1).images for m in (0.05, 0.01))
    assert 0 < few < many
    hidden = images_needed(0.02, image_variance=0.1, seed_variance=4e-4, num_seeds=3)
    assert hidden.images is None and hidden.seeds > 3
    for margin, variance in ((0.0, 0.1), (0.02, 0.0), (0.02, float("inf"))):
        with pytest.raises(ValueError, match="must hold"):
            images_needed(margin, image_variance=variance)


def test_disagreement_counts_images_on_which_one_alone_is_right():
    found = disagreement(LABELS_N, runs(LABELS_N, (10,)), runs(LABELS_N, (30,)))
    assert found == pytest.approx((20 + 2) / (200 + 2))
