"""Calibration and threshold have the best value that there is on the images they are chosen on."""

import numpy as np
import pytest

from studies.statistics.calibration import (
    Calibration,
    called,
    find_calibration,
    find_temperature,
    find_threshold,
    negative_log_likelihood,
    probabilities,
)


def drawn(seed, num_classes, temperature, num_images=4000):
    """Logits of which the labels are drawn at ``temperature``."""
    rng = np.random.default_rng(seed)
    logits_NC = 3 * rng.standard_normal((num_images, num_classes))
    shares_NC = probabilities(logits_NC, temperature)
    labels_N = (rng.random((num_images, 1)) > shares_NC.cumsum(axis=1)).sum(axis=1)
    return logits_NC, labels_N


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(num_classes, true):
    assert find_temperature(*drawn(0, num_classes, true)) == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_no_other_temperature_has_a_higher_likelihood(num_classes):
    logits_NC, labels_N = drawn(1, num_classes, 1.7, num_images=60)

    def loss(temperature):
        mended = Calibration.of_temperature(temperature, num_classes)
        return negative_log_likelihood(logits_NC, labels_N, mended)

    best = loss(find_temperature(logits_NC, labels_N))
    for other in np.geomspace(0.01, 100, 400):
        assert best <= loss(other) + 1e-12


def test_logits_of_another_scale_give_the_same_probabilities():
    logits_NC, labels_N = drawn(2, 3, 1.3, num_images=200)
    small, large = (find_temperature(k * logits_NC, labels_N) for k in (0.5, 4))
    assert np.allclose(
        probabilities(0.5 * logits_NC, small), probabilities(4 * logits_NC, large), atol=1e-9
    )


def test_where_every_image_is_right_no_temperature_is_made_up():
    assert find_temperature(np.array([[2.0, 0.0], [0.0, 0.1]]), np.array([0, 1])) == 1.0


def test_a_network_worse_than_chance_ends_at_the_highest_temperature():
    assert find_temperature(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([1, 0])) == 100.0


def test_a_network_nearly_always_right_stays_in_the_range():
    logits_NC = np.array([[0.1, 0.0]] * 50 + [[1e-9, 0.0]])
    assert find_temperature(logits_NC, np.array([0] * 50 + [1])) == 0.01


@pytest.mark.parametrize("logits", [np.empty((0, 2)), np.array([[np.nan, 0.0]])])
@pytest.mark.parametrize("find", [find_temperature, find_calibration])
def test_a_calibration_of_nothing_is_refused(find, logits):
    with pytest.raises(ValueError, match="one image or more, and finite"):
        find(logits, np.zeros(len(logits), dtype=np.int64))


