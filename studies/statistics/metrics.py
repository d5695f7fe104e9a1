"""Metrics of stored predictions, of one set of images or of many resamples of it at once.

Legend: N images, C classes, B resamples. Labels are int64 in [0, C), probabilities float64 with
rows that sum to 1. Knows nothing of studies, loads no torch. ``f1`` is the macro average, as in
``transfer.training.metrics``: the number that chose a trial and the number in the report are the
same one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from transfer.training.calibrated_loss import losses_by_temperature, smallest

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Metric = Callable[[Labels, Floats], float]
Weighted = Callable[[Labels, Floats, Floats], Floats]

SMALLEST_PROBABILITY = 1e-12  # A probability of 0 for the true class costs 27.6 nats, not inf.


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric that can weigh images, so that thousands of resamples are a matrix product.

    ``weighted(labels_N, probabilities_NC, weights_BN)`` returns B values, NaN where a resample
    has no image that it needs. ``bounded``: values are shares, or
    means of such, in [0, 1]. ``by_class``: every class
    counts the same, however few its images. ``num_images``: how many images it looks at, where
    that is some of them.
    """

    name: str
    weighted: Weighted
    larger_is_better: bool = True
    bounded: bool = True
    by_class: bool = False
    num_images: float | None = None

    def __call__(self, labels_N: Labels, probabilities_NC: Floats) -> float:
        """The metric of these images.

        Raises:
            ValueError: ``check_predictions`` refuses them, or the metric is not defined for them.
        """
        check_predictions(labels_N, probabilities_NC)
        ones_1N = np.ones((1, len(labels_N)))
        value = float(self.weighted(labels_N, probabilities_NC, ones_1N)[0])
        if np.isnan(value):
            present = ", ".join(map(str, np.unique(labels_N)))
            raise ValueError(
                f"`2 or more classes have images` must hold for {self.name}, but got images of "
                f"class {present} alone."
            )
        return value


def check_predictions(labels_N: Labels, probabilities_NC: Floats) -> None:
    """Refuse what is not labels and probabilities of the same images.

    Raises:
        ValueError: shapes don't fit, a label is no class, a probability is NaN or not in [0, 1],
            or the rows don't sum to 1 (logits, say).
    """
    labels, probabilities = np.asarray(labels_N), np.asarray(probabilities_NC)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise ValueError(
            "`labels_N` must be whole numbers of 1 or more images, but got "
            f"{labels.dtype} of shape {labels.shape}."
        )
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or probabilities.shape[1] < 2:
        raise ValueError(
            f"`probabilities_NC.shape == ({len(labels)}, C)` with 2 or more classes must hold, "
            f"but got {probabilities.shape}."
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"`0 <= labels_N < {probabilities.shape[1]}` must hold, but got labels from "
            f"{labels.min()} to {labels.max()}."
        )
    if not np.isfinite(probabilities).all():
        count = int((~np.isfinite(probabilities)).any(axis=1).sum())
        raise ValueError(f"`probabilities_NC` must be finite, but got NaN or inf in {count} rows.")
    # Probabilities may have been stored as float16.
    sums_N = probabilities.sum(axis=1)
    if probabilities.min() < 0 or np.abs(sums_N - 1).max() > 0.01:
        raise ValueError(
            "`probabilities_NC >= 0` and rows that sum to 1 must hold, but got values from "
            f"{probabilities.min():.3g} and sums from {sums_N.min():.3g} to {sums_N.max():.3g}. "
            "Logits need a softmax first."
        )


def weighted_values(
    metric: Metric, labels_N: Labels, probabilities_NC: Floats, counts_BN: Floats
) -> Floats:
    """Any metric of B resamples: weighted where it is a ``Score``, else one call a resample."""
    if isinstance(metric, Score):
        return metric.weighted(labels_N, probabilities_NC, counts_BN)
    everyone = np.arange(len(labels_N))
    drawn = (np.repeat(everyone, counts_N) for counts_N in counts_BN.astype(np.int64))
    return np.array([metric(labels_N[i], probabilities_NC[i]) for i in drawn], dtype=np.float64)


