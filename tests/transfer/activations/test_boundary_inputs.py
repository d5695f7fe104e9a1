"""Batches are cut from chunks of another size, and fetched as they are where all is kept.

Legend: N images, B images of a batch.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from transfer.activations.frozen import FrozenBlocks, as_rows, canonical
from transfer.activations.inputs import BoundaryInputs, Outputs, Rows, kept_outputs

CPU = torch.device("cpu")


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def gather(positions_B, views_B):
    """A picture of one pixel a channel that says which image and view it is."""
    named = np.stack([positions_B, 100 * views_B], axis=1).astype(np.float32)
    return torch.from_numpy(named)[:, :, None, None].expand(-1, -1, 2, 2).contiguous()


def inputs(start, end, gathered=gather, counted=nullcontext):
    frozen = FrozenBlocks([Doubled().eval() for _ in range(3)], CPU)
    return BoundaryInputs(
        start=start,
        boundary=end,
        num_bytes=0,
        was_at_hand=False,
        outputs=Outputs(frozen=frozen, start=start, end=end, gather=gathered),
        counted=counted,
    )


SIZES = [(1,), (16,), (17,), (3, 3, 3), (8,) * 5, (20, 1, 20), (64, 7), (15, 16, 17)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 1)])
def test_every_batch_has_its_images_and_views_in_order(sizes, start, end):
    rng = np.random.default_rng(0)
    positions = [rng.integers(50, size=size) for size in sizes]
    views = [rng.integers(3, size=size) for size in sizes]
    batches = list(inputs(start, end).batches(positions, views))
    assert [len(batch) for batch in batches] == list(sizes)
    factor = 2 ** (end - start)
    for batch, positions_B, views_B in zip(batches, positions, views, strict=True):
        assert torch.equal(batch, factor * gather(positions_B, views_B).float())
    alone = list(inputs(start, end).batches(positions))
    assert all((batch[:, 1] == 0).all() for batch in alone)


@pytest.mark.parametrize(("start", "fetched"), [(2, [3, 20]), (0, [16, 16])])
def test_images_go_through_frozen_blocks_in_whole_chunks_only(start, fetched):
    sizes = []

    def watched(positions_B, views_B):
        sizes.append(len(positions_B))
        return gather(positions_B, views_B)

    list(inputs(start, 2, watched).batches([np.arange(3), np.arange(20)]))
    assert sizes == fetched


def test_a_batch_is_not_computed_before_it_is_asked_for():
    sizes = []

    def watched(positions_B, views_B):
        sizes.append(len(positions_B))
        return gather(positions_B, views_B)

    batches = inputs(0, 2, watched).batches([np.arange(16)] * 3)
    next(batches)
    assert sizes == [16]


def test_images_are_copied_once_however_many_there_are_in_a_batch(monkeypatch):
    joined, join = [0], torch.cat

    def counted(parts, *arguments, **named):
        result = join(parts, *arguments, **named)
        joined[0] += len(result)
        return result

    monkeypatch.setattr(torch, "cat", counted)
    positions = np.arange(800)
    found = inputs(0, 2).at(positions)
    assert torch.equal(found, 4 * gather(positions, np.zeros_like(positions)))
    assert joined[0] <= 2 * len(positions)


def test_changing_a_batch_changes_no_other():
    positions = [np.arange(4), np.arange(4, 8)]
    first, second = inputs(0, 2).batches(positions)
    expected = second.clone()
    first.zero_()
    assert torch.equal(second, expected)


@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 1)])
def test_a_batch_has_memory_and_layout_of_its_own_however_it_was_come_by(start, end):
    # Kernels are chosen by layout and alignment: a slice of a chunk may train to other bits.
    def kept(positions_B, views_B):
        return canonical(gather(positions_B, views_B))

    for batch in inputs(start, end, kept).batches([np.arange(n) for n in (3, 20, 5, 1)]):
        assert canonical(batch) is batch
        assert batch.untyped_storage().nbytes() == batch.nbytes


@pytest.mark.parametrize("start", [0, 2])
def test_time_is_counted_while_a_batch_is_made_and_not_while_it_is_used(start):
    is_counting, during = [False], []

    @contextmanager
    def counted():
        is_counting[0] = True
        yield
        is_counting[0] = False

    def watched(positions_B, views_B):
        during.append(is_counting[0])
        return gather(positions_B, views_B)

    for _ in inputs(start, 2, watched, counted).batches([np.arange(10)] * 5):
        assert not is_counting[0]
    assert during and all(during)


@pytest.mark.parametrize("num_images", [1, 3, 17])
def test_a_chunk_is_filled_up_with_images_that_were_asked_for(num_images):
    # More than once round where there are few: another image may not exist, or lack this view.
    seen = []

    def watched(positions_B, views_B):
        seen.append((len(positions_B), set(zip(positions_B, views_B, strict=True))))
        return gather(positions_B, views_B)

    positions, views = np.arange(num_images) + 7, np.arange(num_images) % 3
    found = inputs(0, 2, watched).at(positions, views)
    assert torch.equal(found, 4 * gather(positions, views))
    assert {size for size, _ in seen} == {16}
    assert set().union(*(pairs for _, pairs in seen)) == set(zip(positions, views, strict=True))


@pytest.mark.parametrize("shape", [(6,), (3, 5, 4), (3, 1, 1), (1, 5, 5), (7, 3), (2, 3, 4, 5)])
def test_kept_outputs_of_any_shape_come_back_in_their_layout(shape):
    train_N, arrays = np.array([1, 4, 6]), []
    for view, positions_N in enumerate([np.arange(8), train_N]):
        values = torch.from_numpy(100 * view + positions_N).float()
        values = values.view(-1, *[1] * len(shape)).expand(-1, *shape)
        arrays.append(as_rows(values).numpy().copy())
    rows = [Rows(array, CPU) for array in arrays]
    for views in ([1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]):
        positions_B, views_B = np.array([6, 1, 4, 6]), np.array(views)
        found = kept_outputs(rows, train_N, positions_B, views_B)
        assert found.shape == (4, *shape) and canonical(found) is found
        expected = torch.from_numpy(100 * views_B + positions_B).float()
        assert torch.equal(found, expected.view(-1, *[1] * len(shape)).expand(-1, *shape))


def test_kept_outputs_come_by_view_and_place():
    # Images 1, 4 and 6 are the training images: they alone have views 1 and 2.
    train_N = np.array([1, 4, 6])
    images = np.arange(8, dtype=np.float32)[:, None]
    arrays = [images, 100 + images[train_N], 200 + images[train_N]]
    rows = [Rows(array, CPU) for array in arrays]
    found = kept_outputs(rows, train_N, np.array([6, 0, 4, 1, 6]), np.array([2, 0, 1, 1, 0]))
    assert found.flatten().tolist() == [206, 0, 104, 101, 6]
    alone = kept_outputs(rows, train_N, np.array([3, 7]), np.zeros(2, dtype=np.int64))
    assert alone.flatten().tolist() == [3, 7]
