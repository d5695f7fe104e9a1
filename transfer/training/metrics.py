"""Classification metrics of predicted probabilities, counted in float64 on the CPU.

Legend: N images, C classes. ``f1`` is the macro average over classes; ``auroc`` with more than two
classes is the macro average of one against the rest. Every split of a study has every class. For
others: a class without images that is never predicted is left out of every average; one that is
predicted counts as 0 for ``balanced_accuracy`` and ``f1``. AUROC leaves it out in any case.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

Floats = NDArray[np.float64]


def classification_metrics(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Loss (mean cross-entropy in nats), accuracy, balanced accuracy, AUROC and F1.

    Non-finite logits give a NaN loss and no exception: the caller decides what that means.

    Args:
        logits_NC: float32.
        labels_N: int64 in [0, C).
    """
    loss = float(cross_entropy(logits_NC, labels_N))
    # On the CPU: a table of images by classes squared, which counting on a GPU in a deterministic
    # way would make, takes more memory than training for many classes.
    scores_NC = logits_NC.detach().cpu().double().numpy()
    if not np.isfinite(scores_NC).all():
        return dict.fromkeys(
            ("loss", "accuracy", "balanced_accuracy", "auroc", "f1"), float("nan")
        )
    truth_N = labels_N.cpu().numpy()
    num_classes, predicted_N = scores_NC.shape[1], scores_NC.argmax(axis=1)
    hits_C, true_C, predicted_C = (
        np.bincount(labels, minlength=num_classes).astype(np.float64)
        for labels in (truth_N[predicted_N == truth_N], truth_N, predicted_N)
    )
    occurs_C = true_C + predicted_C > 0
    recall_C = hits_C / np.maximum(true_C, 1)
    f1_C = 2 * hits_C / np.maximum(true_C + predicted_C, 1)
    return {
        "loss": loss,
        "accuracy": _plain(hits_C.sum() / len(truth_N)),
        "balanced_accuracy": _plain(recall_C[occurs_C].mean()),
        "auroc": _plain(_auroc(scores_NC, truth_N)),
        "f1": _plain(f1_C[occurs_C].mean()),
    }


def _plain(share: float) -> float:
    # Means of the same shares in another order differ in their last bits and are a tie.
    return round(float(share), 12)


def _auroc(logits_NC: Floats, labels_N: NDArray[np.int64]) -> float:
    """One class against the rest, the mean over classes; of two classes that of class 1."""
    log_odds_NC, num_classes = log_odds(logits_NC), logits_NC.shape[1]
    classes = [1] if num_classes == 2 else range(num_classes)
    areas = [_pairs_won(log_odds_NC[:, c], labels_N == c) for c in classes]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else float("nan")


def log_odds(logits_NC: Floats) -> Floats:
    """Log odds (N, C) of every class: its logit less the logsumexp of the others'.

    They order images as the probability does, which is exactly 1 from a margin of 37 on, so that
    the surest images would tie.
    """
    # Over the sorted logits, less the largest: images that have the same ones in another order, or
    # all of them larger by the same, are a tie.
    order_NC = np.argsort(-logits_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(logits_NC, order_NC, axis=1)
    sorted_NC = sorted_NC - sorted_NC[:, :1]
    second_N = sorted_NC[:, 1:2]
    rest_NC = np.empty_like(sorted_NC)
    # Each relative to the largest of the others, so that it neither vanishes nor is lost beside 1.
    shares_NC = np.exp(sorted_NC)
    smaller_NC = np.cumsum(shares_NC[:, ::-1], axis=1)[:, ::-1] - shares_NC
    larger_NC = np.cumsum(shares_NC, axis=1)[:, :-1]
    rest_NC[:, 1:] = np.log(larger_NC + smaller_NC[:, 1:])
    rest_NC[:, :1] = second_N + np.log(np.exp(sorted_NC[:, 1:] - second_N).sum(1, keepdims=True))
    odds_NC = np.empty_like(sorted_NC)
    np.put_along_axis(odds_NC, order_NC, sorted_NC - rest_NC, axis=1)
    return odds_NC


def _pairs_won(scores_N: Floats, is_positive_N: NDArray[np.bool_]) -> float | None:
    """Share of (positive, negative) pairs in the right order, ties half (Mann-Whitney).

    None where there are no such pairs.
    """
    num_positive = int(is_positive_N.sum())
    num_pairs = num_positive * (len(scores_N) - num_positive)
    if num_pairs == 0:
        return None
    _, place_N, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    # The mean rank of those that tie, counted from 1.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    won = ranks[place_N][is_positive_N].sum() - num_positive * (num_positive + 1) / 2
    return float(won / num_pairs)
