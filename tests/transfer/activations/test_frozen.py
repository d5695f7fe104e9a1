"""Frozen blocks take chunks of one size in one memory layout, and tell what each block costs.

Shapes: n images of a chunk, D features, h x w pixels.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transfer.activations.frozen import CHUNK_SIZES, FrozenBlocks, as_rows, canonical, from_rows
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import pool
from transfer.training.micro_batches import NoRoomError
from transfer.weights.find import find_weights, load_blocks

CPU = torch.device("cpu")
CHUNK = CHUNK_SIZES["cpu"]


def pretrained(name):
    blocks = load_blocks(find_weights(name, weights="random"))
    return blocks.to(memory_format=torch.channels_last).eval()


def chunk(size=32):
    generator = torch.Generator().manual_seed(0)
    return canonical(torch.rand(CHUNK, 3, size, size, generator=generator))


PICTURES = [
    ((4, 3, 5, 7), (105, 1, 21, 3)),
    ((4, 3, 1, 1), (3, 1, 3, 3)),
    ((4, 1, 5, 7), (35, 1, 7, 1)),
    ((4, 3, 1, 7), (21, 1, 21, 3)),
    ((4, 3, 5, 1), (15, 1, 3, 3)),
    ((1, 3, 5, 7), (105, 1, 21, 3)),
    ((1, 1, 1, 1), (1, 1, 1, 1)),
]
OTHERS = [
    ((4, 6), (6, 1)),
    ((4, 1), (1, 1)),
    ((1, 6), (6, 1)),
    ((4, 5, 6), (30, 6, 1)),
    ((4, 1, 6), (6, 6, 1)),
    ((4, 2, 3, 5, 6), (180, 90, 30, 6, 1)),
]


def arranged(shape):
    """The same numbers in several layouts."""
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    order = list(range(1, len(shape)))
    yield x
    yield x.transpose(0, -1).contiguous().transpose(0, -1)
    yield x.permute(0, *order[::-1]).contiguous().permute(0, *order[::-1])
    yield torch.stack([x, x], -1)[..., 0]
    if x.ndim == 4:
        yield x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("shape", "strides"), [*PICTURES, *OTHERS])
def test_every_layout_becomes_the_same_one_with_the_same_values(shape, strides):
    first = next(arranged(shape))
    for x in arranged(shape):
        assert torch.equal(x, first)
        assert canonical(x).stride() == strides
        assert torch.equal(canonical(x), x)


def test_what_has_the_layout_already_is_not_copied():
    for shape, _ in [*PICTURES, *OTHERS]:
        x = canonical(torch.zeros(shape))
        assert canonical(x) is x


@pytest.mark.parametrize("shape", [shape for shape, _ in [*PICTURES, *OTHERS]])
def test_a_tensor_comes_back_from_its_rows_bit_for_bit_and_in_its_layout(shape):
    for x in arranged(shape):
        rows = as_rows(x)
        assert rows.is_contiguous() and len(rows) == len(x)
        # What is stored has lost its strides.
        back = from_rows(torch.from_numpy(np.array(rows.numpy(), order="C")))
        assert torch.equal(back, x)
        assert back.stride() == canonical(x).stride()


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_any_layout_of_any_shape_comes_back_from_its_rows(shape, random):
    order = random.sample(range(len(shape)), len(shape))
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    x = x.permute(order).contiguous().permute(np.argsort(order).tolist())
    back = from_rows(as_rows(x).clone())
    assert torch.equal(back, x) and back.stride() == canonical(x).stride()


def test_the_rows_of_a_picture_have_their_channels_last():
    x = next(arranged((2, 3, 4, 5)))
    assert as_rows(x).shape == (2, 4, 5, 3)
    assert torch.equal(as_rows(x)[1, 2, 3], x[1, :, 2, 3])


@pytest.mark.parametrize("num_images", [1, CHUNK - 1, CHUNK + 1, 2 * CHUNK])
def test_no_other_number_of_images_than_a_chunk_is_run(num_images):
    frozen = FrozenBlocks([nn.Conv2d(3, 4, 3).eval()], CPU)
    with pytest.raises(AssertionError):
        frozen.run(torch.zeros(num_images, 3, 8, 8), 0, 1)
    assert len(frozen.run(torch.zeros(CHUNK, 3, 8, 8), 0, 1)) == CHUNK


@pytest.mark.parametrize("name", BACKBONES)
def test_costs_have_the_shapes_of_a_real_pass_and_seconds_above_zero(name):
    blocks, images_n3hw = pretrained(name), chunk()
    costs = FrozenBlocks(blocks, CPU).costs(images_n3hw)
    assert len(costs) == BACKBONES[name].depth
    x = images_n3hw
    for number, (block, cost) in enumerate(zip(blocks, costs, strict=True), start=1):
        with torch.no_grad():
            x = block(x)
        outputs = pool(x) if number == len(blocks) else x
        assert cost.row_shape == as_rows(outputs).shape[1:]
        assert cost.num_bytes == outputs[0].numel() * outputs.element_size()
        assert 0 < cost.seconds < 10
    assert costs[-1].row_shape == (BACKBONES[name].num_features,)


class Timed(nn.Module):
    """A block that takes these seconds, pass by pass, on the clock it is given."""

    def __init__(self, clock, *seconds):
        super().__init__()
        self.clock, self.seconds = clock, list(seconds)

    def forward(self, x):
        self.clock.append(self.clock[-1] + self.seconds.pop(0))
        return x


def test_a_cost_is_that_of_one_image_in_the_faster_of_two_passes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("transfer.activations.frozen.perf_counter", lambda: clock[-1])
    blocks = [Timed(clock, 9.0, 1.0).eval(), Timed(clock, 2.0, 3.0).eval()]
    costs = FrozenBlocks(blocks, CPU).costs(torch.zeros(CHUNK, 3, 8, 8))
    assert [cost.seconds * CHUNK for cost in costs] == [1.0, 2.0]


def test_blocks_run_from_any_boundary_to_any_other_and_pool_at_the_last():
    blocks = pretrained("resnet18")
    frozen, depth = FrozenBlocks(blocks, CPU), len(blocks)
    images = chunk()
    assert frozen.run(images, 0, 0) is images
    middle = frozen.run(images, 0, 4)
    assert torch.equal(frozen.run(middle, 4, depth), frozen.run(images, 0, depth))
    assert frozen.run(images, 0, depth).shape == (CHUNK, 512)
    assert frozen.run(images, 0, depth - 1).ndim == 4


def test_nothing_that_is_run_asks_for_gradients_or_changes_a_block():
    blocks = pretrained("resnet18").requires_grad_(True)
    before = {key: tensor.clone() for key, tensor in blocks.state_dict().items()}
    outputs = FrozenBlocks(blocks, CPU).run(chunk(), 0, len(blocks))
    assert not outputs.requires_grad
    assert all(torch.equal(blocks.state_dict()[key], tensor) for key, tensor in before.items())


class Short(nn.Module):
    """A block that has room for so many images: ``seen`` are the sizes that came."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.seen = limit, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError(f"{len(x)} images")
        return x + 1


