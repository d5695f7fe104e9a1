"""The running statistics of BatchNorm, taken of the network that is validated and kept.

Knows blocks and batches of their inputs; nothing of epochs, of data or of what is measured.

Training normalises by the statistics of a batch and averages them on the way, with a momentum
that the backbone brings along. EfficientNet's and MobileNetV3's 0.01 was made for hundreds of
thousands of steps: after the dozen that a small data set has in an epoch, nine tenths of the
average are still ImageNet's. At any momentum the average is one over weights that were changing.

Legend: N training images, B images of a batch.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.backbones.find import TransferNetwork
from transfer.training.optimizer import autocast

# A pass without gradients costs a sixth to a third of a training step an image: with this share
# of the training images it takes 6 % of an epoch, with the least from 213 images on at most a
# tenth. Of fewer, accuracy on 200 validation images is 2 to 3 points off by chance, of as many 1.4
# (docs/decisions.md).
SHARE = 0.2
MIN_IMAGES = 64
MAX_IMAGES = 1000


def batch_norms_that_train(network: TransferNetwork) -> list[_BatchNorm]:
    """Those whose statistics move in train mode now, in order; leaves the network in train mode.

    Not those of frozen blocks, none where BatchNorm is frozen, and none without statistics.
    """
    network.train()
    return [
        module
        for module in network.blocks.modules()
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
    ]


def statistics_names(network: TransferNetwork) -> set[str]:
    """The names in the network's state of what BatchNorm averages, and of its counters."""
    return {
        f"{name}.{buffer}"
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for buffer, _ in module.named_buffers()
    }


def num_statistics_images(num_train: int) -> int:
    """Of how many training images statistics are taken; no clock says so, as runs repeat."""
    return min(num_train, max(MIN_IMAGES, min(MAX_IMAGES, round(SHARE * num_train))))


@torch.no_grad()
def take_statistics(
    network: TransferNetwork, boundary: int, batches_B: Iterable[Tensor], precision: str = "fp32"
) -> None:
    """Give every BatchNorm that trains the mean of its statistics over these batches.

    They are taken in one pass without steps: each batch is normalised by its own statistics, as
    in training, while dropout and stochastic depth are off, as in validation ("precise BN" of Wu
    and Johnson 2021, arXiv:2105.07576, section 3). What they were before doesn't matter. The
    network is left in eval mode. Without such a BatchNorm no batch is asked for.

    Args:
        batches_B: what goes into block number ``boundary``, as in `optimizer.logits_above`.
        precision: in which the network trains; the means are float32 in any case.
    """
    modules = batch_norms_that_train(network)
    network.eval()
    if not modules:
        return
    with _cumulative(modules):
        for x in batches_B:
            with autocast(precision, x.device):
                for block in network.blocks[boundary:]:
                    x = block(x)


@contextmanager
def _cumulative(modules: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let these alone be in train mode, from no statistics on, each batch with equal weight."""
    before = [(module, module.momentum) for module in modules]
    for module, _ in before:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    try:
        yield
    finally:
        for module, momentum in before:
            module.momentum = momentum
            module.eval()
