"""The loss of predictions however sure they are of themselves: what chooses best by few images.

Pure functions of arrays. Legend: N images, C classes, T temperatures.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# A quarter of an octave apart, from 1/16 to 128.
TEMPERATURES: Floats = 2.0 ** (np.arange(-16, 29) / 4)


def calibrated_loss(logits_NC: NDArray[np.floating], labels_N: Labels) -> float:
    """Mean cross-entropy in nats at the temperature, from 1/16 to 128, that makes it smallest.

    Of finite logits, and of labels that are moved a little towards each other (``targets``): where
    all images are classified right, the loss would else fall towards 0 with the temperature, and
    the one image that is nearest to the boundary would order the models.

    Sources: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2:
    temperature; J. Platt, "Probabilistic outputs for support vector machines", Advances in Large
    Margin Classifiers (1999), section 2.2: targets.
    """
    losses, means = _Losses(logits_NC, labels_N), dict[int, float]()

    def mean(place: int) -> float:
        if place not in means:
            means[place] = float(losses.at(TEMPERATURES[place]).mean())
        return means[place]

    # The loss is convex in 1 / temperature: it falls until its lowest point, and rises behind it.
    low, high = 0, len(TEMPERATURES) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if mean(middle) <= mean(middle + 1) else (middle + 1, high)
    inner = min(max(low, 1), len(TEMPERATURES) - 2)
    return float(smallest(np.array([mean(inner + step) for step in (-1, 0, 1)])))


def targets(labels_N: Labels, num_classes: int) -> Floats:
    """The probabilities (N, C) that labels stand for: (n + 1) / (n + 2) in a class of n images.

    The rest is shared by the other classes.
    """
    sure_N = 1 - 1 / (np.bincount(labels_N, minlength=num_classes)[labels_N] + 2)
    targets_NC = np.repeat((1 - sure_N[:, None]) / (num_classes - 1), num_classes, axis=1)
    targets_NC[np.arange(len(labels_N)), labels_N] = sure_N
    return targets_NC


def losses_by_temperature(logits_NC: NDArray[np.floating], labels_N: Labels) -> Floats:
    """Cross-entropy in nats of every image at each temperature. Shape TxN.

    Logarithms of probabilities will do as well: what is added to a row of logits changes nothing.
    """
    losses = _Losses(logits_NC, labels_N)
    return np.stack([losses.at(temperature) for temperature in TEMPERATURES])


class _Losses:
    """Cross-entropy of every image at any temperature: what does not depend on it, once."""

    def __init__(self, logits_NC: NDArray[np.floating], labels_N: Labels) -> None:
        logits_NC = np.asarray(logits_NC, np.float64)
        self.below_NC: Floats = logits_NC - logits_NC.max(axis=1, keepdims=True)
        self.right_N: Floats = (targets(labels_N, logits_NC.shape[1]) * self.below_NC).sum(axis=1)

    def at(self, temperature: float) -> Floats:
        """Shape N."""
        sums_N = np.exp(self.below_NC / temperature).sum(axis=1)
        losses_N: Floats = np.log(sums_N) - self.right_N / temperature
        return losses_N


def smallest(losses_T: Floats) -> Floats:
    """The smallest loss over all temperatures, of losses (..., T) at these. Shape (...).

    The lowest point of the parabola through the smallest and its neighbours: within 0.0005 nats.
    """
    place = losses_T.argmin(axis=-1, keepdims=True)
    inner = np.clip(place, 1, losses_T.shape[-1] - 2)
    left, middle, right = (
        np.take_along_axis(losses_T, inner + step, axis=-1)[..., 0] for step in (-1, 0, 1)
    )
    curvature = np.maximum(left - 2 * middle + right, np.finfo(np.float64).tiny)
    lowest = middle - (left - right) ** 2 / (8 * curvature)
    at_an_edge = (place != inner)[..., 0]
    found: Floats = np.where(at_an_edge, losses_T.min(axis=-1), lowest)
    return found
