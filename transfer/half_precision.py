"""Trained layers in half the bits: under autocast, but for what a CPU computes slowly so.

Knows modules and number formats; nothing of training.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute in ``precision`` what torch holds to be safe there; weights stay float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def keep_slow_in_float32(network: nn.Module) -> None:
    """Let the depthwise convolutions that a CPU is slow at in bfloat16 compute in float32.

    oneDNN has no fast kernel for the gradient of a strided depthwise convolution with regard to
    its input (0.7 ms in float32 and 36 ms in bfloat16 for 192 channels of 28 x 28 pixels, 16
    images), nor for that of a kernel above 3 x 3 with regard to its weights. A MobileNetV2 spends
    half of its time there otherwise.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module):
            _keep_in_float32(module)


def _is_slow(conv: nn.Conv2d) -> bool:
    is_depthwise = conv.groups > 1 and conv.groups == conv.in_channels
    return is_depthwise and (max(conv.stride) > 1 or max(conv.kernel_size) > 3)


def _keep_in_float32(conv: nn.Conv2d) -> None:
    compute = conv.forward

    def forward(input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return compute(input.float())

    conv.forward = forward  # type: ignore[method-assign]
