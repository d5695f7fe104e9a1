"""Temperature and threshold: from logits to probabilities that can be read, and to a class.

Both are chosen on validation images. Pure functions; knows nothing of studies or of torch.

Legend: N images, C classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

LOWEST, HIGHEST = 0.01, 100.0
UNCHANGED, MIDDLE = 1.0, 0.5


def probabilities(logits_NC: NDArray[np.floating], temperature: float) -> Floats:
    """Calibrated probabilities (N, C): the softmax of the logits over the temperature."""
    return np.asarray(softmax(np.asarray(logits_NC, np.float64) / temperature, axis=1))


def uncalibrated(logits: NDArray[np.floating]) -> Floats:
    """Probabilities before temperature: the softmax of logits (..., N, C)."""
    return np.asarray(softmax(np.asarray(logits, np.float64), axis=-1))


def negative_log_likelihood(
    logits_NC: NDArray[np.floating], labels_N: Labels, temperature: float
) -> float:
    """Mean negative log likelihood of the labels."""
    scaled_NC = log_softmax(np.asarray(logits_NC, np.float64) / temperature, axis=1)
    return -float(np.mean(scaled_NC[np.arange(len(labels_N)), labels_N]))


def find_temperature(logits_NC: NDArray[np.floating], labels_N: Labels) -> float:
    """The temperature in 0.01..100 with the least negative log likelihood of these images.

    Where every image is classified right the likelihood grows without end as the temperature
    falls: nothing can be said of it, and 1 leaves the probabilities as they are.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.

    Raises:
        ValueError: no image, or a logit that is not finite.
    """
    logits_NC = np.asarray(logits_NC, np.float64)
    if not len(labels_N) or not np.isfinite(logits_NC).all():
        raise ValueError("A temperature needs one image or more, and finite logits.")
    true_N = logits_NC[np.arange(len(labels_N)), labels_N]
    if (true_N == logits_NC.max(axis=1)).all():
        return UNCHANGED

    def slope(inverse: float) -> float:
        """Of the negative log likelihood, which is convex, by one over the temperature."""
        expected_N = (softmax(inverse * logits_NC, axis=1) * logits_NC).sum(axis=1)
        return float(np.mean(expected_N - true_N))

    hottest, coldest = 1 / HIGHEST, 1 / LOWEST
    if slope(hottest) >= 0:
        return HIGHEST
    if slope(coldest) <= 0:
        return LOWEST
    return 1 / float(brentq(slope, hottest, coldest, xtol=1e-12, rtol=1e-12))


def find_threshold(probabilities_NC: Floats, labels_N: Labels) -> float | None:
    """The least probability of class 1 of two at which an image is called class 1.

    It has the highest balanced accuracy on these images; of equals the one nearest to 0.5, then
    the lower one. It stands in the middle between two images. None for more classes than two.
    """
    if probabilities_NC.shape[1] != 2:
        return None
    positive_N = probabilities_NC[:, 1]
    distinct = np.unique(positive_N)
    found = np.append((distinct[1:] + distinct[:-1]) / 2, MIDDLE)

    def rank(threshold: float) -> tuple[float, float, float]:
        called_N = positive_N >= threshold
        shares = [np.mean(called_N[labels_N == label] == label) for label in np.unique(labels_N)]
        # Rounded: sums of the same shares in another order are equals.
        return -round(float(np.mean(shares)), 12), abs(threshold - MIDDLE), threshold

    return min(map(float, found), key=rank)


def called(probabilities_NC: Floats, threshold: float | None) -> Labels:
    """The class that each image is called, (N,): by the threshold, or the most probable one."""
    if threshold is None:
        return np.asarray(probabilities_NC.argmax(axis=1), dtype=np.int64)
    return np.asarray(probabilities_NC[:, 1] >= threshold, dtype=np.int64)
