"""What is corrected is the choice that was made: best epoch of each trial, then the best trial.

Shapes: E epochs, N images, C classes. See test_optimism_simulated.py for what it is worth.
"""

import numpy as np
import pytest

from studies.optimism import selection_optimism
from studies.scores import METRICS

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
