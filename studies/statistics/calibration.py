"""Calibration and threshold: from logits to probabilities that can be read, and to a class.

Both are chosen on validation images. Pure functions; knows nothing of studies or of torch.

Legend: N images, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from transfer.training.calibrated_loss import targets

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

LOWEST, HIGHEST = 0.01, 100.0
UNCHANGED, MIDDLE = 1.0, 0.5
# Images of each class that a bias for it needs where there are more classes than two.
FEWEST_IMAGES = 50


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Logits z become ``scale`` * z + ``biases`` (C,), the first of which is 0."""

    scale: float
    biases: tuple[float, ...]

    @classmethod
    def of_temperature(cls, temperature: float, num_classes: int) -> "Calibration":
        """Logits over a temperature, without biases."""
        return cls(scale=1 / temperature, biases=(0.0,) * num_classes)

    def logits(self, logits_NC: NDArray[np.floating]) -> Floats:
        """Calibrated logits (N, C)."""
        scaled_NC: Floats = self.scale * np.asarray(logits_NC, np.float64) + self.biases
        return scaled_NC

    def probabilities(self, logits_NC: NDArray[np.floating]) -> Floats:
        """Calibrated probabilities (N, C)."""
        return np.asarray(softmax(self.logits(logits_NC), axis=1))


def probabilities(logits_NC: NDArray[np.floating], temperature: float) -> Floats:
    """The softmax (N, C) of the logits over the temperature."""
    return np.asarray(softmax(np.asarray(logits_NC, np.float64) / temperature, axis=1))


def uncalibrated(logits: NDArray[np.floating]) -> Floats:
    """Probabilities before calibration: the softmax of logits (..., N, C)."""
    return np.asarray(softmax(np.asarray(logits, np.float64), axis=-1))


def negative_log_likelihood(
    logits_NC: NDArray[np.floating], labels_N: Labels, calibration: Calibration
) -> float:
    """Mean negative log likelihood of the labels."""
    scaled_NC = log_softmax(calibration.logits(logits_NC), axis=1)
    return -float(np.mean(scaled_NC[np.arange(len(labels_N)), labels_N]))


def find_calibration(logits_NC: NDArray[np.floating], labels_N: Labels) -> Calibration:
    """The calibration with the least negative log likelihood of these images.

    Two classes get a scale and a bias (Platt), fitted to labels that are moved a little towards
    each other, so that images which are all classified right have a best fit too. More classes
    get a temperature and biases where each class has 50 images, else a temperature alone. The
    scale is kept in 0.01..100, so that no calibration turns the order of the images round.
    Images of one class alone leave the probabilities as they are.

    Sources: J. Platt, "Probabilistic outputs for support vector machines", Advances in Large
    Margin Classifiers (1999), section 2.2; A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum
    likelihood with bias-corrected calibration is hard-to-beat at label shift adaptation", ICML
    2020: temperature and biases.

    Raises:
        ValueError: no image, or a logit that is not finite.
    """
    logits_NC = _checked(logits_NC, labels_N)
    num_classes = logits_NC.shape[1]
    counts_C = np.bincount(labels_N, minlength=num_classes)
    if (counts_C > 0).sum() == 1:
        return Calibration.of_temperature(UNCHANGED, num_classes)
    if num_classes > 2 and (counts_C.min() < FEWEST_IMAGES or _all_right(logits_NC, labels_N)):
        return Calibration.of_temperature(find_temperature(logits_NC, labels_N), num_classes)
    true_NC = targets(labels_N, 2) if num_classes == 2 else np.eye(num_classes)[labels_N]
    scale, biases_C = fit_scale_and_biases(logits_NC, true_NC, bounds=(LOWEST, HIGHEST))
    return Calibration(scale=scale, biases=tuple(map(float, biases_C)))


def fit_scale_and_biases(
    logits_NC: Floats, true_NC: Floats, *, bounds: tuple[float, float]
) -> tuple[float, Floats]:
    """Scale and biases (C,) of the logits with the least cross-entropy to ``true_NC``.

    The first bias is 0. The scale stays within ``bounds``; where both are the same it is that.
    """
    spread = max(float((logits_NC - logits_NC.mean(axis=1, keepdims=True)).std()), 1e-12)
    unit_NC = logits_NC / spread  # So that one step fits the scale and the biases.

    def cost(values: Floats) -> tuple[float, Floats]:
        log_NC = log_softmax(values[0] * unit_NC + np.array([0.0, *values[1:]]), axis=1)
        excess_NC = np.exp(log_NC) - true_NC
        slopes = np.array([(excess_NC * unit_NC).sum(), *excess_NC[:, 1:].sum(axis=0)])
        return -float((true_NC * log_NC).sum()) / len(true_NC), slopes / len(true_NC)

    low, high = (bound * spread for bound in bounds)
    start = np.zeros(true_NC.shape[1])
    start[0] = np.clip(spread, low, high)
    found = minimize(
        cost,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high), *[(None, None)] * (len(start) - 1)],
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000},
    )
    return float(found.x[0] / spread), np.array([0.0, *found.x[1:]])


def _checked(logits_NC: NDArray[np.floating], labels_N: Labels) -> Floats:
    checked_NC: Floats = np.asarray(logits_NC, np.float64)
    if not len(labels_N) or not np.isfinite(checked_NC).all():
        raise ValueError("A calibration needs one image or more, and finite logits.")
    return checked_NC


def _all_right(logits_NC: Floats, labels_N: Labels) -> bool:
    true_N = logits_NC[np.arange(len(labels_N)), labels_N]
    return bool((true_N == logits_NC.max(axis=1)).all())


def find_temperature(logits_NC: NDArray[np.floating], labels_N: Labels) -> float:
    """The temperature in 0.01..100 with the least negative log likelihood of these images.

    Where every image is classified right the likelihood grows without end as the temperature
    falls: nothing can be said of it, and 1 leaves the probabilities as they are.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.

    Raises:
        ValueError: no image, or a logit that is not finite.
    """
    logits_NC = _checked(logits_NC, labels_N)
    if _all_right(logits_NC, labels_N):
        return UNCHANGED
    true_N = logits_NC[np.arange(len(labels_N)), labels_N]

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
