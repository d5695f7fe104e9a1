"""The metrics are what their definitions say, written here a second time in numpy.

Shapes: N images, C classes.
"""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from transfer.config import METRICS
from transfer.training.metrics import classification_metrics, log_odds


def definitions(logits_NC, labels_N):
    """Every metric by its definition; all classes must occur."""
    classes = range(logits_NC.shape[1])
    exponentials_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    probabilities_NC = exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True)
    predicted_N = logits_NC.argmax(axis=1)
    right = [int(((predicted_N == c) & (labels_N == c)).sum()) for c in classes]
    true, called = [[int((x == c).sum()) for c in classes] for x in (labels_N, predicted_N)]
    # Rounded: of three classes the other two may be added up in either order.
    odds_NC = np.log(probabilities_NC / (1 - probabilities_NC)).round(9)
    areas = [pairs_won(odds_NC[:, c], labels_N == c) for c in classes]
    return {
        "loss": -np.log(probabilities_NC[np.arange(len(labels_N)), labels_N]).mean(),
        "accuracy": sum(right) / len(labels_N),
        "balanced_accuracy": np.mean([r / t for r, t in zip(right, true, strict=True)]),
        "auroc": areas[1] if len(areas) == 2 else np.mean(areas),
        "f1": np.mean([2 * r / (t + c) for r, t, c in zip(right, true, called, strict=True)]),
    }


def pairs_won(score_N, is_positive_N):
    """Share of (positive, negative) pairs in which the positive scores higher; a tie is half."""
    difference = score_N[is_positive_N][:, None] - score_N[~is_positive_N][None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def measured(logits_NC, labels_N):
    return classification_metrics(
        torch.tensor(logits_NC, dtype=torch.float32), torch.tensor(labels_N)
    )


# Quarters are exact in float32, so that a tie is a tie in both definitions.
QUARTERS = st.integers(min_value=-12, max_value=12).map(lambda x: x / 4)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), num_classes=st.sampled_from([2, 3]))
def test_metrics_are_what_their_definitions_say(data, num_classes):
    more = data.draw(st.lists(st.integers(0, num_classes - 1), max_size=12))
    labels_N = np.array([*range(num_classes), *more])
    row = st.lists(QUARTERS, min_size=num_classes, max_size=num_classes, unique=True)
    size = len(labels_N)
    logits_NC = np.array(data.draw(st.lists(row, min_size=size, max_size=size)))
    assert measured(logits_NC, labels_N) == pytest.approx(
        definitions(logits_NC, labels_N), abs=1e-5
    )


@pytest.mark.parametrize(
    ("logits_NC", "labels_N", "expected"),
    [
        # Two of three right; the one NORMAL wrong, so one class of two.
        (
            [[0, 1], [0, 1], [0, 1]],
            [0, 1, 1],
            {"accuracy": 2 / 3, "balanced_accuracy": 0.5, "auroc": 0.5, "f1": 0.4},
        ),
        (
            [[2, 0], [0, 2]],
            [0, 1],
            {"accuracy": 1.0, "balanced_accuracy": 1.0, "auroc": 1.0, "f1": 1.0},
        ),
        (
            [[2, 0], [0, 2]],
            [1, 0],
            {"accuracy": 0.0, "balanced_accuracy": 0.0, "auroc": 0.0, "f1": 0.0},
        ),
        # Nine, of two classes, called class 0 right; the third class never.
        (
            [[3, 0, 0]] * 8 + [[0, 3, 0], [3, 0, 0]],
            [0] * 8 + [1, 2],
            {"accuracy": 0.9, "balanced_accuracy": 2 / 3, "f1": (16 / 17 + 1) / 3},
        ),
    ],
)
def test_metrics_of_cases_counted_by_hand(logits_NC, labels_N, expected):
    metrics = measured(logits_NC, labels_N)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_logits_that_say_nothing_cost_the_logarithm_of_the_number_of_classes():
    assert measured([[0.0] * 3] * 3, [0, 1, 2])["loss"] == pytest.approx(math.log(3))


def test_confident_logits_do_not_tie_in_the_auroc():
    # A float32 sigmoid is 1.0 for all of these.
    metrics = measured([[0, 20], [0, 25], [0, 30], [0, 35]], [0, 0, 1, 1])
    assert metrics["auroc"] == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_logits_that_are_not_finite_give_nan_and_no_exception(value, num_classes):
    logits_NC = np.zeros((4, num_classes))
    logits_NC[2, 0] = value
    metrics = measured(logits_NC, [0, 1, 0, 1])
    assert all(math.isnan(metrics[name]) for name in METRICS if name != "loss")
    assert not math.isfinite(metrics["loss"]) or value == -float("inf")


def test_every_metric_that_a_study_may_be_judged_by_is_measured():
    assert set(measured([[1, 0], [0, 1]], [0, 1])) == set(METRICS)


