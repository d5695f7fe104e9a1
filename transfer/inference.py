"""Logits of networks on images: float32, no gradient, each image as if it stood alone.

As all frozen passes it takes chunks of one size, so that what it makes of an image depends neither
on how many there are nor on which. A trained network is one configuration with its trained part,
and answers as it did in validation. Knows nothing of classes, metrics, files or studies.

Legend: N images, B images of a batch, n images of a chunk, C classes, D features.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from transfer.activations.activations import Activations
from transfer.activations.frozen import CHUNK_SIZES, FrozenBlocks, Positions, normalised
from transfer.backbones.find import TransferNetwork, find_spec, pool
from transfer.config import TransferConfig
from transfer.data.decoding import Pixels
from transfer.device import retained_memory
from transfer.training.micro_batches import MemoryLimits, full_batches, halved_sizes
from transfer.training.optimizer import logits_above
from transfer.weights.find import WeightFile, load_blocks
from transfer.weights.whole import HEAD


class Classifier:
    """A whole network for inference: the blocks of a weight file and one linear layer on them."""

    def __init__(
        self, weight_file: WeightFile, head: Mapping[str, Tensor], device: torch.device
    ) -> None:
        """``head`` has the tensors named in ``HEAD``: (C, D) and (C,), float32."""
        blocks = load_blocks(weight_file).to(device).to(memory_format=torch.channels_last)
        self._spec = find_spec(weight_file.backbone)
        self._frozen = FrozenBlocks(blocks.eval(), device)
        self._weight_CD, self._bias_C = (head[key].to(device) for key in HEAD)
        self._device = device

    @property
    def chunk_size(self) -> int:
        """Images of a pass: as many at a time cost least."""
        return self._frozen.chunk_size

    @retained_memory()
    @torch.inference_mode()
    def logits(self, images_BHWC: Pixels) -> NDArray[np.float32]:
        """Logits (B, C), float32, of images of uint8 with one channel or three.

        Raises:
            NoRoomError: there is no memory for one image.
        """

        def compute(frozen: FrozenBlocks, index_n: Positions) -> Tensor:
            images_nHWC = torch.from_numpy(images_BHWC[index_n]).to(self._device)
            inputs = normalised(images_nHWC.permute(0, 3, 1, 2).float(), self._spec)
            features_nD = frozen.run(inputs, 0, self._spec.depth)
            return F.linear(features_nD, self._weight_CD, self._bias_C).cpu()

        chunks = [chunk.numpy() for chunk in self._frozen.chunks(len(images_BHWC), compute)]
        return np.concatenate(chunks or [np.empty((0, len(self._bias_C)), np.float32)])


def predict_logits(
    config: TransferConfig,
    activations: Activations,
    trained_state: Mapping[str, Tensor],
    *,
    passes: int = 1,
) -> NDArray[np.float32]:
    """Logits (N, C) of all images of ``activations.data``, in its order.

    On validation images they are what the best epoch of `train` gave, bit for bit where memory
    allowed the same batches.

    Args:
        trained_state: `TrainingResult.trained_state`.
        passes: how many networks with this boundary will be asked.

    Raises:
        ValueError: the state is of another network.
        NoRoomError: there is no memory even for one image at a time.
    """
    boundary = _boundary(config)
    network = _network(config, activations, trained_state)

    def logits(x: Tensor) -> Tensor:
        return logits_above(network, boundary, x, "fp32")

    everything = np.arange(len(activations.data))
    return _outputs(config, activations, everything, logits, passes)


def trained_features(
    config: TransferConfig,
    activations: Activations,
    trained_state: Mapping[str, Tensor],
    positions_N: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Pooled features (N, D) of these images after training: what goes into the head.

    Raises:
        ValueError: the state is of another network.
    """
    boundary = _boundary(config)
    network = _network(config, activations, trained_state)

    def features(x: Tensor) -> Tensor:
        for block in network.blocks[boundary:]:
            x = block(x)
        return pool(x)

    return _outputs(config, activations, positions_N, features, passes=1)


def _boundary(config: TransferConfig) -> int:
    return find_spec(config.backbone).depth - config.num_unfrozen_layers


def _network(
    config: TransferConfig, activations: Activations, trained_state: Mapping[str, Tensor]
) -> TransferNetwork:
    boundary, num_classes = _boundary(config), len(activations.data.classes)
    network = TransferNetwork(
        activations.blocks(config.backbone, boundary),
        find_spec(config.backbone).num_features,
        num_classes,
        config.dropout,
    ).to(activations.device)
    missing, unknown = network.load_state_dict(dict(trained_state), strict=False)
    frozen = [key for key in missing if not _is_below(key, boundary)]
    if frozen or unknown:
        raise ValueError(
            f"Trained weights don't fit {config.backbone} with {config.num_unfrozen_layers} "
            f"unfrozen layers: {[*frozen, *unknown][0]}."
        )
    return network.eval()


def _outputs(
    config: TransferConfig,
    activations: Activations,
    positions_N: NDArray[np.int64],
    compute: Callable[[Tensor], Tensor],
    passes: int,
) -> NDArray[np.float32]:
    inputs = activations.inputs(config.backbone, _boundary(config), passes=passes)

    @torch.inference_mode()
    def outputs(batch_size: int) -> NDArray[np.float32]:
        batches = inputs.batches(full_batches(positions_N, batch_size))
        found_ND = torch.cat([compute(x).cpu() for x in batches])[: len(positions_N)]
        return np.asarray(found_ND.numpy(), np.float32)

    largest = CHUNK_SIZES[activations.device.type]
    with retained_memory():
        return MemoryLimits().first_that_fits(
            "outputs", halved_sizes(largest, largest), outputs, activations.device
        )


def _is_below(key: str, boundary: int) -> bool:
    kind, index, *_ = key.split(".")
    return kind == "blocks" and int(index) < boundary
