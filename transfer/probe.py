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


def solve_probe(
    features_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64] | None = None,
) -> Probe:
    """Logistic regression on standardised features, every class of ``labels_N`` in it.

    Its L2 penalty is chosen by three-fold cross-validation on the log loss.

    Args:
        groups_N: whose picture each is. Those of one group are in one fold: else a penalty is
            chosen that is good at recognising subjects.
    """
    from sklearn.exceptions import ConvergenceWarning  # It takes a second to import.

    mean_D, std_D = features_ND.mean(axis=0), features_ND.std(axis=0)
    std_D = np.where(std_D > 0, std_D, 1.0).astype(np.float64)
    standardised_ND = (features_ND - mean_D) / std_D
    model = _model(labels_N, groups_N)
    with warnings.catch_warnings():
        # A start need not be the optimum to the last digit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(standardised_ND, labels_N)
    weight_CD, bias_C = model.coef_ / std_D, model.intercept_
    if len(weight_CD) == 1:  # Two classes have one margin: half of it for each, with its sign.
        weight_CD, bias_C = (np.concatenate([-both, both]) / 2 for both in (weight_CD, bias_C))
    return Probe(weight_CD, bias_C - weight_CD @ mean_D)


def _model(labels_N: NDArray[np.int64], groups_N: NDArray[np.int64] | None) -> Any:
    """A logistic regression whose penalty is chosen, where there is something to validate on."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

    folds = _folds(labels_N, groups_N)
    if folds is None:
        return LogisticRegression(C=0.01, max_iter=1000)
    return LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=folds,
        scoring="neg_log_loss",
        max_iter=1000,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )


def _folds(labels_N: NDArray[np.int64], groups_N: NDArray[np.int64] | None) -> Any:
    """A number of folds, or the folds of groups; None where some class would be missing in one."""
    from sklearn.model_selection import StratifiedGroupKFold

    classes, label_N, sizes = np.unique(labels_N, return_inverse=True, return_counts=True)
    if groups_N is None or len(np.unique(groups_N)) == len(groups_N):
        return min(3, int(sizes.min())) if sizes.min() > 1 else None
    num_groups = min(len(np.unique(groups_N[label_N == label])) for label in range(len(classes)))
    for num_folds in range(min(3, num_groups), 1, -1):
        splitter = StratifiedGroupKFold(num_folds)
        with warnings.catch_warnings():
            # It warns of classes smaller than the number of folds; what matters is checked below.
            warnings.simplefilter("ignore", UserWarning)
            folds = list(splitter.split(np.zeros(len(labels_N)), labels_N, groups_N))
        if all(len(np.unique(labels_N[part])) == len(classes) for fold in folds for part in fold):
            return folds
    return None
