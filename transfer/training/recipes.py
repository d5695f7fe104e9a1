"""What a recipe adds to plain training: the head's start, rates by layer, loss, mixing, averaging.

Knows tensors and one ``TransferConfig``; nothing of images, epochs' records or the study.

Legend: N images, B images of a batch, C classes, D features.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from transfer.backbones.find import TransferNetwork
from transfer.config import TransferConfig
from transfer.probe import Probe

Loss = Callable[[Tensor, Tensor], Tensor]


def parameter_groups(
    network: TransferNetwork,
    learning_rate: float,
    layer_decay: float = 1.0,
    head_rate_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """The trained parameters with a rate for each layer.

    The head has ``learning_rate * head_rate_factor``, as it alone starts from noise: ten times
    the rate of the layers in Long et al. 2015 (arXiv:1502.02791), section 4.1. The layer that
    lies i layers below it has ``learning_rate * layer_decay ** i``: discriminative fine-tuning
    of Howard and Ruder 2018 (arXiv:1801.06146), one factor a layer as in Clark et al. 2020
    (arXiv:2003.10555).
    """
    layers = [network.head, *reversed(network.blocks)]
    groups = [
        {
            "params": [p for p in layer.parameters() if p.requires_grad],
            "lr": learning_rate * (layer_decay**distance if distance else head_rate_factor),
        }
        for distance, layer in enumerate(layers)
    ]
    return [group for group in groups if group["params"]]


def num_layers_unfrozen(epoch: int, config: TransferConfig) -> int:
    """How many layers train in ``epoch``, counted from 1.

    Gradual unfreezing of Howard and Ruder 2018 (arXiv:1801.06146): the head alone in the first
    epoch, then from the output side one layer after the other, evenly, until all
    ``num_unfrozen_layers`` train behind the share ``gradual_unfreezing`` of the epochs.
    """
    steps = config.gradual_unfreezing * config.epochs
    if epoch > steps:
        return config.num_unfrozen_layers
    return int(config.num_unfrozen_layers * (epoch - 1) / steps)


def loss_function(config: TransferConfig, labels_N: Tensor, num_classes: int) -> Loss:
    """Cross-entropy of logits_BC and labels_B with label smoothing and class weights.

    Label smoothing: Szegedy et al. 2016 (arXiv:1512.00567), section 7. Balanced weights, N / (C *
    images of the class) in the training images ``labels_N``: King and Zeng 2001.
    """
    smoothing = config.label_smoothing
    if config.class_weights == "none":
        return partial(cross_entropy, label_smoothing=smoothing)
    counts_C = torch.bincount(labels_N, minlength=num_classes)
    weight_C = len(labels_N) / (num_classes * counts_C.clamp(min=1).float())

    def loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        # Not cross_entropy's weight: it divides by the weights of the batch, so that a batch of
        # one class has full weight again, and it weighs the smoothing by the other classes.
        loss_B = cross_entropy(logits_BC, labels_B, label_smoothing=smoothing, reduction="none")
        return (weight_C[labels_B] * loss_B).mean()

    return loss


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """A batch and what fits its loss: ``share`` of each image is its own, the rest a partner's."""

    x: Tensor
    labels_B: Tensor
    share: float = 1.0
    partner_labels_B: Tensor | None = None

    def part(self, images: slice) -> "MixedBatch":
        """Some of its images, each with the partner that it has in the whole batch."""
        partners = self.partner_labels_B
        return MixedBatch(
            x=self.x[images],
            labels_B=self.labels_B[images],
            share=self.share,
            partner_labels_B=None if partners is None else partners[images],
        )

    def loss(self, loss: Loss, logits_BC: Tensor) -> Tensor:
        own = loss(logits_BC, self.labels_B)
        if self.partner_labels_B is None:
            return own
        return self.share * own + (1 - self.share) * loss(logits_BC, self.partner_labels_B)


class Mixing:
    """Mixup of Zhang et al. 2018 (arXiv:1710.09412) where the trained part begins.

    With every layer trained that is the image itself; above frozen layers it is their output:
    manifold mixup of Verma et al. 2019 (arXiv:1806.05236) at one fixed layer, so that what the
    frozen layers give can be kept.
    """

    def __init__(self, alpha: float, seed: int) -> None:
        self._alpha = alpha
        # A stream of its own: neither the order of the batches nor dropout depends on mixing.
        self._rng = np.random.default_rng([seed, 1])

    def __call__(self, x: Tensor, labels_B: Tensor) -> MixedBatch:
        """Mix a batch with itself in another order.

        Every image keeps the larger share of itself, so that ``labels_B`` stays its main label.
        """
        if self._alpha == 0:
            return MixedBatch(x=x, labels_B=labels_B)
        share = float(self._rng.beta(self._alpha, self._alpha))
        share = max(share, 1 - share)
        partners_B = torch.from_numpy(self._rng.permutation(len(x))).to(x.device)
        return MixedBatch(
            x=share * x + (1 - share) * x[partners_B],
            labels_B=labels_B,
            share=share,
            partner_labels_B=labels_B[partners_B],
        )


class WeightAverage:
    """Exponential moving average of tensors by name, to be validated and kept in their place.

    Polyak and Juditsky 1992. The decay is warmed up as min(decay, (1 + t) / (10 + t)) at step t,
    as in TensorFlow's ExponentialMovingAverage: a short training would otherwise keep its start.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self._tensors = tensors
        self._decay = decay
        self._step = 0
        self._average = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the tensors as they are now; counters are copied, not averaged."""
        self._step += 1
        decay = min(self._decay, (1 + self._step) / (10 + self._step))
        for name, tensor in self._tensors.items():
            if tensor.is_floating_point():
                self._average[name].lerp_(tensor, 1 - decay)
            else:
                self._average[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the tensors hold their average within the block, and their own values behind it."""
        own = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._set(self._average)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._tensors.items():
            tensor.copy_(values[name])


def start_head_from_probe(head: nn.Sequential, probe: Probe) -> None:
    """Give the head the weights of a solved probe: linear probing, then fine-tuning (LP-FT).

    Kumar et al. 2022 (arXiv:2202.10054): from a random head the first steps distort pretrained
    features; from the solved probe they have little reason to.
    """
    linear = head[-1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(probe.weight_CD))
        linear.bias.copy_(torch.from_numpy(probe.bias_C))
