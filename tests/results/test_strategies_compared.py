"""Fine-tuning against feature extraction: what was compared, and how it is judged."""

import numpy as np
import pytest

from studies.results.comparison import Choice, compare_strategies

CHOICES = (Choice(trial=12, num_trials=15), Choice(trial=3, num_trials=14))


def said(accuracy, num_images=400, num_seeds=3, seed=0, num_classes=2):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % num_classes
    is_right_SN = rng.random((num_seeds, num_images)) < accuracy
    called_SN = np.where(is_right_SN, labels_N, (labels_N + 1) % num_classes)
    sure_SN = rng.uniform(0.6, 0.9, called_SN.shape)[..., None]
    rest_SN = (1 - sure_SN) / (num_classes - 1)
    return labels_N, np.where(np.arange(num_classes) == called_SN[..., None], sure_SN, rest_SN)


def compared(first, second, metric="accuracy", margin=0.02, optimism=None, **given):
    labels_N, first_SNC = said(first, seed=1, **given)
    _, second_SNC = said(second, seed=2, **given)
    return compare_strategies(
        metric,
        labels_N,
        first_SNC,
        second_SNC,
        margin=margin,
        choices=CHOICES,
        optimism=optimism,
    )


@pytest.mark.parametrize(
    ("first", "second", "margin", "verdict"),
    [
        (0.95, 0.7, 0.02, "better"),
        (0.7, 0.95, 0.02, "worse"),
        (0.8, 0.8, 0.02, "undecided"),
        (0.8, 0.8, 0.2, "as good as"),
        (0.8, 0.8, None, "undecided"),
    ],
)
def test_the_verdict_follows_the_interval_and_the_margin(first, second, margin, verdict):
    told = compared(first, second, margin=margin).as_json()
    assert told["verdict"] == verdict and told["margin"] == margin
    assert (told["low"] > 0 or told["high"] < 0) == (verdict in ("better", "worse"))
    assert (told["p"] < 0.05) == (verdict in ("better", "worse"))
    assert (told["within_margin"] is True) == (verdict == "as good as")
    assert (told["needed"] is not None) == (verdict == "undecided" and margin is not None)


def test_the_sentence_says_which_configurations_were_compared_and_how_they_were_found():
    text = compared(0.95, 0.7).sentence
    assert text.startswith(
        "The fine-tuning configuration found in 15 trials (trial 12) is better than the feature "
        "extraction found in 14 trials (trial 3) by "
    )
    assert "trained on these training images (400 test images, taken as independent, " in text
    assert text.endswith("3 seeds of each).")


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_on_images_that_chose_both_the_verdict_allows_for_what_that_may_have_added(metric):
    """For each side by its own: what flatters the one that lies behind makes it no better."""
    plain = compared(0.9, 0.8, metric)
    sign = 1 if metric == "accuracy" else -1
    low = min(sign * plain.difference.low, sign * plain.difference.high)
    assert plain.verdict == "better" and low > 0
    small, large = (compared(0.9, 0.8, metric, optimism=(s * low, 0.5)) for s in (0.9, 1.1))
    assert small.verdict == "better" and small.difference == plain.difference
    assert large.verdict == "not worse" or large.verdict == "undecided"
    other = compared(0.8, 0.9, metric)
    high = -max(sign * other.difference.low, sign * other.difference.high)
    mirrored = [compared(0.8, 0.9, metric, optimism=(0.5, s * high)) for s in (0.9, 1.1)]
    assert mirrored[0].verdict == "worse" and mirrored[1].verdict != "worse"
    assert large.as_json()["optimism"] == [1.1 * low, 0.5] and plain.as_json()["optimism"] is None


def test_where_nobody_knows_what_the_choice_has_added_nothing_is_judged():
    found = compared(0.95, 0.7, optimism=(0.0, float("inf")))
    assert found.verdict == "better"  # What flatters feature extraction can't be it.
    found = compared(0.95, 0.7, optimism=(float("inf"), 0.0))
    assert found.verdict == "undecided" and "it may be any amount" in found.sentence
    assert found.as_json()["optimism"] == [None, 0.0]


def test_a_smaller_loss_is_better():
    found = compared(0.95, 0.7, metric="loss")
    assert found.difference.value < 0 and found.verdict == "better"


def test_what_can_not_be_told_says_what_it_would_need():
    found = compared(0.8, 0.8)
    assert found.needed is not None and found.needed.images_with_seeds > 400
    assert "to show 2 points would take about" in found.sentence


def test_of_images_that_chose_no_number_would_tell():
    """Where the choice alone makes it undecided, more of the same images help nobody."""
    found = compared(0.9, 0.9, optimism=(0.05, 0.05))
    assert found.verdict == "undecided" and found.needed is None
    assert "is undecided" in found.sentence and "would take" not in found.sentence
    assert found.as_json()["needed"] is None


def test_a_margin_out_of_reach_is_said_to_be():
    labels_N, first_SNC = said(0.8, seed=1)
    _, second_SNC = said(0.8, seed=2)
    found = compare_strategies(
        "accuracy", labels_N, first_SNC, second_SNC, margin=1e-5, choices=CHOICES
    )
    assert found.needed is None and "more than could be had" in found.sentence
    assert found.as_json()["needed"] is None


def test_images_have_the_name_that_they_are_given():
    labels_N, first_SNC = said(0.8, seed=1)
    given = {"margin": 0.02, "choices": CHOICES, "images": "validation image"}
    found = compare_strategies("accuracy", labels_N, first_SNC, first_SNC[::-1], **given)
    assert "400 validation images" in found.sentence and "test image" not in found.sentence


def test_a_metric_that_is_not_defined_gives_no_comparison():
    labels_N, given_SNC = np.zeros(10, np.int64), np.full((2, 10, 2), 0.5)
    given = {"margin": 0.02, "choices": CHOICES}
    assert compare_strategies("auroc", labels_N, given_SNC, given_SNC, **given) is None
