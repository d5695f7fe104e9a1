"""Batches and their parts hold every image once; sizes fall to one; what failed is remembered."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.micro_batches import (
    MemoryLimits,
    halved_sizes,
    is_out_of_memory,
    micro_batches,
    shuffled_batches,
)

CPU = torch.device("cpu")
OF_THE_HOST = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
)


@settings(max_examples=200, deadline=None)
@given(num_images=st.integers(2, 300), batch_size=st.integers(2, 70), seed=st.integers(0, 99))
def test_batches_hold_every_image_once_and_never_one_image_alone(num_images, batch_size, seed):
    batches = list(shuffled_batches(num_images, batch_size, np.random.default_rng(seed)))
    assert sorted(np.concatenate(batches)) == list(range(num_images))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= batch_size + 1
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_batches_are_in_another_order_every_epoch_and_for_every_seed():
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    orders = [tuple(np.concatenate(list(shuffled_batches(50, 8, r)))) for r in (rng, rng, other)]
    assert len(set(orders)) == 3


@settings(max_examples=200, deadline=None)
@given(num_images=st.integers(2, 70), size=st.integers(1, 70))
def test_micro_batches_hold_every_image_once_in_order_and_only_size_1_leaves_one_alone(
    num_images, size
):
    parts = [list(range(num_images))[part] for part in micro_batches(num_images, size)]
    assert [i for part in parts for i in part] == list(range(num_images))
    assert all(len(part) == min(size, num_images) for part in parts[:-1])
    assert max(map(len, parts)) <= (1 if size == 1 else size + 1)
    assert size == 1 or min(map(len, parts)) >= 2


@pytest.mark.parametrize(
    ("batch_size", "num_images", "sizes"),
    [
        (32, 100, (32, 16, 8, 4, 2, 1)),
        (10, 100, (10, 5, 3, 2, 1)),
        (1, 100, (1,)),
        (64, 20, (64, 10, 5, 3, 2, 1)),  # 32 would leave the 20 images whole as 64 does.
    ],
)
def test_sizes_are_halved_down_to_one_image(batch_size, num_images, sizes):
    assert halved_sizes(batch_size, num_images) == sizes


def short_of_memory(limit, tried, error=None):
    def run(size):
        tried.append(size)
        if size > limit:
            raise error or torch.OutOfMemoryError(f"no room for {size}")
        return f"done with {size}"

    return run


def test_the_first_size_that_fits_is_taken_and_what_failed_is_not_tried_again():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(4, tried)
    assert limits.first_that_fits("a", (16, 8, 4, 2, 1), run, CPU) == "done with 4"
    assert limits.first_that_fits("a", (16, 8, 4, 2, 1), run, CPU) == "done with 4"
    assert limits.first_that_fits("a", (10, 5, 3), run, CPU) == "done with 3"
    assert tried == [16, 8, 4, 4, 5, 3]


def test_what_failed_for_one_thing_is_tried_for_another():
    limits, tried = MemoryLimits(), []
    for what in ("a", "b"):
        limits.first_that_fits(what, (8, 4), short_of_memory(4, tried), CPU)
    assert tried == [8, 4, 8, 4]


def test_a_size_above_any_that_failed_is_skipped_and_one_below_is_tried():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(20, tried)
    limits.first_that_fits("a", (32, 16), run, CPU)
    limits.first_that_fits("a", (64, 32, 16), run, CPU)
    limits.first_that_fits("a", (24, 12), run, CPU)
    assert tried == [32, 16, 16, 24, 12]


def test_without_memory_for_the_last_size_it_is_said_as_torch_does_and_tried_again_later():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(0, tried, RuntimeError(OF_THE_HOST))
    with pytest.raises(torch.OutOfMemoryError, match="DefaultCPUAllocator"):
        limits.first_that_fits("a", (2, 1), run, CPU)
    # Somebody else may have had the memory.
    assert limits.first_that_fits("a", (2, 1), short_of_memory(9, tried), CPU) == "done with 1"
    assert tried == [2, 1, 1]


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), ValueError("wrong")], ids=str)
def test_another_error_is_not_taken_for_a_lack_of_memory(error):
    tried = []
    with pytest.raises(type(error), match=str(error)):
        MemoryLimits().first_that_fits("a", (4, 2), short_of_memory(0, tried, error), CPU)
    assert tried == [4]


def test_what_filled_the_memory_is_gone_before_the_next_attempt():
    class Network:
        pass

    held = []

    def run(size):
        assert all(network() is None for network in held)
        network = Network()
        network.cycle = network
        held.append(weakref.ref(network))
        if size > 1:
            raise torch.OutOfMemoryError("full")
        return size

    assert MemoryLimits().first_that_fits("a", (4, 2, 1), run, CPU) == 1
    assert len(held) == 3


def test_a_lack_of_memory_is_known_on_the_host_as_well():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 52)
    assert is_out_of_memory(found.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
