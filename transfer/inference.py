"""Logits of a whole network: images in, numbers out. Knows nothing of classes, files or studies.

As all frozen passes it takes chunks of one size, so that what it makes of an image depends neither
on how many there are nor on which.

Legend: B images, n images of a chunk, C classes, D features.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from transfer.activations.frozen import FrozenBlocks, Positions, normalised
from transfer.backbones.find import find_spec
from transfer.data.decoding import Pixels
from transfer.host_memory import retained_memory
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