def test_two_class_auroc_is_exact_where_probabilities_saturate() -> None:
    margins = torch.tensor([30.0, 40.0, 50.0, 60.0])
    logits_NC = torch.stack([torch.zeros(4), margins], dim=1)
    labels_N = torch.tensor([0, 0, 1, 1])
    assert classification_metrics(logits_NC, labels_N)["auroc"] == 1.0


def test_an_accuracy_is_the_plain_share_of_right_images() -> None:
    labels_N = torch.arange(400) % 2
    logits_NC = torch.nn.functional.one_hot(labels_N, 2).float()
    logits_NC[386:] = logits_NC[386:].flip(1)
    assert classification_metrics(logits_NC, labels_N)["accuracy"] == 0.965


@pytest.mark.parametrize("num_classes", [2, 3, 7, 30, 100])
def test_metrics_of_any_number_of_classes_are_those_of_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    labels_N = rng.permutation(np.arange(4 * num_classes) % num_classes)
    logits_NC = rng.normal(size=(len(labels_N), num_classes)).astype(np.float32)
    logits_NC[np.arange(len(labels_N)), labels_N] += 2
    found, called_N = measured(logits_NC, labels_N), logits_NC.argmax(axis=1)
    p_NC = torch.tensor(logits_NC, dtype=torch.float64).softmax(dim=1).numpy()
    two = num_classes == 2
    assert found == pytest.approx(
        {
            "loss": metrics.log_loss(labels_N, p_NC),
            "accuracy": metrics.accuracy_score(labels_N, called_N),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels_N, called_N),
            "auroc": metrics.roc_auc_score(
                labels_N, p_NC[:, 1] if two else p_NC, multi_class="raise" if two else "ovr"
            ),
            "f1": metrics.f1_score(labels_N, called_N, average="macro"),
        },
        abs=1e-6,
    )


def test_a_class_that_is_absent_counts_only_where_it_is_predicted():
    right = [[3, 0, 0], [0, 3, 0]]
    never = measured(right, [0, 1])
    assert (never["balanced_accuracy"], never["f1"], never["auroc"]) == (1, 1, 1)
    called = measured([*right, [0, 1, 3]], [0, 1, 0])
    assert called["balanced_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert called["f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_auroc_of_several_classes_is_exact_where_probabilities_saturate():
    # Class 0 is sure of all of them: a probability is 1.0 from a margin of 37 on.
    logits_NC = [[60, 0, 0], [50, 0, 0], [45, 0, 0], [40, 0, 0], [0, 90, 0], [0, 0, 90]]
    labels_N = [0, 0, 1, 2, 1, 2]
    p_NC = torch.tensor(logits_NC, dtype=torch.float64).softmax(dim=1).numpy()
    assert p_NC[:4, 0].tolist() == [1.0] * 4
    assert measured(logits_NC, labels_N)["auroc"] == pytest.approx(
        auroc_by_definition(np.array(logits_NC, np.float64), np.array(labels_N))
    )
    assert log_odds(np.array(logits_NC, np.float64))[:4, 0] == pytest.approx(
        [60 - math.log(2), 50 - math.log(2), 45 - math.log(2), 40 - math.log(2)]
    )


def auroc_by_definition(logits_NC, labels_N):
    """The margin over the logsumexp of the others, class by class."""
    areas = []
    for c in range(logits_NC.shape[1]):
        others = np.logaddexp.reduce(np.delete(logits_NC, c, axis=1), axis=1)
        areas.append(pairs_won(logits_NC[:, c] - others, labels_N == c))
    return np.mean(areas)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 30.0, 1000.0]))
def test_log_odds_are_the_logit_less_the_logsumexp_of_the_others(seed, scale):
    logits_NC = scale * np.random.default_rng(seed).normal(size=(9, 5))
    for c in range(5):
        others = np.logaddexp.reduce(np.delete(logits_NC, c, axis=1), axis=1)
        assert log_odds(logits_NC)[:, c] == pytest.approx(logits_NC[:, c] - others, rel=1e-12)


def test_images_with_the_same_logits_in_another_order_tie():
    rng = np.random.default_rng(0)
    row = rng.normal(size=6)
    logits_NC = np.stack([[0.3, *rng.permutation(row)] for _ in range(50)])
    assert len(np.unique(log_odds(logits_NC)[:, 0])) == 1


def test_metrics_of_many_classes_take_no_table_of_images_by_classes_squared():
    num_images, num_classes = 500, 100
    labels_N = torch.arange(num_images) % num_classes
    logits_NC = torch.randn(num_images, num_classes, generator=torch.Generator().manual_seed(0))
    tracemalloc.start()
    try:
        classification_metrics(logits_NC, labels_N)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < num_images * num_classes**2
