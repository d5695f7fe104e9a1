"""Freed memory stays with the process while networks run, and no longer."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from paths import HELPERS, ROOT

from transfer import device
from transfer.device import give_back, retained_memory

MIB = 2**20

needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or device._glibc() is None, reason="malloc is not glibc's"
)


def faults_of_tensors(num_bytes=64 * MIB, times=10):
    """Page faults of making and dropping a tensor over and over, once memory has settled."""
    for _ in range(times):
        torch.ones(num_bytes, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(num_bytes, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


PROCESS = """
from test_host_memory import faults_of_tensors, retained_memory
print(faults_of_tensors())
with retained_memory():
    print(faults_of_tensors())
"""


def in_a_process_of_its_own(program):
    """The numbers that it prints: another test's gaps in the heap would serve as well."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}:{HELPERS}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return map(int, done.stdout.split())


@needs_glibc
def test_a_tensor_takes_the_place_of_the_last_one_without_page_faults():
    before, during = in_a_process_of_its_own(PROCESS)
    # At least one for every huge page of 2 MiB, where the system has them.
    assert before >= 10 * 32
    assert during < before / 10


LATER = """
from test_host_memory import MIB, faults_of_tensors, retained_memory
with retained_memory():
    pass
print(faults_of_tensors(16 * MIB))
"""


@needs_glibc
def test_a_program_that_goes_on_afterwards_keeps_what_glibc_keeps_by_itself():
    # That are blocks below 32 MB, once one of their size was freed.
    (faults,) = in_a_process_of_its_own(LATER)
    assert faults < 32


GIVEN_BACK = """
from test_host_memory import MIB, faults_of_tensors
import torch
from transfer.device import anonymous_bytes
from transfer.device import give_back, retained_memory
before = anonymous_bytes()

def more():
    print((anonymous_bytes() - before) // MIB)

with retained_memory():
    with retained_memory():
        torch.ones(512 * MIB, dtype=torch.uint8)
    more()
    print(faults_of_tensors())
more()
with retained_memory():
    torch.ones(512 * MIB, dtype=torch.uint8)
    give_back()
    more()
try:
    with retained_memory():
        torch.ones(512 * MIB, dtype=torch.uint8)
        1 / 0
except ZeroDivisionError:
    more()
"""


@needs_glibc
def test_memory_is_given_back_at_the_outermost_end_when_asked_for_and_behind_an_error():
    inside, faults, *given_back = in_a_process_of_its_own(GIVEN_BACK)
    assert inside > 400 and faults < 32
    assert len(given_back) == 3 and max(given_back) < 100


def test_an_error_ends_the_block():
    with pytest.raises(ZeroDivisionError), retained_memory():
        _ = 1 / 0
    assert device._depth == 0


def test_where_malloc_is_another_one_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(device, "_glibc", lambda: None)
    with retained_memory():
        assert torch.ones(MIB).sum() == MIB
    give_back()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_than_on_linux_no_library_is_asked(monkeypatch, platform):
    monkeypatch.setattr("transfer.device.sys.platform", platform)
    monkeypatch.setattr("transfer.device.ctypes.CDLL", lambda name: pytest.fail("asked"))
    device._glibc.cache_clear()
    try:
        assert device._glibc() is None
    finally:
        device._glibc.cache_clear()


def test_a_library_without_both_functions_is_left_alone(monkeypatch):
    class Musl:
        mallopt = None

    monkeypatch.setattr("transfer.device.sys.platform", "linux")
    monkeypatch.setattr("transfer.device.ctypes.CDLL", lambda name: Musl())
    device._glibc.cache_clear()
    try:
        assert device._glibc() is None
    finally:
        device._glibc.cache_clear()


@needs_glibc
@pytest.mark.parametrize(
    ("name", "value", "is_set"),
    [
        ("MALLOC_MMAP_MAX_", "0", True),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000", True),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=4", False),
    ],
)
def test_thresholds_that_the_environment_has_set_are_left_alone(monkeypatch, name, value, is_set):
    calls = []
    libc = SimpleNamespace(
        mallopt=lambda *given: calls.append(given), malloc_trim=lambda _: calls.append("trim")
    )
    monkeypatch.setattr(device, "_glibc", lambda: libc)
    monkeypatch.setenv(name, value)
    with retained_memory():
        pass
    assert (calls == ["trim"]) == is_set and calls[-1] == "trim"
