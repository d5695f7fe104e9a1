"""Metrics agree with scikit-learn's, weigh images as resampling does, and refuse what is none.

Shapes: N images, C classes.
"""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

from studies.statistics.metrics import (
    METRICS,
    check_predictions,
    larger_is_better,
    log_odds,
    precisions,
    recalls,
    weighted_values,
)


def predictions(num_classes=2, num_images=90, seed=0):
    rng = np.random.default_rng(seed)
    labels_N = rng.permutation(np.arange(num_images) % num_classes)
    logits_NC = rng.normal(size=(num_images, num_classes))
    logits_NC[np.arange(num_images), labels_N] += 1
    exponentials_NC = np.exp(logits_NC)
    return labels_N, exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_metrics_are_those_of_scikit_learn(num_classes):
    labels_N, p_NC = predictions(num_classes)
    called_N = p_NC.argmax(axis=1)
    two = num_classes == 2
    expected = {
        "accuracy": metrics.accuracy_score(labels_N, called_N),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels_N, called_N),
        "auroc": metrics.roc_auc_score(
            labels_N, p_NC[:, 1] if two else p_NC, multi_class="raise" if two else "ovr"
        ),
        "f1": metrics.f1_score(labels_N, called_N, average="macro"),
        "loss": metrics.log_loss(labels_N, p_NC),
        "brier": metrics.brier_score_loss(labels_N, p_NC, scale_by_half=True),
    }
    for name, value in expected.items():
        assert METRICS[name](labels_N, p_NC) == pytest.approx(value), name
    assert recalls(labels_N, p_NC) == pytest.approx(
        metrics.recall_score(labels_N, called_N, average=None)
    )
    assert precisions(labels_N, p_NC) == pytest.approx(
        metrics.precision_score(labels_N, called_N, average=None)
    )


@pytest.mark.parametrize("name", METRICS)
def test_a_weight_of_two_is_the_image_twice(name):
    labels_N, p_NC = predictions()
    counts_BN = np.random.default_rng(1).integers(0, 3, (4, len(labels_N)))
    found_B = weighted_values(METRICS[name], labels_N, p_NC, counts_BN)
    for found, counts_N in zip(found_B, counts_BN, strict=True):
        index = np.repeat(np.arange(len(labels_N)), counts_N)
        assert found == pytest.approx(METRICS[name](labels_N[index], p_NC[index]))


def test_of_loss_and_brier_score_less_is_better():
    assert {name for name in METRICS if not larger_is_better(name)} == {"loss", "brier"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    labels_N, p_NC = predictions()
    p_NC[3, 0] = value
    with pytest.raises(ValueError):
        check_predictions(labels_N, p_NC)


@pytest.mark.parametrize("num_classes", [2, 3, 20])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_metric_that_chose_a_trial_is_the_one_that_reports_it(num_classes, scale):
    torch = pytest.importorskip("torch")
    from transfer.training.metrics import classification_metrics

    labels_N, p_NC = predictions(num_classes)
    logits_NC = torch.tensor(scale * np.log(p_NC), dtype=torch.float32)
    in_training = classification_metrics(logits_NC, torch.tensor(labels_N))
    stored_NC = logits_NC.double().softmax(dim=1).numpy()
    assert scale == 1 or (stored_NC == 1).any()
    for name, value in in_training.items():
        # The loss of stored probabilities ends at 27.6 nats an image.
        if name != "loss" or scale == 1:
            assert METRICS[name](labels_N, stored_NC) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_log_odds_of_probabilities_are_those_of_the_logits(num_classes):
    from transfer.training.metrics import log_odds as of_logits

    logits_NC = np.random.default_rng(0).normal(scale=60, size=(50, num_classes))
    p_NC = softmax(logits_NC, axis=1)
    assert (p_NC == 1).any()
    assert log_odds(p_NC) == pytest.approx(of_logits(logits_NC), rel=1e-9)


def test_sure_images_are_still_ordered_by_how_sure_they_are():
    labels_N = np.array([0, 1])
    # Both probabilities of class 1 are 1.0 in float64; those of class 0 tell them apart.
    p_NC = np.array([[1e-20, 1.0], [1e-30, 1.0]])
    assert METRICS["auroc"](labels_N, p_NC) == 1.0


def test_of_three_classes_too_sure_images_are_still_ordered_by_how_sure_they_are():
    labels_N = np.array([0, 1, 2])
    p_NC = np.array([[1.0, 1e-30, 1e-30], [1.0, 1e-20, 1e-30], [1.0, 1e-30, 1e-20]])
    assert METRICS["auroc"](labels_N, p_NC) == 1.0


def test_constant_scores_are_a_coin():
    labels_N = np.arange(30) % 2
    assert METRICS["auroc"](labels_N, np.full((30, 2), 0.5)) == 0.5


def test_auroc_of_one_class_is_refused():
    with pytest.raises(ValueError, match="`2 or more classes have images` must hold for auroc"):
        METRICS["auroc"](np.zeros(9, np.int64), np.full((9, 2), 0.5))


@pytest.mark.parametrize(
    ("labels_N", "p_NC", "law"),
    [
        (np.array([0, 1]), np.array([[2.5, -1.0], [0.0, 1.0]]), "rows that sum to 1"),
        (np.array([0, 1]), np.array([[0.5, 0.5]]), r"shape == \(2, C\)"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "labels_N < 2"),
        (np.array([0.0, 1.0]), np.full((2, 2), 0.5), "whole numbers"),
        (np.array([], np.int64), np.zeros((0, 2)), "1 or more images"),
        (np.array([0, 1]), np.array([[np.nan, 0.5], [0.5, 0.5]]), "finite"),
    ],
)
def test_what_are_no_predictions_is_refused_with_the_law(labels_N, p_NC, law):
    with pytest.raises(ValueError, match=law):
        check_predictions(labels_N, p_NC)
