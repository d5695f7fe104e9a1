"""Simulated validation and test images with one planted cause, and models that know a class.

Shapes: N images, S seeds, C = 2 classes, D features.
"""

import numpy as np

from studies.explanation.explain import Predictions
from studies.explanation.shift import Seen
from studies.statistics.forecast import Forecast
from studies.statistics.metrics import METRICS

NUM_FEATURES, NUM_SEEDS = 40, 2
SPREADS = 1 / np.sqrt(np.arange(1, NUM_FEATURES + 1))


def drawn(rng, num_images, share=0.5, shift=0.0):
    """Labels and features; class 0 moves by ``shift``, partly to where class 1 is."""
    labels_N = (np.arange(num_images) >= round((1 - share) * num_images)).astype(np.int64)
    features_ND = rng.normal(size=(num_images, NUM_FEATURES)) * SPREADS
    features_ND[:, 0] += 1.3 * (2 * labels_N - 1)
    features_ND[labels_N == 0, 0] += 0.8 * shift
    features_ND[labels_N == 0, 3] += SPREADS[3] * shift
    return labels_N, features_ND


def logits(rng, features_ND, slopes_SD, flips=0.0, bias=0.0):
    """Of models that differ a little; ``flips`` of their answers turn round, whatever is seen.

    ``bias`` is for class 1.
    """
    margins_SN = 2 * (features_ND[:, 0] + bias + slopes_SD @ features_ND.T)
    turned_N = np.where(rng.random(len(features_ND)) < flips, -1.0, 1.0)
    return np.stack([-margins_SN * turned_N, margins_SN * turned_N], axis=2) / 2


def evidence(
    seed,
    *,
    num_val=100,
    num_test=200,
    val_share=0.5,
    test_share=0.5,
    shift=0.0,
    flips=0.0,
    bias=0.0,
    wrong_labels=0.0,
):
    """As ``points_lost.explain`` takes it; shares are of class 1, ``wrong_labels`` at test."""
    rng = np.random.default_rng(seed)
    slopes_SD = 0.3 * rng.normal(size=(NUM_SEEDS, NUM_FEATURES)) * SPREADS
    train_labels_M, train_features_MD = drawn(rng, 3 * num_val, val_share)
    val_labels_V, val_features_VD = drawn(rng, num_val, val_share)
    test_labels_N, test_features_ND = drawn(rng, num_test, test_share, shift)
    val_logits_SVC = logits(rng, val_features_VD, slopes_SD, bias=bias)
    test_logits_SNC = logits(rng, test_features_ND, slopes_SD, flips, bias)
    is_wrong_N = rng.random(num_test) < wrong_labels
    return Predictions(
        train_labels_M=train_labels_M,
        train_features_MD=train_features_MD,
        val_labels_V=val_labels_V,
        val_features_VD=val_features_VD,
        val_logits_SVC=val_logits_SVC,
        test_labels_N=np.where(is_wrong_N, 1 - test_labels_N, test_labels_N),
        test_features_ND=test_features_ND,
        test_logits_SNC=test_logits_SNC,
    )


def softmax(logits_SNC):
    odds = np.exp(logits_SNC - logits_SNC.max(axis=2, keepdims=True))
    return odds / odds.sum(axis=2, keepdims=True)


def seen(found):
    """Validation and test images, as ``waterfall.find_path`` takes them."""
    return (
        Seen(
            labels_N=found.val_labels_V,
            probabilities_SNC=softmax(found.val_logits_SVC),
            features_ND=found.val_features_VD,
        ),
        Seen(
            labels_N=found.test_labels_N,
            probabilities_SNC=softmax(found.test_logits_SNC),
            features_ND=found.test_features_ND,
        ),
    )


def forecast_for(found, metric="accuracy", epochs=0.0, trials=0.0, half=0.08):
    """A forecast with the optimism that is given; ``half`` is half its interval."""
    val, test = seen(found)
    naive = float(np.mean([METRICS[metric](val.labels_N, p) for p in val.probabilities_SNC]))
    sign = 1.0 if METRICS[metric].larger_is_better else -1.0
    value = naive - sign * (epochs + trials)
    return Forecast(
        value=value,
        low=value - half,
        high=value + half,
        naive=naive,
        epoch_optimism=epochs,
        trial_optimism=trials,
        num_models=NUM_SEEDS,
        num_trials=10,
        num_val=len(val.labels_N),
        num_test=len(test.labels_N),
        seeds_known=True,
    )
