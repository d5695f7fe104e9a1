"""Backbones by name as an ordered list of blocks, and the network that puts a head on them.

Knows where a name leads: the table, one's own networks, torchvision, timm. Knows neither where
weights come from nor what is frozen: `TransferNetwork` only keeps the promise that
`freezing.freeze` makes about train mode.

Shapes: N images, C classes, D features, c channels, h x w pixels.
"""

import itertools
from collections.abc import Iterable
from functools import cache
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.backbones import custom
from transfer.backbones import libraries as generic
from transfer.backbones.catalog import BACKBONES, BackboneSpec, Interpolation
from transfer.backbones.custom import backbones_from_file as backbones_from_file
from transfer.backbones.libraries import UnknownBackboneError
from transfer.backbones.table import TABLE, Backbone, on_meta, run_blocks
from transfer.messages import did_you_mean, one_line


class TransferNetwork(nn.Module):
    """The blocks of a backbone, global average pooling and a new head: dropout, one linear layer.

    The head takes pooled features_ND, so it also runs alone on features computed earlier. Its
    initial weights depend on torch's global seed at construction and on nothing else. The first
    `num_frozen_blocks` blocks stay in eval mode whatever `train` is told, and with
    `batch_norm_is_frozen` every BatchNorm does.
    """

    def __init__(
        self, blocks: nn.Sequential, num_features: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
        self.num_frozen_blocks = 0
        self.batch_norm_is_frozen = False

    def forward(self, images_N3hw: Tensor) -> Tensor:
        logits_NC: Tensor = self.head(pool(self.blocks(images_N3hw)))
        return logits_NC

    def train(self, mode: bool = True) -> Self:
        self.training = self.blocks.training = mode
        self.head.train(mode)
        # Called twice an epoch: frozen blocks, up to all of them, aren't walked through for it.
        for index, block in enumerate(self.blocks):
            if index >= self.num_frozen_blocks:
                self._train_block(block, mode)
            elif block.training:
                # BatchNorm's running statistics move in train mode even with requires_grad=False.
                block.eval()
        return self

    def _train_block(self, block: nn.Module, mode: bool) -> None:
        block.train(mode)
        if self.batch_norm_is_frozen:
            for module in block.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()


def pool(activations_Nchw: Tensor) -> Tensor:
    """Return the mean of every channel over all pixels: features_ND. Features stay as they are."""
    if activations_Nchw.ndim == 2:
        return activations_Nchw
    return F.adaptive_avg_pool2d(activations_Nchw, 1).flatten(1)


def find_backbone(name: str) -> Backbone:
    """Return the backbone called `name`, the same value for every call in this process.

    A name of the table, of a file given to `custom.backbones_from_file`, of an installed package,
    or `torchvision:NAME` or `timm:NAME`, which are built and cut when first asked for. Raises
    UnknownBackboneError with the choices, ValueError with the reason for a network that can't be
    cut into layers. Both are one line.
    """
    found = TABLE.get(name) or custom.from_files.get(name) or _resolved(name)
    if isinstance(found, ValueError):
        raise found.with_traceback(None)
    return found


def find_spec(name: str) -> BackboneSpec:
    """Return the description of the backbone called `name`; raises as `find_backbone` does."""
    return BACKBONES[name] if name in BACKBONES else find_backbone(name).spec


def interpolations_of(names: Iterable[str]) -> tuple[Interpolation, ...]:
    """Return those by which these backbones want images resized; raises as `find_spec` does."""
    return tuple(dict.fromkeys(find_spec(name).interpolation for name in names))


@cache
def _resolved(name: str) -> Backbone | ValueError:
    """Return a backbone that takes time to find, or why there is none: both are found once."""
    try:
        if name.startswith(generic.TORCHVISION):
            return generic.torchvision_backbone(name)
        if name.startswith(generic.TIMM):
            return generic.timm_backbone(name)
        return custom.installed_backbone(name) or _unknown(name)
    except ValueError as error:
        return error


def _unknown(name: str) -> UnknownBackboneError:
    known = [*BACKBONES, *custom.from_files, *custom.installed_names()]
    return UnknownBackboneError(
        f"Unknown backbone {name!r}; choose from {', '.join(known)}, torchvision:NAME, timm:NAME."
        f"{did_you_mean(name, known)}"
    )


def split_into_blocks(name: str, network: nn.Module) -> nn.Sequential:
    """Return the blocks of an original network, input side first, sharing its parameters."""
    return nn.Sequential(*find_backbone(name).split(network))


def has_batch_norm(name: str, num_layers: int) -> bool:
    """Return whether one of the backbone's last `num_layers` blocks has a BatchNorm."""
    backbone = find_backbone(name)
    with torch.random.fork_rng(devices=[]):
        network = backbone.build() if backbone.is_own else on_meta(backbone.build)
    blocks = backbone.split(network)[-num_layers:] if num_layers else []
    return any(isinstance(module, _BatchNorm) for block in blocks for module in block.modules())


def block_tensors(name: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of an original network's blocks, by their names in it.

    The tensors share memory with the network; the classifier's are left out.
    """
    blocks = split_into_blocks(name, network)
    held = {id(tensor) for tensor in itertools.chain(blocks.parameters(), blocks.buffers())}
    named = itertools.chain(
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )
    names = {key for key, tensor in named if id(tensor) in held}
    return {key: tensor for key, tensor in network.state_dict().items() if key in names}


def check_image_size(name: str, image_size: int) -> None:
    """Run one image of that many pixels a side through the blocks; ValueError if it can't be."""
    backbone = find_backbone(name)
    with torch.random.fork_rng(devices=[]):
        network = backbone.build().eval() if backbone.is_own else on_meta(backbone.build)
    device = next(network.parameters()).device
    image_13hw = torch.zeros(1, 3, image_size, image_size, device=device)
    try:
        with torch.inference_mode():
            run_blocks(backbone.split(network), image_13hw)
    except Exception as error:  # a network raises nearly anything for a wrong size
        raise ValueError(
            f"Backbone {name!r} can't take images of {image_size} x {image_size} pixels "
            f"({one_line(error)}); its own size is {backbone.native_size} x "
            f"{backbone.native_size}: give --image-size {backbone.native_size}, "
            "or choose another backbone."
        ) from error
