"""What is corrected is the choice that was made: best epoch of each trial, then the best trial.

Shapes: E epochs, N images, C classes. See test_optimism_simulated.py for what it is worth.
"""

import time

import numpy as np
import pytest

from studies.statistics.intervals import wilson_interval
from studies.statistics.metrics import METRICS
from studies.statistics.optimism import _bootstrap, selection_optimism

LABELS_N = np.arange(60) % 2


def trial(*wrong_by_epoch, confidence=0.9):
    """Epochs that are wrong on so many of the first images."""
    places_N = np.arange(len(LABELS_N))
    called_EN = [np.where(places_N < n, 1 - LABELS_N, LABELS_N) for n in wrong_by_epoch]
    other = 1 - confidence
    return np.stack([np.where(np.arange(2) == c[:, None], confidence, other) for c in called_EN])


def test_the_best_epoch_of_the_best_trial_is_the_choice():
    found = selection_optimism(
        LABELS_N, [trial(20, 15), trial(30, 9, 12)], METRICS["accuracy"], num_resamples=50
    )
    assert (found.trial, found.epoch) == (1, 1) and found.naive == pytest.approx(51 / 60)
    assert found.corrected.low <= found.corrected.value <= found.corrected.high
    assert found.optimism == pytest.approx(found.naive - found.corrected.value)


def test_ties_go_to_the_lower_loss():
    trials = [trial(10, confidence=0.99), trial(10, confidence=0.7)]
    losses = [METRICS["loss"](LABELS_N, rows[0]) for rows in trials]
    found = selection_optimism(LABELS_N, trials, METRICS["accuracy"], num_resamples=50)
    assert found.trial == int(np.argmin(losses))


def test_of_the_loss_the_lowest_is_chosen_and_its_optimism_is_what_was_too_low():
    found = selection_optimism(LABELS_N, [trial(20), trial(5)], METRICS["loss"], num_resamples=50)
    assert found.trial == 1


@pytest.mark.parametrize("trials", [[], [np.zeros((0, 60, 2))]])
def test_without_a_trial_or_an_epoch_there_is_no_choice(trials):
    with pytest.raises(ValueError):
        selection_optimism(LABELS_N, trials, METRICS["accuracy"])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_corrected_towards_the_worse(name):
    rng = np.random.default_rng(0)
    shift = 1.5 * (np.arange(3) == np.arange(90)[:, None] % 3)
    logits = rng.normal(size=(12, 4, 90, 3)) + shift
    trials = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = selection_optimism(np.arange(90) % 3, list(trials), METRICS[name], num_resamples=100)
    assert found.optimism > 0
    sign = 1 if METRICS[name].larger_is_better else -1
    assert sign * (found.naive - found.corrected.value) == pytest.approx(found.optimism)
    assert found.corrected.low <= found.corrected.value <= found.corrected.high


def test_where_nothing_was_chosen_nothing_is_corrected():
    found = selection_optimism(LABELS_N, [trial(12)], METRICS["accuracy"], num_resamples=2000)
    assert found.optimism == pytest.approx(0.0, abs=0.005)


def test_perfect_trials_are_perfect_and_still_have_an_interval():
    found = selection_optimism(LABELS_N, [trial(0), trial(0)], METRICS["accuracy"])
    low, _ = wilson_interval(60, 60)
    assert found.corrected.value == 1.0 and found.corrected.low == pytest.approx(low)


def test_a_class_of_one_image_is_refused_only_where_the_metric_needs_it_left_out():
    labels_N = np.r_[np.zeros(30, np.int64), 1]
    p_NC = np.where(np.arange(2) == labels_N[:, None], 0.8, 0.2)[None]
    selection_optimism(labels_N, [p_NC, p_NC], METRICS["accuracy"], num_resamples=50)
    with pytest.raises(ValueError, match="every class has 2 or more images"):
        selection_optimism(labels_N, [p_NC, p_NC], METRICS["auroc"], num_resamples=50)


def test_predictions_that_are_not_finite_are_refused():
    rows = trial(10)
    rows[0, 3, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        selection_optimism(LABELS_N, [rows], METRICS["accuracy"])


@pytest.mark.slow
def test_a_hundred_trials_of_twenty_epochs_take_seconds():
    rng = np.random.default_rng(0)
    labels_N = np.arange(400) % 2
    p = 1 / (1 + np.exp(-rng.normal(size=(100, 20, 400)) - 1.5 * (labels_N - 0.5)))
    trials = list(np.stack([1 - p, p], axis=-1))
    started = time.perf_counter()
    selection_optimism(labels_N, trials, METRICS["accuracy"])
    assert time.perf_counter() - started < 10  # Half a second on one quiet core.


def test_images_of_groups_are_left_out_together():
    labels_N, groups_N = np.arange(40) % 2, np.arange(40) // 8 * 2 + np.arange(40) % 2
    for counts_N in _bootstrap(labels_N, 50, 0, groups_N):
        for group in range(10):
            assert len(set(counts_N[groups_N == group])) == 1


def test_copies_of_images_make_the_corrected_value_no_surer():
    rng = np.random.default_rng(0)
    labels_N = np.arange(40) % 2
    called = [np.where(rng.random((3, 40)) < 0.85, labels_N, 1 - labels_N) for _ in range(4)]
    trials = [np.where(np.arange(2) == c[..., None], 0.8, 0.2) for c in called]
    accuracy, groups_N = METRICS["accuracy"], np.tile(np.arange(40), 5)
    once = selection_optimism(labels_N, trials, accuracy)
    tiled = [np.tile(trial, (1, 5, 1)) for trial in trials]
    copies = selection_optimism(np.tile(labels_N, 5), tiled, accuracy, groups_N=groups_N)
    assert copies.corrected.value == pytest.approx(once.corrected.value, abs=0.02)
    widths = [found.corrected.high - found.corrected.low for found in (once, copies)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