def passed(frozen, num_images, **given):
    def compute(frozen, index_n):
        return frozen.run(canonical(torch.from_numpy(index_n).float()[:, None]), 0, 1)

    return torch.cat(list(frozen.chunks(num_images, compute, **given))).flatten().tolist()


@pytest.mark.parametrize("num_images", [1, 5, CHUNK, 2 * CHUNK + 3])
def test_a_pass_that_is_short_of_memory_goes_on_with_smaller_chunks(num_images):
    block = Short(limit=CHUNK // 4)
    frozen = FrozenBlocks([block.eval()], CPU)
    expected = [i + 1.0 for i in range(num_images)]
    assert passed(frozen, num_images) == expected
    assert block.seen[:3] == [CHUNK, CHUNK // 2, CHUNK // 4]
    assert set(block.seen[3:]) <= {CHUNK // 4}
    # The next pass is not told: the shortage may be over.
    block.limit, block.seen = CHUNK, []
    assert passed(frozen, num_images) == expected and set(block.seen) == {CHUNK}


def test_a_pass_of_one_size_does_not_go_on_with_another():
    block = Short(limit=1)
    with pytest.raises(torch.OutOfMemoryError, match=f"{CHUNK} images"):
        passed(FrozenBlocks([block.eval()], CPU), 20, of_one_size=True)
    assert block.seen == [CHUNK]


def test_without_memory_for_one_image_it_is_said_that_nothing_would_help():
    with pytest.raises(NoRoomError, match="1 images"):
        passed(FrozenBlocks([Short(limit=0).eval()], CPU), 20)
