"""Slope, intercepts, calibration error and curve say what is wrong, and nothing where nothing is.

The slope and intercept hold their truth in 93 to 97 % of 600 calibrated and of 600 overconfident
models each of 100, 200 and 400 images.

Shapes: S seeds, N images, C classes.
"""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from studies.statistics.calibration import (
    calibration_json,
    find_calibration_error,
    find_recalibration,
    reliability_curve,
)


def two(p_N):
    return np.stack([1 - p_N, p_N], axis=-1)


def drawn(rng, num_images, *, sharpness=1.0, bias=0.0, prevalence=0.4, distance=1.7):
    """Labels, and log odds times ``sharpness`` plus ``bias`` of them as probabilities (N, 2)."""
    labels_N = (rng.random(num_images) < prevalence).astype(np.int64)
    scores_N = rng.normal(size=num_images) + distance * labels_N
    odds_N = logit(prevalence) + distance * scores_N - distance**2 / 2
    return labels_N, two(expit(sharpness * odds_N + bias))


def test_slope_and_intercept_are_those_of_a_logistic_regression():
    labels_N, p_NC = drawn(np.random.default_rng(0), 300, sharpness=2.0)
    odds_N = logit(p_NC[:, 1])
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(odds_N[:, None], labels_N)
    found = find_recalibration(labels_N, p_NC[None])
    assert found.slope.value == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    shifted_N = expit(odds_N + found.intercepts[0].value)
    assert shifted_N.mean() == pytest.approx(labels_N.mean(), abs=1e-8)


@pytest.mark.parametrize(
    ("sharpness", "bias", "slope", "intercept"),
    [(1.0, 0.0, 1.0, 0.0), (2.0, 0.0, 0.5, None), (1.0, 0.7, 1.0, -0.7)],
)
def test_what_is_wrong_with_the_probabilities_is_found(sharpness, bias, slope, intercept):
    labels_N, p_NC = drawn(np.random.default_rng(1), 4000, sharpness=sharpness, bias=bias)
    found = find_recalibration(labels_N, p_NC[None])
    assert found.slope.low < slope < found.slope.high
    assert found.slope.high - found.slope.low < 0.2
    if intercept is not None:
        assert found.intercepts[0].low < intercept < found.intercepts[0].high


@pytest.mark.parametrize("num_images", [100, 400])
def test_the_intervals_hold_the_truth(num_images):
    found = [
        find_recalibration(labels_N, p_NC[None])
        for labels_N, p_NC in (drawn(np.random.default_rng(s), num_images) for s in range(150))
    ]
    least = binom.ppf(0.001, 150, 0.95)
    assert sum(each.slope.low <= 1 <= each.slope.high for each in found) >= least
    assert sum(f.intercepts[0].low <= 0 <= f.intercepts[0].high for f in found) >= least


def test_images_of_one_patient_count_less_than_as_many_patients():
    """Ten copies of each image: without groups the interval would be a third as wide."""
    labels_N, p_NC = drawn(np.random.default_rng(3), 60)
    once = find_recalibration(labels_N, p_NC[None])
    copies = np.repeat(np.arange(60), 10)
    found = find_recalibration(labels_N[copies], p_NC[copies][None], groups_N=copies)
    assert found.slope.value == pytest.approx(once.slope.value, rel=1e-4)
    width = once.slope.high - once.slope.low
    assert found.slope.high - found.slope.low == pytest.approx(width, rel=0.1)
    alone = find_recalibration(labels_N[copies], p_NC[copies][None])
    assert alone.slope.high - alone.slope.low < 0.4 * width


def test_seeds_that_differ_widen_the_interval_of_their_mean():
    labels_N, p_NC = drawn(np.random.default_rng(4), 2000)
    odds_N = logit(p_NC[:, 1])
    equal = find_recalibration(labels_N, np.stack([p_NC] * 3))
    unequal = find_recalibration(labels_N, np.stack([two(expit(k * odds_N)) for k in (1, 2, 4)]))
    assert equal.slope.value == pytest.approx(find_recalibration(labels_N, p_NC[None]).slope.value)
    assert unequal.slope.value == pytest.approx(equal.slope.value * 7 / 12, rel=1e-3)
    assert unequal.slope.high - unequal.slope.low > 5 * (equal.slope.high - equal.slope.low)


def test_several_classes_have_one_slope_and_an_intercept_each_but_the_first():
    rng = np.random.default_rng(5)
    logits_NC = 1.5 * rng.normal(size=(3000, 3))
    true_NC = np.exp(logits_NC + np.array([0.0, 0.5, 0.0]))
    shares_NC = true_NC / true_NC.sum(axis=1, keepdims=True)
    labels_N = (rng.random((3000, 1)) > shares_NC.cumsum(axis=1)).sum(axis=1)
    given_NC = np.exp(logits_NC)
    found = find_recalibration(labels_N, (given_NC / given_NC.sum(axis=1, keepdims=True))[None])
    assert found.slope.low < 1 < found.slope.high
    second, third = found.intercepts
    assert 0.2 < second.low < 0.5 < second.high and third.low < 0 < third.high


