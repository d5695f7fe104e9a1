"""Fine-tuning against feature extraction: words follow the interval, models are not strategies."""

import numpy as np
import pytest

from studies.paired_tests import holm, mcnemar_exact
from studies.strategies_compared import compare_strategies


def said(accuracy, num_images=400, num_seeds=3, seed=0, num_classes=2):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % num_classes
    is_right_SN = rng.random((num_seeds, num_images)) < accuracy
    called_SN = np.where(is_right_SN, labels_N, (labels_N + 1) % num_classes)
    sure_SN = rng.uniform(0.6, 0.9, called_SN.shape)[..., None]
    rest_SN = (1 - sure_SN) / (num_classes - 1)
    return labels_N, np.where(np.arange(num_classes) == called_SN[..., None], sure_SN, rest_SN)


def compared(first, second, metric="accuracy", **given):
    labels_N, first_SNC = said(first, seed=1, **given)
    _, second_SNC = said(second, seed=2, **given)
    return compare_strategies(metric, labels_N, first_SNC, second_SNC, margin=0.02)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [(0.95, 0.7, "better"), (0.7, 0.95, "worse"), (0.8, 0.8, "not distinguishable")],
)
def test_the_words_follow_the_interval(first, second, verdict):
    found = compared(first, second)
    told = found.as_json()
    assert told["verdict"] == verdict
    assert (told["low"] <= 0 <= told["high"]) == (verdict == "not distinguishable")
    assert (told["p"] > 0.05) == (verdict == "not distinguishable")
    link = "from" if verdict == "not distinguishable" else "than"
    assert told["sentence"].startswith(f"Fine-tuning is {verdict} {link} feature extraction ")
    assert "400 test images and 3 seeds" in told["sentence"]


def test_a_smaller_loss_is_better():
    found = compared(0.95, 0.7, metric="loss")
    assert found.difference.value < 0 and found.difference.verdict == "better"


def test_what_can_not_be_told_says_what_it_would_need():
    found = compared(0.8, 0.8)
    assert found.needed is not None and found.needed.images_with_seeds > 400
    assert "a difference of 2 points would need about" in found.sentence


def test_a_margin_out_of_reach_is_said_to_be():
    labels_N, first_SNC = said(0.8, seed=1)
    _, second_SNC = said(0.8, seed=2)
    found = compare_strategies("accuracy", labels_N, first_SNC, second_SNC, margin=1e-5)
    assert found.needed is None and "more than could be had" in found.sentence
    assert found.as_json()["needed"] is None


def test_two_models_are_tested_as_two_models_and_holm_pays_for_both_tests():
    labels_N, first_SNC = said(0.85, seed=1)
    _, second_SNC = said(0.8, seed=2)
    told = compare_strategies("accuracy", labels_N, first_SNC, second_SNC, margin=0.02).as_json()
    p = told["two_models"]["p"]
    called = first_SNC[0].argmax(axis=1), second_SNC[0].argmax(axis=1)
    assert p["mcnemar"] == mcnemar_exact(labels_N, *called)
    assert list(told["two_models"]["p_holm"].values()) == holm(list(p.values()))


def test_delong_is_for_two_classes():
    assert set(compared(0.8, 0.8, num_classes=3).two_models["p"]) == {"mcnemar"}


def test_images_have_the_name_that_they_are_given():
    labels_N, first_SNC = said(0.8, seed=1)
    given = {"margin": 0.02, "images": "validation image"}
    found = compare_strategies("accuracy", labels_N, first_SNC, first_SNC[::-1], **given)
    assert "400 validation images" in found.sentence and "test image" not in found.sentence


def test_a_metric_that_is_not_defined_gives_no_comparison():
    labels_N, given_SNC = np.zeros(10, np.int64), np.full((2, 10, 2), 0.5)
    assert compare_strategies("auroc", labels_N, given_SNC, given_SNC, margin=0.02) is None
