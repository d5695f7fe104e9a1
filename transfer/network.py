"""What trains and what does not: the last blocks and the head, or the head alone.

Knows the freeze boundary of a `TransferNetwork`. Knows neither the backbone's name nor the
optimizer nor that activations at the boundary may be kept.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.backbones.find import TransferNetwork


def freeze(
    network: TransferNetwork, num_unfrozen_layers: int, *, batch_norm: str = "train"
) -> None:
    """Let the last `num_unfrozen_layers` blocks and the head train, and nothing else.

    Frozen blocks get no gradients and stay in eval mode, also after `network.train()`: neither
    their parameters nor their BatchNorm statistics can move. With `batch_norm="frozen"` the
    statistics of the trained blocks stay as well, while their weights train (He et al. 2016,
    arXiv:1512.03385, appendix A). Can be called again with another boundary. Raises ValueError
    unless 0 <= num_unfrozen_layers <= number of blocks.
    """
    depth = len(network.blocks)
    if not 0 <= num_unfrozen_layers <= depth:
        raise ValueError(
            f"`0 <= num_unfrozen_layers <= {depth}` must hold for a backbone of {depth} layers, "
            f"but got num_unfrozen_layers={num_unfrozen_layers}; "
            f"0 trains the head alone, {depth} trains everything."
        )
    network.num_frozen_blocks = depth - num_unfrozen_layers
    network.batch_norm_is_frozen = batch_norm == "frozen"
    for index, block in enumerate(network.blocks):
        _set_trainable(block, index >= network.num_frozen_blocks)
    _set_trainable(network.head, True)
    network.train(network.training)


def batch_norm_trains(network: TransferNetwork) -> bool:
    """Whether training moves statistics of BatchNorm: then it matters which images go together."""
    unfrozen = network.blocks[network.num_frozen_blocks :]
    return not network.batch_norm_is_frozen and any(
        isinstance(module, _BatchNorm) for module in unfrozen.modules()
    )


def trainable_parameters(network: TransferNetwork) -> list[nn.Parameter]:
    """Return the parameters that an optimizer may change, input side first."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def num_trainable_parameters(network: TransferNetwork) -> int:
    """Return how many numbers an optimizer may change."""
    return sum(parameter.numel() for parameter in trainable_parameters(network))


def _set_trainable(module: nn.Module, trainable: bool) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(trainable)
        if not trainable:
            # An optimizer that was given every parameter would still apply a gradient left here.
            parameter.grad = None