@pytest.mark.parametrize(
    ("labels", "positive"),
    [([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]), ([0, 0, 0, 0], [0.1, 0.2, 0.7, 0.9])],
)
def test_where_nothing_can_be_said_there_is_none(labels, positive):
    assert find_recalibration(np.array(labels), two(np.array(positive))[None]) is None


def test_calibration_error_is_that_of_the_paper():
    labels_N, p_NC = np.array([0, 0, 1, 1]), two(np.array([0.2, 0.2, 0.8, 0.6]))
    # Bins of 1/15: two images at 0.8 wholly right, and so on: gaps 0.2, 0.2, 0.2, 0.4.
    assert find_calibration_error(labels_N, p_NC).value == pytest.approx(0.25)


def test_a_calibrated_model_has_no_excess_and_seldom_a_small_p():
    """Its error itself is far above 0, and no interval around it would hold its 0."""
    found = [
        find_calibration_error(*drawn(np.random.default_rng(seed), 200), seed=seed)
        for seed in range(120)
    ]
    assert np.mean([each.value for each in found]) > 0.04
    assert abs(np.mean([each.excess for each in found])) < 0.005
    assert sum(each.p < 0.05 for each in found) <= binom.ppf(0.999, 120, 0.05)


def test_an_overconfident_model_has_an_excess():
    found = find_calibration_error(*drawn(np.random.default_rng(0), 400, sharpness=2.0))
    assert found.excess > 0.03 and found.p < 0.01


def test_the_curve_rises_and_has_each_image_once():
    labels_N, p_NC = drawn(np.random.default_rng(6), 300)
    curve = reliability_curve(p_NC[:, 1], labels_N == 1)
    assert (np.diff(curve.observed_U) >= 0).all() and curve.counts_U.sum() == 300
    total = (curve.observed_U * curve.counts_U).sum()
    assert total == pytest.approx(labels_N.sum())
    assert (curve.low_U <= curve.high_U).all()


@pytest.mark.parametrize(("sharpness", "is_inside"), [(1.0, True), (2.5, False)])
def test_the_band_holds_the_curve_of_a_calibrated_model_alone(sharpness, is_inside):
    labels_N, p_NC = drawn(np.random.default_rng(7), 1000, sharpness=sharpness)
    curve = reliability_curve(p_NC[:, 1], labels_N == 1)
    inside_U = (curve.low_U <= curve.observed_U) & (curve.observed_U <= curve.high_U)
    assert bool(np.average(inside_U, weights=curve.counts_U) > 0.8) is is_inside


def test_json_says_what_calibration_changed():
    rng = np.random.default_rng(8)
    labels_N, p_NC = drawn(rng, 400, sharpness=2.0)
    mended_NC = two(expit(logit(p_NC[:, 1]) / 2))
    found = calibration_json(labels_N, p_NC[None], mended_NC[None], ("a", "b"))
    assert found["before"]["slope"]["value"] == pytest.approx(
        found["after"]["slope"]["value"] / 2, rel=1e-3
    )
    assert set(found["after"]["intercepts"]) == {"b"}
    assert found["after"]["loss"]["value"] < found["before"]["loss"]["value"]
    assert set(found["after"]["ece"]) == {"value", "expected", "excess", "p"}
    seeds = calibration_json(labels_N, np.stack([p_NC] * 2), np.stack([p_NC] * 2), ("a", "b"))
    assert "ece" not in seeds["before"]
    perfect = calibration_json(labels_N, np.eye(2)[labels_N][None], p_NC[None], ("a", "b"))
    assert perfect["before"]["slope"] is None


def test_images_of_one_subject_alone_tell_nothing_of_slopes_and_crash_nothing():
    """A test split of one slide, cut into tiles."""
    labels_N, p_NC = drawn(np.random.default_rng(0), 60)
    told = calibration_json(labels_N, p_NC[None], p_NC[None], ["a", "b"], np.zeros(60, np.int64))
    assert told["before"]["slope"] is None and told["after"]["intercepts"] is None


def test_p_of_the_calibration_error_is_left_out_where_images_come_in_groups():
    labels_N, p_NC = drawn(np.random.default_rng(0), 60)
    alone = find_calibration_error(labels_N, p_NC, groups_N=np.arange(60))
    grouped = find_calibration_error(labels_N, p_NC, groups_N=np.arange(60) // 3)
    assert alone == find_calibration_error(labels_N, p_NC) and alone.p is not None
    assert grouped.p is None and grouped.value == alone.value