def _correct(labels_N: Labels, probabilities_NC: Floats) -> Floats:
    correct_N: Floats = (probabilities_NC.argmax(axis=1) == labels_N).astype(np.float64)
    return correct_N


def _one_hot(labels_N: Labels, num_classes: int) -> Floats:
    member_NC: Floats = (labels_N[:, None] == np.arange(num_classes)).astype(np.float64)
    return member_NC


def _mean(values_N: Floats, weights_BN: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = (weights_BN @ values_N) / weights_BN.sum(axis=1)
    return mean


def _mean_of_classes(parts_BC: Floats, wholes_BC: Floats) -> Floats:
    # A class that a resample does not have says nothing; it is left out of the mean.
    known_BC = wholes_BC > 0
    shares_BC = np.divide(parts_BC, wholes_BC, out=np.zeros_like(parts_BC), where=known_BC)
    num_known_B = known_BC.sum(axis=1)
    return np.where(num_known_B > 0, shares_BC.sum(axis=1) / np.maximum(num_known_B, 1), np.nan)


def _accuracy(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    return _mean(_correct(labels_N, probabilities_NC), weights_BN)


def _balanced_accuracy(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    true_NC = _one_hot(labels_N, probabilities_NC.shape[1])
    correct_N = _correct(labels_N, probabilities_NC)
    return _mean_of_classes(weights_BN @ (true_NC * correct_N[:, None]), weights_BN @ true_NC)


def _f1(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    num_classes = probabilities_NC.shape[1]
    true_NC = _one_hot(labels_N, num_classes)
    predicted_NC = _one_hot(probabilities_NC.argmax(axis=1), num_classes)
    hits_BC = weights_BN @ (true_NC * predicted_NC)
    return _mean_of_classes(2 * hits_BC, weights_BN @ (true_NC + predicted_NC))


def _loss(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    return _mean(losses(labels_N, probabilities_NC), weights_BN)


def _calibrated_loss(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    """The mean loss at the temperature that makes it smallest for these images."""
    log_NC = np.log(np.maximum(probabilities_NC, np.finfo(np.float64).tiny))
    losses_TN = losses_by_temperature(log_NC, labels_N)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_BT = (weights_BN @ losses_TN.T) / weights_BN.sum(axis=1, keepdims=True)
    return smallest(mean_BT)


def losses(labels_N: Labels, probabilities_NC: Floats) -> Floats:
    """Negative log likelihood of every image in nats, at most 27.6. Shape N."""
    likelihood_N = probabilities_NC[np.arange(len(labels_N)), labels_N]
    nats_N: Floats = -np.log(np.clip(likelihood_N, SMALLEST_PROBABILITY, 1.0))
    return nats_N


def log_odds(probabilities_NC: Floats) -> Floats:
    """Of every class log p - log(1 - p), which doesn't saturate at a probability of 1. Shape N, C.

    The same as ``transfer.training.metrics.log_odds`` of the logits.
    """
    # 1 - 1e-20 is 1.0, but 1e-20 beside it still tells which of two certain images is surer: what
    # is left of 1 is the sum of the others. Over the sorted ones, so that images that have the
    # same in another order are a tie.
    p_NC = np.maximum(probabilities_NC, np.finfo(np.float64).tiny)
    order_NC = np.argsort(-p_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(p_NC, order_NC, axis=1)
    rest_NC = np.zeros_like(sorted_NC)
    rest_NC[:, 1:] = np.cumsum(sorted_NC, axis=1)[:, :-1]
    rest_NC[:, :-1] += np.cumsum(sorted_NC[:, ::-1], axis=1)[:, ::-1][:, 1:]
    odds_NC = np.empty_like(p_NC)
    np.put_along_axis(odds_NC, order_NC, np.log(sorted_NC) - np.log(rest_NC), axis=1)
    return odds_NC


def _auroc(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    num_classes = probabilities_NC.shape[1]
    scores_NC = log_odds(probabilities_NC)
    if num_classes == 2:
        return _auroc_of(labels_N == 1, scores_NC[:, 1], weights_BN)
    against_rest_CB = np.array(
        [_auroc_of(labels_N == c, scores_NC[:, c], weights_BN) for c in range(num_classes)]
    )
    known_CB = ~np.isnan(against_rest_CB)
    total_B, num_known_B = np.nansum(against_rest_CB, axis=0), known_CB.sum(axis=0)
    return np.where(num_known_B > 0, total_B / np.maximum(num_known_B, 1), np.nan)


def _auroc_of(positive_N: NDArray[np.bool_], scores_N: Floats, weights_BN: Floats) -> Floats:
    """Share of pairs in the right order, ties half (Mann-Whitney), by one pass over the order."""
    order = np.argsort(scores_N, kind="stable")
    starts = np.flatnonzero(np.diff(scores_N[order], prepend=-np.inf))
    ordered_BN, positive_N = weights_BN[:, order], positive_N[order]
    positive_BG = np.add.reduceat(ordered_BN * positive_N, starts, axis=1)
    negative_BG = np.add.reduceat(ordered_BN * ~positive_N, starts, axis=1)
    below_BG = np.cumsum(negative_BG, axis=1) - negative_BG / 2
    pairs_B = positive_BG.sum(axis=1) * negative_BG.sum(axis=1)
    won_B = (positive_BG * below_BG).sum(axis=1)
    out_B = np.full(len(won_B), np.nan)
    np.divide(won_B, pairs_B, out=out_B, where=pairs_B > 0)
    return out_B


def _brier(labels_N: Labels, probabilities_NC: Floats, weights_BN: Floats) -> Floats:
    errors_NC = probabilities_NC - _one_hot(labels_N, probabilities_NC.shape[1])
    return _mean((errors_NC**2).sum(axis=1) / 2, weights_BN)


def recalls(labels_N: Labels, probabilities_NC: Floats) -> Floats:
    """Share of each class's images that are called so; NaN for a class without images. Shape C.

    Raises:
        ValueError: ``check_predictions`` refuses them.
    """
    return _hit_shares(labels_N, probabilities_NC, of_predicted=False)


def precisions(labels_N: Labels, probabilities_NC: Floats) -> Floats:
    """Share of the images called so that are; NaN for a class never called. Shape C.

    Raises:
        ValueError: ``check_predictions`` refuses them.
    """
    return _hit_shares(labels_N, probabilities_NC, of_predicted=True)


def _hit_shares(labels_N: Labels, probabilities_NC: Floats, *, of_predicted: bool) -> Floats:
    check_predictions(labels_N, probabilities_NC)
    num_classes = probabilities_NC.shape[1]
    predicted_N = probabilities_NC.argmax(axis=1)
    hits_C = np.bincount(labels_N[predicted_N == labels_N], minlength=num_classes)
    of_C = np.bincount(predicted_N if of_predicted else labels_N, minlength=num_classes)
    shares_C = np.full(num_classes, np.nan)
    np.divide(hits_C, of_C, out=shares_C, where=of_C > 0)
    return shares_C


METRICS: Mapping[str, Score] = MappingProxyType(
    {
        "accuracy": Score(name="accuracy", weighted=_accuracy),
        "balanced_accuracy": Score(
            name="balanced_accuracy", weighted=_balanced_accuracy, by_class=True
        ),
        "auroc": Score(name="auroc", weighted=_auroc, by_class=True),
        "f1": Score(name="f1", weighted=_f1, by_class=True),
        "loss": Score(name="loss", weighted=_loss, larger_is_better=False, bounded=False),
        # Half the sum over classes: of two classes the squared error of the second one's.
        "brier": Score(name="brier", weighted=_brier, larger_is_better=False, bounded=False),
    }
)


# What may choose in place of a metric; nobody wants to have it reported.
CALIBRATED_LOSS = Score(
    name="calibrated_loss", weighted=_calibrated_loss, larger_is_better=False, bounded=False
)


def larger_is_better(name: str) -> bool:
    """Whether a larger value of this metric is the better one.

    Raises:
        ValueError: there is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"Unknown metric {name!r}; choose from {', '.join(METRICS)}.")
    return METRICS[name].larger_is_better
