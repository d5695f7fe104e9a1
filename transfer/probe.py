"""A probe: logistic regression on pooled features. Knows arrays; nothing of networks.

Legend: N images, D features, C classes.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Inverse regularisation strengths among which one is chosen by cross-validation.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Probe(NamedTuple):
    """A linear classifier of features as they are: ``features_ND @ weight_CD.T + bias_C``."""

    weight_CD: NDArray[np.float64]
    bias_C: NDArray[np.float64]


def solve_probe(features_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Probe:
    """Logistic regression on standardised features, every class of ``labels_N`` in it.

    Its L2 penalty is chosen by three-fold cross-validation on the log loss.
    """
    from sklearn.exceptions import ConvergenceWarning  # It takes a second to import.

    mean_D, std_D = features_ND.mean(axis=0), features_ND.std(axis=0)
    std_D = np.where(std_D > 0, std_D, 1.0).astype(np.float64)
    standardised_ND = (features_ND - mean_D) / std_D
    model = _model(int(np.unique(labels_N, return_counts=True)[1].min()))
    with warnings.catch_warnings():
        # A start need not be the optimum to the last digit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(standardised_ND, labels_N)
    weight_CD, bias_C = model.coef_ / std_D, model.intercept_
    if len(weight_CD) == 1:  # Two classes have one margin: half of it for each, with its sign.
        weight_CD, bias_C = (np.concatenate([-both, both]) / 2 for both in (weight_CD, bias_C))
    return Probe(weight_CD, bias_C - weight_CD @ mean_D)


def _model(num_images: int) -> Any:
    """A logistic regression for data whose smallest class has this many images."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

    if num_images < 2:  # No second image to validate on.
        return LogisticRegression(C=0.01, max_iter=1000)
    return LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=min(3, num_images),
        scoring="neg_log_loss",
        max_iter=1000,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
