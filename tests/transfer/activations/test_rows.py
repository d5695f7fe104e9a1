"""Rows of an array come out as copies, from the device where they fit there and else the host."""

import warnings

import numpy as np
import pytest
import torch

from transfer.activations.inputs import DEVICE_SHARE, Rows

# A device without memory: it shows where an array is put, without a GPU.
CPU, META = torch.device("cpu"), torch.device("meta")
INDICES = [[0], [4, 1, 1], [], [3, 2, 1, 0, 4, 4, 4]]


def numbers(dtype=np.float32):
    return np.arange(5 * 6, dtype=dtype).reshape(5, 2, 3)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_the_rows_asked_for_come_in_their_order_and_type(index, dtype):
    index_B = np.array(index, dtype=np.int64)
    taken = Rows(numbers(dtype), CPU).take(index_B)
    expected = numbers(dtype)[index_B]
    assert taken.device == CPU and taken.shape == expected.shape
    assert taken.numpy().dtype == dtype and np.array_equal(taken.numpy(), expected)


def mapped(folder):
    np.save(folder / "rows.npy", numbers())
    return np.load(folder / "rows.npy", mmap_mode="r")


@pytest.mark.parametrize("is_mapped", [True, False])
def test_changing_what_was_taken_changes_neither_the_array_nor_what_is_taken_next(
    tmp_path, is_mapped
):
    array = mapped(tmp_path) if is_mapped else numbers()
    rows, index_B = Rows(array, CPU), np.arange(5)
    rows.take(index_B).fill_(-1)
    assert np.array_equal(array, numbers())
    assert np.array_equal(rows.take(index_B).numpy(), numbers())


def test_on_the_cpu_no_memory_is_asked_for_and_nothing_is_copied_ahead():
    def fail(device):
        raise AssertionError("asked for the memory of a device that is the host")

    array = numbers()
    rows = Rows(array, CPU, fail)
    array[0] = 77
    assert (rows.take(np.array([0])) == 77).all()


NUM_BYTES = numbers().nbytes


@pytest.mark.parametrize(
    ("free", "fits"),
    [
        (10**9, True),
        (NUM_BYTES / DEVICE_SHARE, True),
        (NUM_BYTES / DEVICE_SHARE - 1, False),
        (0, False),
    ],
)
@pytest.mark.parametrize("is_mapped", [True, False])
def test_an_array_goes_to_the_device_whole_where_it_takes_its_share_of_free_memory_at_most(
    tmp_path, free, fits, is_mapped
):
    array = mapped(tmp_path) if is_mapped else numbers()
    asked = []

    def free_bytes(device):
        asked.append(device)
        return free

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # As that of torch about arrays that can't be written.
        rows = Rows(array, META, free_bytes)
        taken = rows.take(np.array([3, 3, 0]))
    assert (rows._whole is not None) is fits
    assert asked == [META]
    assert taken.device == META and taken.shape == (3, 2, 3) and taken.dtype == torch.float32


@pytest.mark.parametrize("fits", [True, False])
def test_the_host_is_read_for_every_batch_only_where_the_array_is_not_on_the_device(fits):
    class Counted(np.ndarray):
        num_reads = 0

        def __getitem__(self, index):
            Counted.num_reads += 1
            return np.asarray(self)[index]

    rows = Rows(numbers().view(Counted), META, lambda device: 10**9 if fits else 0)
    Counted.num_reads = 0
    for _ in range(3):
        rows.take(np.array([1]))
    assert Counted.num_reads == (0 if fits else 3)


def test_arrays_that_go_to_the_device_together_share_the_quarter():
    free = 3 * NUM_BYTES / DEVICE_SHARE
    held = [
        Rows(numbers(), META, lambda device: free, share=1 / count)._whole is not None
        for count in (1, 3, 4)
    ]
    assert held == [True, True, False]
