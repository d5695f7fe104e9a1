"""Half the bits where they are faster, float32 where they are not, and weights always float32.

Legend: B images, c channels, h x w pixels.
"""

import pytest
import torch
from torch import nn

from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import pool
from transfer.training.optimizer import autocast
from transfer.weights.find import find_weights, load_blocks

CPU = torch.device("cpu")
X_BCHW = torch.ones(2, 4, 8, 8)


@pytest.mark.parametrize(
    ("conv", "dtype"),
    [
        (nn.Conv2d(4, 4, 3, groups=4, stride=2), torch.float32),
        (nn.Conv2d(4, 4, 3, groups=4, stride=(1, 2)), torch.float32),
        (nn.Conv2d(4, 4, 5, groups=4), torch.float32),
        (nn.Conv2d(4, 8, 5, groups=4), torch.float32),
        (nn.Conv2d(4, 4, 3, groups=4), torch.bfloat16),
        (nn.Conv2d(4, 4, 3, stride=2), torch.bfloat16),
        (nn.Conv2d(4, 4, 5, groups=2, stride=2), torch.bfloat16),
        (nn.Conv2d(4, 4, 7), torch.bfloat16),
        (nn.Linear(8, 4), torch.bfloat16),
    ],
)
def test_only_depthwise_convolutions_that_stride_or_are_wide_stay_in_float32(conv, dtype):
    with autocast("bf16", CPU):
        outputs = conv(X_BCHW)
        # Whatever the layer before it gave.
        assert conv(X_BCHW.bfloat16()).dtype == outputs.dtype == dtype
    outputs.float().sum().backward()
    assert conv.weight.dtype == conv.weight.grad.dtype == torch.float32


def test_what_stays_in_float32_is_computed_as_without_autocast():
    conv = nn.Conv2d(4, 4, 3, groups=4, stride=2)
    with autocast("bf16", CPU):
        assert torch.equal(conv(X_BCHW), conv(X_BCHW))
        inside = conv(X_BCHW)
    assert torch.equal(inside, conv(X_BCHW))


def test_float32_changes_nothing_and_the_block_ends_what_it_began():
    conv = nn.Conv2d(4, 4, 3)
    with autocast("fp32", CPU):
        assert conv(X_BCHW).dtype == torch.float32
    with pytest.raises(ZeroDivisionError), autocast("bf16", CPU):
        raise ZeroDivisionError
    assert conv(X_BCHW).dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", BACKBONES)
def test_the_last_block_of_every_backbone_has_gradients_close_to_those_of_float32(name):
    *frozen, block = load_blocks(find_weights(name, weights="random"))
    images_B3hw = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inputs = nn.Sequential(*frozen)(images_B3hw)

    def gradient(precision):
        block.zero_grad()
        with autocast(precision, CPU):
            outputs = block(inputs)
        (pool(outputs.float()) / inputs.abs().max()).square().sum().backward()
        return next(block.parameters()).grad.flatten()

    half, full = gradient("bf16"), gradient("fp32")
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(half, full, dim=0) > 0.99