def drawn_with(calibration, seed=0, num_images=4000):
    """Logits, and labels that are drawn from what ``calibration`` makes of them."""
    rng = np.random.default_rng(seed)
    logits_NC = 2 * rng.standard_normal((num_images, len(calibration.biases)))
    shares_NC = calibration.probabilities(logits_NC)
    return logits_NC, (rng.random((num_images, 1)) > shares_NC.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("biases", [(0.0, 1.5), (0.0, -0.7), (0.0, 1.0, -1.0)])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_scale_and_biases_that_labels_were_drawn_with_are_found(scale, biases):
    found = find_calibration(*drawn_with(Calibration(scale=scale, biases=biases)))
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.biases == pytest.approx(biases, abs=0.2) and found.biases[0] == 0


def test_a_bias_is_mended_where_a_temperature_can_not():
    biased = Calibration(scale=1.0, biases=(0.0, 1.5))
    logits_NC, labels_N = drawn_with(biased, 1)
    others = drawn_with(biased, 2)
    warm = Calibration.of_temperature(find_temperature(logits_NC, labels_N), 2)
    mended = find_calibration(logits_NC, labels_N)
    gain = negative_log_likelihood(*others, warm) - negative_log_likelihood(*others, mended)
    assert gain > 0.05


def test_several_classes_have_biases_only_where_each_has_fifty_images():
    logits_NC, labels_N = drawn_with(Calibration(scale=1.0, biases=(0.0, 1.0, -1.0)))
    rare = np.flatnonzero(labels_N == 2)
    for count, has_biases in ((50, True), (49, False)):
        kept = np.sort(np.concatenate([np.flatnonzero(labels_N != 2), rare[:count]]))
        found = find_calibration(logits_NC[kept], labels_N[kept])
        assert any(found.biases) is has_biases
    temperature = find_temperature(logits_NC[kept], labels_N[kept])
    assert found == Calibration.of_temperature(temperature, 3)


def test_two_classes_that_are_all_right_are_no_surer_than_their_number_allows():
    labels_N = np.repeat([0, 1], 20)
    logits_NC = np.stack([np.where(labels_N == 0, 9.0, -9.0), np.zeros(40)], axis=1)
    shares_NC = find_calibration(logits_NC, labels_N).probabilities(logits_NC)
    assert shares_NC.max() == pytest.approx(21 / 22, abs=1e-6)


def test_the_order_of_images_is_never_turned_round():
    labels_N = np.arange(40) % 2
    logits_NC = np.stack([np.zeros(40), np.where(labels_N == 0, 3.0, -3.0)], axis=1)
    found = find_calibration(logits_NC, labels_N)
    assert found.scale == 0.01 and found.biases == pytest.approx((0.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_images_of_one_class_change_nothing(num_classes):
    logits_NC = np.random.default_rng(0).standard_normal((60, num_classes))
    found = find_calibration(logits_NC, np.ones(60, np.int64))
    assert found == Calibration.of_temperature(1.0, num_classes)


def two(positive):
    positive_N = np.array(positive)
    return np.stack([1 - positive_N, positive_N], axis=1)


def balanced_accuracy(shares_NC, labels_N, threshold):
    right_N = called(shares_NC, threshold) == labels_N
    return np.mean([right_N[labels_N == label].mean() for label in (0, 1)])


@pytest.mark.parametrize(
    ("positive", "labels", "threshold"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5),  # 0.5 is among the best
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),  # the middle of the gap
        ([0.6, 0.7, 0.8, 0.9], [0, 0, 1, 1], 0.75),
        ([0.1, 0.3, 0.5, 0.7, 0.9], [0, 1, 0, 1, 1], 0.6),  # of 0.2 and 0.6 the better
        ([0.5, 0.5], [0, 1], 0.5),  # no other
    ],
)
def test_the_threshold_is_in_the_best_gap(positive, labels, threshold):
    assert find_threshold(two(positive), np.array(labels)) == pytest.approx(threshold)


def test_no_other_threshold_has_a_higher_balanced_accuracy():
    rng = np.random.default_rng(3)
    labels_N = (rng.random(120) < 0.25).astype(np.int64)
    shares_NC = two(np.clip(0.3 * labels_N + 0.7 * rng.random(120), 0, 1))
    best = balanced_accuracy(shares_NC, labels_N, find_threshold(shares_NC, labels_N))
    others = [balanced_accuracy(shares_NC, labels_N, t) for t in np.linspace(0, 1.01, 500)]
    assert best >= max(others) - 1e-12


def test_of_equals_the_threshold_nearest_to_the_middle_is_taken():
    labels_N = np.array([0, 1, 0, 1])
    assert find_threshold(two([0.6, 0.7, 0.8, 0.9]), labels_N) == pytest.approx(0.65)
    assert find_threshold(two([0.1, 0.2, 0.3, 0.4]), labels_N) == pytest.approx(0.35)
    assert find_threshold(two([0.1, 0.2, 0.4, 0.9]), labels_N) == 0.5


def test_more_classes_than_two_have_no_threshold_and_the_most_probable_is_called():
    shares_NC = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
    assert find_threshold(shares_NC, np.array([1, 0])) is None
    assert called(shares_NC, None).tolist() == [1, 0]


def test_at_the_threshold_itself_an_image_is_called_class_1():
    assert called(two([0.3, 0.29]), 0.3).tolist() == [1, 0]
