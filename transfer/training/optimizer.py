"""One step of training: the optimizer, and the number format in which trained layers compute.

Weights are float32 in every format ("master weights"), and so are pooling, head, loss and mixing;
what is reported of a network is computed in float32 as well. In half the bits trained layers run
by autocast, but for what a CPU computes slowly so. Knows one ``TransferConfig``; nothing of epochs
or images.

Legend: B images of a batch, C classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from transfer.backbones.find import TransferNetwork, pool
from transfer.config import TransferConfig
from transfer.training.recipes import parameter_groups

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


def logits_above(network: TransferNetwork, boundary: int, x: Tensor, precision: str) -> Tensor:
    """Logits (B, C), float32, from what goes into block number ``boundary``."""
    logits_BC: Tensor = network.head(features_above(network, boundary, x, precision))
    return logits_BC


def features_above(network: TransferNetwork, boundary: int, x: Tensor, precision: str) -> Tensor:
    """Pooled features (B, D), float32, from what goes into block number ``boundary``."""
    with autocast(precision, x.device):
        for block in network.blocks[boundary:]:
            x = block(x)
    x = x.float()
    if x.requires_grad and x.ndim == 4:
        # Pooling's gradient comes with channels first, and BatchNorm is slow at two layouts.
        x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
    return pool(x)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class Stepping:
    """Gradients and steps of one training, float16's loss scaling included."""

    def __init__(self, config: TransferConfig, network: TransferNetwork) -> None:
        self._optimizer = make_optimizer(config, network)
        device = next(network.head.parameters()).device
        # Off, it hands everything through. Small gradients would be 0 in float16 unless scaled.
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def add_gradients(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> bool:
        """Change the weights and drop the gradients. False for a step that was skipped.

        The scale is looked for from above: while gradients overflow, steps are skipped and the
        scale is halved, which is normal at the start and no sign of a training that diverges.
        """
        scale = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        # Dropped here, not before the next step, to leave validation their memory.
        self._optimizer.zero_grad(set_to_none=True)
        return self._scaler.get_scale() >= scale


def make_optimizer(config: TransferConfig, network: TransferNetwork) -> torch.optim.Optimizer:
    """The optimiser over the trained parameters.

    ``adamw`` takes ``learning_rate * weight_decay`` of every weight in a step, apart from the
    gradient (Loshchilov and Hutter 2019, arXiv:1711.05101); ``adam`` and ``sgd`` add
    ``weight_decay`` times the weight to its gradient.
    """
    groups = parameter_groups(
        network, config.learning_rate, config.layer_decay, config.head_rate_factor
    )
    # One kernel in place of a dozen passes over every tensor; it knows no complex numbers.
    fused = all(p.is_floating_point() for group in groups for p in group["params"])
    if config.optimizer == "sgd":
        # Of a first step that overflows, the fused kernel keeps a momentum that nobody wrote.
        fused = fused and config.precision != "fp16"
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay, fused=fused)
    kinds: dict[str, type[torch.optim.Adam]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    return kinds[config.optimizer](groups, weight_decay=config.weight_decay, fused=fused)
