"""Every metric of the test images has an interval, and one that is not defined says so."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import confusion_matrix as reference_matrix
from sklearn.metrics import f1_score, precision_score, recall_score

from studies.statistics.estimates import (
    as_json,
    confusion_json,
    confusion_matrix,
    confusion_over_seeds,
    evaluate_calls,
    evaluate_model,
    evaluate_seeds,
    metrics_json,
    num_resamples,
    predictive_values,
)
from studies.statistics.intervals import wilson_interval

CLASSES = ("a", "b", "c")


def predictions(seed=0, num_images=90, num_classes=3, num_seeds=None, skill=1.0):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % num_classes
    shape = (
        (num_images, num_classes) if num_seeds is None else (num_seeds, num_images, num_classes)
    )
    logits = rng.normal(size=shape) + skill * np.eye(num_classes)[labels_N]
    exponentials = np.exp(logits)
    return labels_N, exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_metrics_of_a_model_agree_with_the_reference_and_lie_in_their_intervals():
    labels_N, given_NC = predictions()
    called_N = given_NC.argmax(axis=1)
    found = evaluate_model(labels_N, given_NC, CLASSES)
    assert set(found) == {
        *("accuracy", "balanced_accuracy", "auroc", "f1", "loss", "brier"),
        *(f"{what}@{name}" for what in ("recall", "precision") for name in CLASSES),
    }
    assert found["f1"].value == pytest.approx(f1_score(labels_N, called_N, average="macro"))
    recalls = recall_score(labels_N, called_N, average=None)
    precisions = precision_score(labels_N, called_N, average=None)
    for i, name in enumerate(CLASSES):
        assert found[f"recall@{name}"].value == pytest.approx(recalls[i])
        assert found[f"precision@{name}"].value == pytest.approx(precisions[i])
    assert all(each.low < each.value < each.high for each in found.values())


def test_recall_and_precision_have_wilsons_interval_of_their_own_images():
    labels_N, given_NC = predictions()
    matrix_CC = confusion_matrix(labels_N, given_NC.argmax(axis=1), 3)
    found = evaluate_model(labels_N, given_NC, CLASSES)
    recall, precision = found["recall@b"], found["precision@b"]
    assert (recall.low, recall.high) == wilson_interval(matrix_CC[1, 1], matrix_CC[1].sum())
    assert (precision.low, precision.high) == wilson_interval(
        matrix_CC[1, 1], matrix_CC[:, 1].sum()
    )


def test_what_is_not_defined_is_none_and_null():
    labels_N, given_NC = np.zeros(10, np.int64), np.tile([0.9, 0.1], (10, 1))
    found = evaluate_model(labels_N, given_NC, ("a", "b"))
    nothing = {name for name, interval in found.items() if interval is None}
    assert nothing == {"auroc", "recall@b", "precision@b"}
    assert metrics_json(found)["auroc"] == {"value": None, "low": None, "high": None}
    assert as_json(found["accuracy"])["value"] == 1.0
    over_seeds = evaluate_seeds(labels_N, np.stack([given_NC] * 2), ("a", "b"))
    assert {name for name, each in over_seeds.items() if each is None} == nothing


def test_predictions_that_are_no_probabilities_are_refused():
    labels_N, given_NC = predictions()
    given_NC[3, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        evaluate_model(labels_N, given_NC, CLASSES)
    with pytest.raises(ValueError, match="finite"):
        evaluate_seeds(labels_N, given_NC[None], CLASSES)


def test_over_seeds_the_mean_is_told():
    labels_N, given_SNC = predictions(num_seeds=3)
    found = evaluate_seeds(labels_N, given_SNC, CLASSES)
    each = [evaluate_model(labels_N, given_NC, CLASSES) for given_NC in given_SNC]
    assert set(found) == set(each[0])
    for name, interval in found.items():
        assert interval.value == pytest.approx(np.mean([one[name].value for one in each]))
        assert interval.low < interval.value < interval.high


def test_equal_seeds_have_about_the_interval_of_one_model():
    labels_N, given_NC = predictions(num_images=300)
    alone = evaluate_model(labels_N, given_NC, CLASSES)
    same = evaluate_seeds(labels_N, np.stack([given_NC] * 3), CLASSES)
    # One model's AUROC is taken for no surer than a proportion; Wilson's interval of a precision
    # takes the images called so as drawn, the bootstrap those of a class.
    close = {"accuracy": 0.1, "recall@a": 0.1, "auroc": 0.2, "precision@a": 0.2}
    for name, tolerance in close.items():
        widths = [each[name].high - each[name].low for each in (alone, same)]
        assert widths[1] == pytest.approx(widths[0], rel=tolerance)


@pytest.mark.parametrize("accuracy", [0.7, 0.95])
def test_precision_over_seeds_is_covered(accuracy):
    """Two classes, further images: the precision of class 1 is then ``accuracy``."""
    covered, num_studies = 0, 60
    for seed in range(num_studies):
        rng = np.random.default_rng(seed)
        labels_N = np.arange(120) % 2
        called_SN = np.where(rng.random((3, 120)) < accuracy, labels_N, 1 - labels_N)
        interval = evaluate_seeds(labels_N, np.eye(2)[called_SN], ("a", "b"))["precision@b"]
        covered += interval.low <= accuracy <= interval.high
    assert covered >= binom.ppf(0.001, num_studies, 0.95)


def test_perfect_precision_is_no_surer_than_the_images_that_were_called_so():
    labels_N = np.repeat([0, 1], [190, 10])
    given_SNC = np.stack([np.eye(2)[labels_N]] * 3)
    found = evaluate_seeds(labels_N, given_SNC, ("a", "b"))
    assert found["precision@b"].value == found["recall@b"].value == 1.0
    low, _ = wilson_interval(10, 10)
    assert found["precision@b"].low == pytest.approx(low, abs=0.02)
    assert found["recall@b"].low == pytest.approx(low, abs=0.02)


def test_calls_alone_give_the_metrics_that_need_no_probability():
    labels_N, given_NC = predictions()
    called_N = given_NC.argmax(axis=1)
    of_calls, of_model = (
        evaluate_calls(labels_N, called_N, CLASSES),
        evaluate_model(labels_N, given_NC, CLASSES),
    )
    assert set(of_calls) == set(of_model) - {"auroc", "loss", "brier"}
    assert all(of_calls[name] == of_model[name] for name in of_calls)


def test_the_confusion_matrix_has_classes_as_rows_and_shares_of_them():
    labels_N, given_NC = predictions()
    called_N = given_NC.argmax(axis=1)
    found = confusion_json(labels_N, called_N, 3)
    assert found["counts"] == reference_matrix(labels_N, called_N).tolist()
    for counts, shares in zip(found["counts"], found["shares"], strict=True):
        assert [share["value"] for share in shares] == [c / sum(counts) for c in counts]
        assert all(share["low"] <= share["value"] <= share["high"] for share in shares)


def test_over_seeds_the_confusion_matrix_is_a_mean():
    labels_N, given_SNC = predictions(num_seeds=2)
    found = confusion_over_seeds(labels_N, given_SNC)
    each = [confusion_matrix(labels_N, g.argmax(axis=1), 3) for g in given_SNC]
    assert found["counts"] == np.mean(each, axis=0).tolist()
    for counts, shares in zip(found["counts"], found["shares"], strict=True):
        assert [s["value"] for s in shares] == pytest.approx([c / sum(counts) for c in counts])


def test_many_images_are_resampled_less_often():
    assert num_resamples(100) == 2000 and num_resamples(50_000) == 200
    assert num_resamples(0) == 2000


def test_predictive_values_are_bayes_theorem_of_the_recalls():
    labels_N = np.repeat([0, 1], [200, 100])
    called_N = np.concatenate([np.repeat([0, 1], [180, 20]), np.repeat([0, 1], [10, 90])])
    positive, negative = predictive_values(labels_N, called_N, 0.05)
    assert positive.value == pytest.approx(0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.1))
    assert negative.value == pytest.approx(0.95 * 0.9 / (0.95 * 0.9 + 0.05 * 0.1))
    assert positive.low < positive.value < positive.high
    as_here, _ = predictive_values(labels_N, called_N, 1 / 3)
    assert as_here.value == pytest.approx(90 / 110)


@pytest.mark.parametrize(("ill", "healthy"), [(0.85, 0.9), (0.99, 0.97)])
def test_predictive_values_cover_what_is_true(ill, healthy):
    rng, prevalence = np.random.default_rng(0), 0.1
    true = prevalence * ill / (prevalence * ill + (1 - prevalence) * (1 - healthy))
    labels_N = np.repeat([0, 1], [150, 150])
    inside = 0
    for _ in range(500):
        right_N = rng.random(300) < np.where(labels_N == 1, ill, healthy)
        called_N = np.where(right_N, labels_N, 1 - labels_N)
        found, _ = predictive_values(labels_N, called_N, prevalence)
        inside += found.low <= true <= found.high
    assert 0.93 <= inside / 500 <= 0.995


def test_where_no_call_is_wrong_the_interval_has_an_end_below_one():
    labels_N = np.repeat([0, 1], 50)
    positive, negative = predictive_values(labels_N, labels_N, 0.01)
    assert positive.value == positive.high == negative.value == 1.0
    assert positive.low < 0.5 < negative.low


def test_predictive_values_that_are_not_defined_are_none():
    labels_N = np.repeat([0, 1], 50)
    assert predictive_values(labels_N, np.zeros(100, int), 0.1)[0] is None
    assert predictive_values(np.zeros(5, int), np.zeros(5, int), 0.1) == (None, None)
    with pytest.raises(ValueError, match="prevalence"):
        predictive_values(labels_N, labels_N, 1.0)


def test_images_of_few_patients_make_predictive_values_less_sure():
    rng = np.random.default_rng(1)
    patients_N = np.repeat(np.arange(40), 5)
    labels_N = patients_N % 2
    right_N = (rng.random(40) < 0.8)[patients_N]
    called_N = np.where(right_N, labels_N, 1 - labels_N)
    alone, _ = predictive_values(labels_N, called_N, 0.2)
    together, _ = predictive_values(labels_N, called_N, 0.2, patients_N)
    assert together.value == alone.value
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_predictive_values_know_that_one_healthy_subject_is_one():
    labels_N = np.repeat([1, 0], [40, 40])
    called_N = labels_N.copy()
    called_N[[0, 1, 40, 41]] = [0, 0, 1, 1]
    groups_N = np.where(labels_N == 1, np.arange(80), 100)
    (alone, _), (grouped, _) = (
        predictive_values(labels_N, called_N, 0.1, groups) for groups in (None, groups_N)
    )
    assert grouped.value == alone.value and grouped.low < alone.low - 0.1
