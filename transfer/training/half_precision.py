"""Trained layers in half the bits: autocast, but for what a CPU computes slowly so.

Knows number formats and convolutions; nothing of networks and training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in ``precision`` what torch holds to be safe there; weights stay float32."""
    if precision == "fp32":
        yield
    elif device.type == "cpu":
        with torch.autocast("cpu", DTYPES[precision]), _SlowInFloat32():
            yield
    else:
        with torch.autocast(device.type, DTYPES[precision]):
            yield


class _SlowInFloat32(TorchFunctionMode):
    """Lets the depthwise convolutions that a CPU is slow at in half the bits compute in float32.

    oneDNN has no fast kernel for the gradient of a strided depthwise convolution with regard to
    its input (0.7 ms in float32 and 36 ms in bfloat16 for 192 channels of 28 x 28 pixels, 16
    images), nor for that of a kernel above 3 x 3 with regard to its weights. A MobileNetV2 would
    spend half of its time there.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and _is_slow(*args, **kwargs):
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **kwargs)
        return func(*args, **kwargs)


def _is_slow(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    *others: object,
    **named: object,
) -> bool:
    is_depthwise = weight.shape[0] > 1 and weight.shape[1] == 1
    strides = (stride,) if isinstance(stride, int) else stride
    return is_depthwise and (max(strides) > 1 or max(weight.shape[2:]) > 3)
