"""The waterfall adds up, planted causes go to their step, without a cause nothing is found."""

import numpy as np
import pytest
from planted import evidence, seen
from scipy.stats import binom, spearmanr

from studies.explanation.shift import find_path, normal_interval
from studies.statistics.metrics import METRICS

NUM_WORLDS = 40


def path(seed, metric="accuracy", num_resamples=20, **planted):
    found = seen(evidence(seed, **planted))
    return find_path(METRICS[metric], *found, num_resamples=num_resamples, seed=seed)


def means(num_worlds=8, **planted):
    """The mean change of each step, and in all."""
    found = [path(seed, num_resamples=2, **planted) for seed in range(num_worlds)]
    steps = {s: np.mean([getattr(p, s).value for p in found]) for s in ("prior", "shift", "rest")}
    return steps | {"all": np.mean([p.test - p.validation for p in found])}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shift", [0.0, 1.0, 9.0])
def test_steps_add_up_to_the_metric_on_test_images(metric, shift):
    val, test = seen(evidence(0, shift=shift, val_share=0.4, test_share=0.6))
    found = find_path(METRICS[metric], val, test, num_resamples=2)
    for value, given in ((found.validation, val), (found.test, test)):
        means = [METRICS[metric](given.labels_N, p_NC) for p_NC in given.probabilities_SNC]
        assert value == pytest.approx(np.mean(means), abs=1e-9)
    total = found.validation + found.prior.value + found.shift.value + found.rest.value
    assert total == pytest.approx(found.test, abs=1e-8)
    for of_class in found.classes:
        total = of_class.validation + of_class.shift.value + of_class.rest.value
        assert total == pytest.approx(of_class.test, abs=1e-8)


@pytest.fixture(scope="module", params=[{}, {"num_val": 40, "num_test": 60}], ids=["", "few"])
def alike(request):
    return [path(seed, num_resamples=30, **request.param) for seed in range(NUM_WORLDS)]


@pytest.mark.parametrize("step", ["prior", "shift", "rest"])
def test_where_the_sets_are_alike_no_step_is_found_more_often_than_by_chance(alike, step):
    found = [getattr(one, step) for one in alike]
    outside = sum(not interval.low <= 0 <= interval.high for interval in found)
    assert outside <= binom.ppf(0.999, NUM_WORLDS, 0.05)


def test_where_the_sets_are_alike_almost_nothing_is_shift(alike):
    shift = [abs(one.shift.value) for one in alike]
    rest = [abs(one.rest.value) for one in alike]
    assert np.mean(shift) < 0.3 * np.mean(rest)


def test_images_of_another_kind_are_shift_in_their_class():
    found = means(shift=2.0)
    assert found["all"] < -0.15
    assert found["shift"] < 0.8 * found["all"] and abs(found["prior"]) < 0.01
    moved, other = path(0, shift=2.0).classes
    assert moved.shift.high < 0 and other.shift.low < 0 < other.shift.high
    assert moved.unmatched_test < moved.matched_test - 0.2


def test_other_shares_of_the_classes_are_the_prior():
    found = means(bias=0.8, val_share=0.8, test_share=0.2)
    assert found["all"] < -0.1
    assert found["prior"] == pytest.approx(found["all"], abs=0.06)
    assert abs(found["shift"]) < 0.03


def test_shares_do_not_matter_where_every_class_counts_the_same():
    given = {"bias": 0.8, "val_share": 0.8, "test_share": 0.2}
    found = path(0, metric="balanced_accuracy", **given)
    assert found.prior.as_json() == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize("cause", ["flips", "wrong_labels"])
def test_images_of_the_same_kind_that_come_out_otherwise_are_the_rest(cause):
    found = means(**{cause: 0.15})
    assert found["all"] < -0.08
    assert found["rest"] < 0.7 * found["all"]


def test_what_shift_costs_grows_with_it():
    strengths = [0.5, 1.0, 2.0, 4.0]
    found = [
        (strength, -path(seed, num_resamples=2, shift=strength).shift.value)
        for strength in strengths
        for seed in range(5)
    ]
    assert spearmanr(*zip(*found, strict=True)).statistic > 0.8


def test_where_the_sets_have_nothing_in_common_everything_is_shift():
    found = path(0, shift=12.0)
    moved, _ = found.classes
    assert moved.matched < 0.02
    assert moved.shift.value == pytest.approx(moved.test - moved.validation, abs=0.02)
    assert found.shift.high < 0


def test_where_features_tell_nothing_everything_is_the_rest():
    val, test = seen(evidence(0, shift=3.0))
    for given in (val, test):
        given.features_ND[:] = 1.0
    found = find_path(METRICS["accuracy"], val, test, num_resamples=2)
    assert found.shift.as_json() == {"value": 0, "low": 0, "high": 0} and found.matched == 1
    assert found.rest.value == pytest.approx(found.test - found.validation)
    assert found.classes[0].unmatched_test is None


def test_perfect_models_are_not_sure_of_it():
    rng = np.random.default_rng(0)
    val, test = seen(evidence(0, num_val=20, num_test=20))
    for given in (val, test):
        given.probabilities_SNC[:] = np.eye(2)[given.labels_N]
    test.probabilities_SNC[:, rng.permutation(20)[:3]] = [0.5, 0.5]
    found = find_path(METRICS["accuracy"], val, test)
    assert found.rest.low < 0 <= found.rest.high


@pytest.mark.parametrize("seed", range(3))
def test_classes_of_one_or_two_images_leave_no_gap(seed):
    found = path(seed, num_val=50, val_share=0.02, num_test=60, test_share=0.034)
    assert [of_class.num_val for of_class in found.classes] == [49, 1]
    assert np.isfinite([found.shift.low, found.rest.low, found.prior.low]).all()
    assert found.rest.high - found.rest.low > 0


def test_the_same_seed_gives_the_same_numbers():
    assert path(3, shift=1.0) == path(3, shift=1.0)


def test_a_metric_that_needs_both_classes_says_so():
    val, test = seen(evidence(0, test_share=1.0))
    with pytest.raises(ValueError, match="auroc is not defined"):
        find_path(METRICS["auroc"], val, test, num_resamples=2)


def test_what_is_zero_by_construction_is_zero():
    found = normal_interval(np.array([1e-17, 1e-17, -1e-17]))
    assert found.as_json() == {"value": 0, "low": 0, "high": 0}


def test_resamples_without_a_class_are_left_out_and_alone_they_say_nothing():
    found = normal_interval(np.array([0.1, 0.0, np.nan, 0.2]))
    assert found == normal_interval(np.array([0.1, 0.0, 0.2]))
    with pytest.raises(ValueError, match="In no resample"):
        normal_interval(np.array([0.1, np.nan, np.nan]))
