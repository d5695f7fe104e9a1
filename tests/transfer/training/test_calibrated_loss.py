"""The calibrated loss: smallest over temperatures, whatever a model says it is sure of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from transfer.training.calibrated_loss import TEMPERATURES, calibrated_loss


def predictions(seed, num_images=60, num_classes=2, scale=1.0):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % num_classes
    logits_NC = rng.normal(size=(num_images, num_classes)) + np.eye(num_classes)[labels_N]
    return (scale * logits_NC).astype(np.float32), labels_N


@given(st.integers(0, 50), st.sampled_from([2, 3]), st.sampled_from([0.2, 1.0, 5.0]))
def test_it_is_the_smallest_loss_over_all_temperatures(seed, num_classes, scale):
    logits_NC, labels_N = predictions(seed, num_classes=num_classes, scale=scale)

    # 30 or 20 images of each class.
    sure = 1 - 1 / (60 / num_classes + 2)
    right_NC = torch.from_numpy(np.eye(num_classes)[labels_N])
    targets_NC = torch.where(right_NC == 1, sure, (1 - sure) / (num_classes - 1))

    def loss(log_temperature):
        scaled = torch.from_numpy(logits_NC).double() / np.exp(log_temperature)
        return float(torch.nn.functional.cross_entropy(scaled, targets_NC))

    smallest = minimize_scalar(loss, bounds=np.log(TEMPERATURES[[0, -1]]), method="bounded").fun
    assert calibrated_loss(logits_NC, labels_N) == pytest.approx(smallest, abs=5e-4)


def test_how_sure_a_model_is_of_itself_changes_nothing():
    logits_NC, labels_N = predictions(0)
    sure = calibrated_loss(2 ** (9 / 4) * logits_NC.astype(np.float64), labels_N)
    assert sure == pytest.approx(calibrated_loss(logits_NC, labels_N), abs=1e-9)


def test_where_all_are_right_it_is_not_decided_by_the_one_that_was_nearly_wrong():
    labels_N = np.arange(40) % 2
    sign_N = 2 * labels_N - 1
    alike_N, one_close_N = 1.0 * sign_N, 5.0 * sign_N
    one_close_N[0] = 0.01 * sign_N[0]
    wild_N = sign_N * np.where(np.arange(40) % 3 == 0, 0.02, 9.0)
    losses = [
        calibrated_loss(np.stack([-margin_N, margin_N], axis=1), labels_N)
        for margin_N in (alike_N, one_close_N, wild_N)
    ]
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] - losses[0] < 0.1 < losses[2] - losses[0]
