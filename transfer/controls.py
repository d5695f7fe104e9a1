"""Classifiers that every network must beat, on features that nobody has trained.

Knows arrays; nothing of networks, splits or studies.

Legend: N images, D features, C classes.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from transfer.probe import solve_probe

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


class Fit(Protocol):
    """Fitted to features, labels and groups of training images.

    What it gives goes from features to probabilities (N, C). Groups are None where nobody knows
    whose pictures they are.
    """

    def __call__(
        self,
        features_ND: Features,
        labels_N: Labels,
        num_classes: int,
        groups_N: Labels | None = None,
    ) -> Callable[[Features], Probabilities]: ...


NUM_NEIGHBOURS = 11


def majority(
    features_ND: Features, labels_N: Labels, num_classes: int, groups_N: Labels | None = None
) -> Callable[[Features], Probabilities]:
    """The shares of the classes among the training images, whatever the image."""
    shares_C = np.bincount(labels_N, minlength=num_classes) / len(labels_N)
    return lambda others_ND: np.tile(shares_C, (len(others_ND), 1))


def nearest_neighbours(
    features_ND: Features, labels_N: Labels, num_classes: int, groups_N: Labels | None = None
) -> Callable[[Features], Probabilities]:
    """The share of each class among the 11 nearest training images, of standardised features.

    11 as in S. Doerrich et al., "Rethinking model prototyping through the MedMNIST+ dataset
    collection", Scientific Reports 15 (2025).
    """
    from sklearn.neighbors import KNeighborsClassifier  # It takes a second to import.

    mean_D, std_D = features_ND.mean(axis=0), features_ND.std(axis=0)
    scale_D = np.where(std_D > 0, std_D, 1.0)
    model = KNeighborsClassifier(min(NUM_NEIGHBOURS, len(labels_N)))
    model.fit((features_ND - mean_D) / scale_D, labels_N)

    def predict(others_ND: Features) -> Probabilities:
        found_NC = model.predict_proba((others_ND - mean_D) / scale_D)
        probabilities_NC = np.zeros((len(others_ND), num_classes))
        probabilities_NC[:, model.classes_] = found_NC
        return probabilities_NC

    return predict


def logistic_regression(
    features_ND: Features, labels_N: Labels, num_classes: int, groups_N: Labels | None = None
) -> Callable[[Features], Probabilities]:
    """The probe: logistic regression whose penalty is chosen by cross-validation."""
    probe = solve_probe(features_ND, labels_N, groups_N)

    def predict(others_ND: Features) -> Probabilities:
        logits_NC = others_ND.astype(np.float64) @ probe.weight_CD.T + probe.bias_C
        exponentials_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        probabilities_NC: Probabilities = exponentials_NC / exponentials_NC.sum(
            axis=1, keepdims=True
        )
        return probabilities_NC

    return predict


# Those that look at features, and need a backbone for it.
ON_FEATURES: Mapping[str, Fit] = {
    "knn": nearest_neighbours,
    "logistic_regression": logistic_regression,
}
CONTROLS: Mapping[str, Fit] = {"majority": majority, **ON_FEATURES}
