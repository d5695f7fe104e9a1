"""Classification metrics of predicted probabilities, through torchmetrics.

Legend: N images, C classes. ``f1`` is the macro average over classes; ``auroc`` with more than two
classes is the macro average of one against the rest.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_f1_score,
)


def classification_metrics(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Loss (mean cross-entropy in nats), accuracy, balanced accuracy, AUROC and F1.

    Non-finite logits give a NaN loss and no exception: the caller decides what that means.

    Args:
        logits_NC: float32.
        labels_N: int64 in [0, C).
    """
    num_classes = logits_NC.shape[1]
    loss = float(cross_entropy(logits_NC, labels_N))
    if not torch.isfinite(logits_NC).all():
        return dict.fromkeys(
            ("loss", "accuracy", "balanced_accuracy", "auroc", "f1"), float("nan")
        )
    micro, macro = (
        multiclass_accuracy(logits_NC, labels_N, num_classes, average=average)
        for average in ("micro", "macro")
    )
    return {
        "loss": loss,
        "accuracy": _plain(micro),
        "balanced_accuracy": _plain(macro),
        "auroc": _plain(_auroc(logits_NC, labels_N, num_classes)),
        "f1": _plain(multiclass_f1_score(logits_NC, labels_N, num_classes, average="macro")),
    }


def _plain(share: Tensor) -> float:
    # torchmetrics counts in float32, where 386 of 400 is 0.96499997: later digits are noise.
    return round(float(share), 7)


def _auroc(logits_NC: Tensor, labels_N: Tensor, num_classes: int) -> Tensor:
    # Ranks of the margin order images exactly; probabilities of confident ones saturate to ties.
    if num_classes == 2:
        margin_N = logits_NC[:, 1].double() - logits_NC[:, 0].double()
        ranks_N = torch.unique(margin_N, return_inverse=True)[1].double()
        return binary_auroc(ranks_N / ranks_N.max().clamp(min=1), labels_N)
    return multiclass_auroc(logits_NC.double().softmax(dim=1), labels_N, num_classes)
