"""Logits of a trained network on images, as in validation: float32, batches padded, no gradient.

Knows one configuration and its trained part; nothing of metrics or studies.

Legend: N images, B images of a batch, C classes.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfer.activations import Activations
from transfer.backbones import TransferNetwork, find_spec
from transfer.config import TransferConfig
from transfer.frozen import CHUNK_SIZES
from transfer.stepping import logits_above


def predict_logits(
    config: TransferConfig,
    activations: Activations,
    trained_state: Mapping[str, Tensor],
    *,
    passes: int = 1,
) -> NDArray[np.float32]:
    """Logits (N, C) of all images of ``activations.data``, in its order.

    On validation images they are what the best epoch of `train` gave, bit for bit.

    Args:
        trained_state: `TrainingResult.trained_state`.
        passes: how many networks with this boundary will be asked.

    Raises:
        ValueError: the state is of another network.
    """
    spec, data = find_spec(config.backbone), activations.data
    boundary = spec.depth - config.num_unfrozen_layers
    network = TransferNetwork(
        activations.blocks(config.backbone, boundary),
        spec.num_features,
        len(data.classes),
        config.dropout,
    ).to(activations.device)
    missing, unknown = network.load_state_dict(dict(trained_state), strict=False)
    frozen = [key for key in missing if not _is_below(key, boundary)]
    if frozen or unknown:
        raise ValueError(
            f"Trained weights don't fit {config.backbone} with {config.num_unfrozen_layers} "
            f"unfrozen layers: {[*frozen, *unknown][0]}."
        )
    network.eval()
    inputs = activations.inputs(config.backbone, boundary, passes=passes)
    size, positions_N = CHUNK_SIZES[activations.device.type], np.arange(len(data))
    batches = [positions_N[first : first + size] for first in range(0, len(data), size)]
    with torch.inference_mode():
        logits = [
            logits_above(network, boundary, x, "fp32").cpu() for x in inputs.batches(batches)
        ]
    logits_NC: NDArray[np.float32] = torch.cat(logits).numpy()
    return logits_NC


def _is_below(key: str, boundary: int) -> bool:
    kind, index, *_ = key.split(".")
    return kind == "blocks" and int(index) < boundary
