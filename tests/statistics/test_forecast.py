"""The forecast takes off what choosing has added, and says what chance may do to test images."""

import numpy as np
import pytest

from studies.statistics.forecast import Forecast, Predicted, forecast
from studies.statistics.metrics import METRICS
from studies.statistics.optimism import selection_optimism

ACCURACY = METRICS["accuracy"]


def predicted(rng, accuracy, num_epochs=5, labels_N=None):
    labels_N = np.arange(200) % 2 if labels_N is None else labels_N
    is_right_EN = rng.random((num_epochs, len(labels_N))) < accuracy
    called_EN = np.where(is_right_EN, labels_N, 1 - labels_N)
    return Predicted(labels_N, np.where(np.arange(2) == called_EN[..., None], 0.8, 0.2))


def made(seed=0, num_trials=8, num_runs=3, metric=ACCURACY, **given):
    rng = np.random.default_rng(seed)
    trials = [predicted(rng, 0.8) for _ in range(num_trials)]
    runs = [predicted(rng, 0.8) for _ in range(num_runs)]
    options = {"num_test": 100, "num_models": 1, "num_resamples": 50}
    return forecast(trials, runs, metric, **(options | given))


def test_the_forecast_is_what_it_looks_like_less_the_optimism():
    found = made()
    assert found.epoch_optimism > 0.01
    assert found.value == pytest.approx(found.naive - found.optimism)
    assert found.low < found.value < found.high
    assert (found.num_trials, found.num_val, found.num_test) == (8, 200, 100)


def test_what_new_seeds_have_lost_already_is_not_taken_off_again():
    rng = np.random.default_rng(0)
    trials = [predicted(rng, 0.8) for _ in range(30)]
    labels_N = trials[0].labels_N
    chosen = selection_optimism(labels_N, [t.probabilities_ENC for t in trials], ACCURACY)
    same = [trials[chosen.trial]] * 3
    worse = [predicted(rng, 0.6) for _ in range(3)]
    given = {"num_test": 100, "num_models": 3, "num_resamples": 50}
    assert forecast(trials, same, ACCURACY, **given).trial_optimism > 0.005
    assert forecast(trials, worse, ACCURACY, **given).trial_optimism == 0


def test_a_smaller_loss_is_the_better_one():
    found = made(metric=METRICS["loss"])
    assert found.epoch_optimism > 0
    assert found.value == pytest.approx(found.naive + found.optimism)


def test_more_test_images_narrow_the_interval_to_what_validation_leaves_unsure():
    widths = [f.high - f.low for f in (made(num_test=n) for n in (50, 500, 10**6))]
    assert widths[0] > widths[1] > widths[2] > 0.03


def test_the_mean_over_seeds_is_surer_than_one_model():
    mean, one = made(num_models=3), made(num_models=1)
    assert mean.value == one.value
    assert mean.high - mean.low < one.high - one.low


def test_one_seed_and_one_trial_give_a_forecast_that_says_so():
    found = made(num_trials=1, num_runs=1)
    assert found.trial_optimism == 0 and not found.seeds_known
    assert found.low < found.value < found.high


def test_each_run_may_have_validation_images_of_its_own():
    rng = np.random.default_rng(1)
    orders = [rng.permutation(np.arange(200) % 2) for _ in range(3)]
    runs = [predicted(rng, 0.8, labels_N=labels_N) for labels_N in orders]
    trials = [predicted(rng, 0.8) for _ in range(4)]
    found = forecast(trials, runs, ACCURACY, num_test=100, num_models=1, num_resamples=50)
    assert 0.7 < found.value < 0.9


def test_it_tells_whether_it_held():
    found = made()
    assert found.holds(found.low) and found.holds(found.high)
    assert not found.holds(found.low - 0.01)
    assert isinstance(found, Forecast)
    assert found.as_json()["optimism"] == found.optimism


def test_without_runs_there_is_no_forecast():
    with pytest.raises(ValueError, match="1 or more runs"):
        made(num_runs=0)


def test_copies_of_images_make_the_forecast_no_surer():
    rng = np.random.default_rng(0)
    labels_N = np.arange(60) % 2
    called = [np.where(rng.random((2, 60)) < 0.85, labels_N, 1 - labels_N) for _ in range(3)]
    said = [np.where(np.arange(2) == c[..., None], 0.8, 0.2) for c in called]

    def width(copies, groups_N=None):
        runs = [
            Predicted(np.tile(labels_N, copies), np.tile(p_ENC, (1, copies, 1)), groups_N)
            for p_ENC in said
        ]
        found = forecast([], runs, METRICS["accuracy"], num_test=60 * copies, num_models=3)
        return found.high - found.low

    assert width(5, np.tile(np.arange(60), 5)) == pytest.approx(width(1), rel=0.15)
    assert width(5) < 0.7 * width(1)
