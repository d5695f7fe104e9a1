"""A whole network as tensors by name: its blocks, pretrained and trained, and the new head.

The blocks' tensors have the original network's names. Knows neither files nor images.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from transfer.backbones.find import block_tensors, find_backbone, split_into_blocks
from transfer.backbones.table import on_meta
from transfer.weights.find import WeightFile, load_network

HEAD = ("head.1.weight", "head.1.bias")
# Counts steps of training; nothing reads it in eval mode, and it is no number of the network.
_COUNTER = "num_batches_tracked"


class Kind(NamedTuple):
    """What a tensor must be."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def whole_network(weight_file: WeightFile, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a trained network: contiguous copies on the CPU.

    `trained` is `TrainingResult.trained_state`: all tensors of the trained blocks, and the head's.
    Raises ValueError if they don't fit the backbone.
    """
    name = weight_file.backbone
    network = load_network(weight_file)
    blocks = split_into_blocks(name, network)
    above = {
        key.removeprefix("blocks."): tensor for key, tensor in trained.items() if key not in HEAD
    }
    try:
        unknown = blocks.load_state_dict(above, strict=False).unexpected_keys
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(f"The trained weights don't fit backbone {name!r}: {error}") from None
    missing = [key for key in HEAD if key not in trained]
    if unknown or missing:
        raise ValueError(
            f"The trained weights don't fit backbone {name!r}: "
            f"unknown {unknown[:3]}, missing {missing}."
        )
    tensors = _without_counters(block_tensors(name, network))
    clash = [key for key in HEAD if key in tensors]
    if clash:
        raise ValueError(f"Backbone {name!r} has a layer {clash[0]!r}: that is the head's name.")
    tensors |= {key: trained[key] for key in HEAD}
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}


def kinds_of(backbone: str, num_classes: int) -> dict[str, Kind]:
    """Return what a whole network of this backbone consists of, without building its tensors."""
    found = find_backbone(backbone)
    network = found.build() if found.is_own else on_meta(found.build)
    tensors = _without_counters(block_tensors(backbone, network))
    kinds = {key: Kind(tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}
    weight, bias = HEAD
    kinds[weight] = Kind((num_classes, found.spec.num_features), torch.float32)
    kinds[bias] = Kind((num_classes,), torch.float32)
    return kinds


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not key.endswith(_COUNTER)}
