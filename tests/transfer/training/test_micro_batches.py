"""Batches and their parts hold every image once; sizes fall to one; what failed is remembered."""

import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.training.micro_batches import (
    MemoryLimits,
    NoRoomError,
    StepMemoryError,
    full_batches,
    halved_sizes,
    if_need_be_twice,
    is_out_of_memory,
    memory_errors_of_a_step,
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
    assert max(map(len, batches)) <= batch_size + (batch_size == 2)
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    # No step fewer than with whole batches and a rest, but where the rest would be one image.
    assert len(batches) == math.ceil(num_images / batch_size) - (
        batch_size == 2 and num_images % 2 == 1
    )


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
    assert max(map(len, parts)) <= size + (size == 2)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert size == 1 or min(map(len, parts)) >= 2


@settings(max_examples=200, deadline=None)
@given(num_images=st.integers(1, 70), size=st.integers(1, 70))
def test_full_batches_hold_every_image_in_order_and_the_last_some_again(num_images, size):
    positions_N = np.arange(num_images) * 3
    batches = full_batches(positions_N, size)
    assert {len(batch) for batch in batches} == {size}
    assert np.array_equal(np.concatenate(batches)[:num_images], positions_N)
    assert (len(batches) - 1) * size < num_images
    assert set(np.concatenate(batches)) == set(positions_N)


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


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """What is free of a device: other processes take and give it meanwhile."""
    found = SimpleNamespace(num_bytes=1000)
    monkeypatch.setattr(
        "transfer.training.micro_batches.free_bytes", lambda device: found.num_bytes
    )
    return found


def short_of_memory(limit, tried, error=None):
    def run(size):
        tried.append(size)
        if size > limit:
            raise error or torch.OutOfMemoryError(f"no room for {size}")
        return f"done with {size}"

    return run


def test_the_first_size_that_fits_is_taken_and_what_failed_twice_is_not_tried_again():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(4, tried)
    for _ in range(3):
        assert limits.first_that_fits("a", (16, 8, 4, 2, 1), run, CPU) == "done with 4"
    assert limits.first_that_fits("a", (10, 5, 3), run, CPU) == "done with 3"
    assert tried == [16, 8, 4, 16, 8, 4, 4, 5, 3]


def test_a_shortage_that_is_over_before_anyone_looks_changes_no_later_run():
    limits, tried = MemoryLimits(), []
    limits.first_that_fits("a", (16, 8), short_of_memory(8, tried), CPU)
    assert limits.first_that_fits("a", (16, 8), short_of_memory(99, tried), CPU) == "done with 16"


def test_two_shortages_with_a_training_between_them_that_fitted_change_no_later_run():
    limits, tried = MemoryLimits(), []
    for most in (8, 99, 8, 99):
        limits.first_that_fits("a", (16, 8), short_of_memory(most, tried), CPU)
    assert tried == [16, 8, 16, 16, 8, 16]


def test_only_what_failed_in_a_step_is_remembered():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(4, tried)
    for _ in range(3):
        limits.first_that_fits("a", (8, 4), run, CPU, remembered=StepMemoryError)
    assert tried == [8, 4] * 3
    run = short_of_memory(4, tried, StepMemoryError("in a step"))
    for _ in range(3):
        limits.first_that_fits("a", (8, 4), run, CPU, remembered=StepMemoryError)
    assert tried[6:] == [8, 4, 8, 4, 4]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError(OF_THE_HOST), MemoryError()], ids=repr
)
def test_every_lack_of_memory_in_a_step_is_told_as_such(error):
    with pytest.raises(StepMemoryError), memory_errors_of_a_step():
        raise error


@pytest.mark.parametrize("error", [NoRoomError("one image"), RuntimeError("no kernel")], ids=repr)
def test_other_errors_of_a_step_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, memory_errors_of_a_step():
        raise error
    assert raised.value is error


def test_what_failed_for_one_thing_is_tried_for_another():
    limits, tried = MemoryLimits(), []
    for what in ("a", "b"):
        limits.first_that_fits(what, (8, 4), short_of_memory(4, tried), CPU)
    assert tried == [8, 4, 8, 4]


def test_a_size_above_any_that_failed_is_skipped_and_one_below_is_tried():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(20, tried)
    for _ in range(2):
        limits.first_that_fits("a", (32, 16), run, CPU)
    limits.first_that_fits("a", (64, 32, 16), run, CPU)
    limits.first_that_fits("a", (24, 12), run, CPU)
    assert tried == [32, 16, 32, 16, 16, 24, 12]


def test_without_memory_for_the_last_size_it_is_said_as_torch_does_and_tried_again_later():
    limits, tried = MemoryLimits(), []
    run = short_of_memory(0, tried, RuntimeError(OF_THE_HOST))
    with pytest.raises(torch.OutOfMemoryError, match="DefaultCPUAllocator"):
        limits.first_that_fits("a", (2, 1), run, CPU)
    # No size did it, so nothing is known of any: somebody else may have had the memory.
    assert limits.first_that_fits("a", (2, 1), short_of_memory(9, tried), CPU) == "done with 2"
    assert tried == [2, 1, 2]


@pytest.mark.parametrize(("free_later", "size"), [(1000, 4), (1020, 4), (1021, 16), (10**6, 16)])
def test_what_failed_is_forgotten_when_more_memory_is_free(free, free_later, size):
    limits, tried = MemoryLimits(), []
    for _ in range(2):
        assert limits.first_that_fits("a", (16, 8, 4), short_of_memory(4, tried), CPU)
    free.num_bytes = free_later
    later = limits.first_that_fits("a", (16, 8, 4), short_of_memory(99, tried), CPU)
    assert later == f"done with {size}"


def test_where_no_smaller_size_would_help_none_is_tried_and_nothing_is_remembered():
    limits, tried = MemoryLimits(), []
    with pytest.raises(NoRoomError, match="one image"):
        run = short_of_memory(0, tried, NoRoomError("one image"))
        limits.first_that_fits("a", (4, 2, 1), run, CPU)
    assert limits.first_that_fits("a", (4, 2, 1), short_of_memory(9, tried), CPU) == "done with 4"
    assert tried == [4, 4]


def test_what_has_no_sizes_is_tried_again_once_memory_is_given_back():
    failures = [torch.OutOfMemoryError("no")]

    def run():
        if failures:
            raise failures.pop()
        return "done"

    assert if_need_be_twice(run, CPU) == "done"
    failures += [torch.OutOfMemoryError("no")] * 2
    with pytest.raises(NoRoomError):
        if_need_be_twice(run, CPU)


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
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 52)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 60, np.uint8)
    assert is_out_of_memory(of_torch.value) and is_out_of_memory(of_numpy.value)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    MemoryError("Unable to allocate 3.73 GiB for an array"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_every_library_is_understood_when_it_lacks_memory(error):
    assert is_out_of_memory(error)
    tried = []
    run = short_of_memory(2, tried, error)
    assert MemoryLimits().first_that_fits("a", (4, 2, 1), run, CPU) == "done with 2"
    assert tried == [4, 2]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
        ValueError("out of memory"),
    ],
    ids=str,
)
def test_other_errors_of_the_same_libraries_are_told_apart(error):
    assert not is_out_of_memory(error)
