"""The device is chosen by name; what the machine doesn't have is refused with a way out."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from transfer.device import (
    PeakMemory,
    anonymous_bytes,
    choose_device,
    cpu_flags,
    cpu_model,
    describe_device,
    make_deterministic,
    num_threads,
    versions,
)

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("name", "num_gpus", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cpu", 0, "cpu"),
        ("cpu", 1, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_is_chosen_by_name_or_the_gpu_where_there_is_one(gpus, name, num_gpus, device):
    gpus(num_gpus)
    assert choose_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "num_gpus", "message"),
    [
        ("tpu", 1, "Unknown device 'tpu'; choose from auto, cpu, cuda, cuda:INDEX."),
        ("cuda:one", 1, "Unknown device 'cuda:one'; choose from auto, cpu, cuda, cuda:INDEX."),
        ("", 1, "Unknown device ''; choose from auto, cpu, cuda, cuda:INDEX."),
        ("mps", 0, "Device 'mps' (an Apple GPU) is not supported; use --device cpu."),
        ("mps:0", 0, "Device 'mps:0' (an Apple GPU) is not supported; use --device cpu."),
        ("cuda", 0, "Device 'cuda' is not available on this machine; use --device cpu."),
        ("cuda:0", 0, "Device 'cuda:0' is not available on this machine; use --device cpu."),
        ("cuda:2", 2, "Device 'cuda:2' is not there; the last one is cuda:1."),
    ],
)
def test_a_device_that_is_not_there_is_refused(gpus, name, num_gpus, message):
    gpus(num_gpus)
    with pytest.raises(ValueError) as error:
        choose_device(name)
    assert str(error.value) == message


def test_the_number_of_threads_is_fixed():
    before = num_threads()
    try:
        for threads in (1, 2):
            make_deterministic(threads, CPU)
            assert num_threads() == torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def in_a_process_of_its_own(code):
    """What the allocator kept from earlier tests and gives again would hide a difference."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_memory_counts_what_a_tensor_takes():
    num_bytes = in_a_process_of_its_own(
        "import torch; from transfer.device import anonymous_bytes;"
        "before = anonymous_bytes();"
        "tensor = torch.ones(64 * 2**20, dtype=torch.uint8);"
        "print(anonymous_bytes() - before)"
    )
    assert 0.9 * 64 * 2**20 < num_bytes < 80 * 2**20


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_memory_does_not_count_the_pages_of_a_mapped_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64 * 2**20))
    num_bytes = in_a_process_of_its_own(
        "import numpy, torch; from transfer.device import anonymous_bytes;"
        "before = anonymous_bytes();"
        f"mapped = numpy.memmap({str(tmp_path / 'file')!r}, mode='r');"
        "assert int(mapped.max()) == 0; print(anonymous_bytes() - before)"
    )
    assert num_bytes < 16 * 2**20


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_the_peak_counts_what_was_given_back_before_the_end_and_not_what_was_there_before():
    num_bytes = in_a_process_of_its_own(
        "import time, torch; from transfer.device import PeakMemory, anonymous_bytes\n"
        "there = torch.ones(200 * 2**20, dtype=torch.uint8)\n"
        "before = anonymous_bytes()\n"
        "with PeakMemory(torch.device('cpu')) as peak:\n"
        "    tensor = torch.ones(64 * 2**20, dtype=torch.uint8)\n"
        "    time.sleep(0.3)\n"
        "    del tensor\n"
        "    assert anonymous_bytes() - before < 32 * 2**20\n"
        "print(peak.num_bytes)"
    )
    assert 0.9 * 64 * 2**20 < num_bytes < 80 * 2**20


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_the_peak_forgets_what_came_before_a_restart_but_not_what_is_still_held():
    num_bytes = in_a_process_of_its_own(
        "import time, torch\n"
        "from transfer.device import PeakMemory\n"
        "from transfer.device import retained_memory\n"
        "with retained_memory(), PeakMemory(torch.device('cpu')) as peak:\n"
        "    held = torch.ones(64 * 2**20, dtype=torch.uint8)\n"
        "    passing = torch.ones(300 * 2**20, dtype=torch.uint8)\n"
        "    time.sleep(0.1)\n"
        "    del passing\n"
        "    peak.restart()\n"
        "print(peak.num_bytes)"
    )
    assert 0.9 * 64 * 2**20 < num_bytes < 80 * 2**20


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_the_peak_of_an_empty_block_is_next_to_nothing():
    # In a process of its own: threads of other tests may still take memory in this one.
    num_bytes = in_a_process_of_its_own(
        "import torch\n"
        "from transfer.device import PeakMemory\n"
        "with PeakMemory(torch.device('cpu')) as peak:\n"
        "    pass\n"
        "print(peak.num_bytes)"
    )
    assert 0 <= num_bytes < 2**20


def test_where_the_system_does_not_tell_the_peak_is_unknown(monkeypatch):
    monkeypatch.setattr("transfer.device.anonymous_bytes", lambda: None)
    before = threading.active_count()
    with PeakMemory(CPU) as peak:
        assert threading.active_count() == before
        peak.restart()
    assert peak.num_bytes is None


def test_the_thread_that_samples_ends_with_the_block_even_by_an_error():
    before = threading.active_count()
    with PeakMemory(CPU):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="broken"), PeakMemory(CPU):
        raise RuntimeError("broken")
    assert threading.active_count() == before


class Allocator:
    """What a device holds, and the most that it held since it was last asked to forget."""

    def __init__(self, monkeypatch, held):
        self.held, self.most = held, 10**6
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.most)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.held)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def reset(self, device):
        self.most = self.held

    def take(self, num_bytes):
        self.held += num_bytes
        self.most = max(self.most, self.held)


def test_on_cuda_the_peak_is_what_the_block_held_beyond_what_was_there(monkeypatch):
    device, before = Allocator(monkeypatch, held=1000), threading.active_count()
    with PeakMemory(torch.device("cuda")) as peak:
        assert threading.active_count() == before
        device.take(500)
        device.take(-400)
        peak.restart()
        device.take(7)
        device.take(-7)
    assert peak.num_bytes == 107


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_the_cpu_tells_its_model_and_its_instructions():
    assert cpu_model()
    assert all(" " not in flag for flag in cpu_flags())


def test_the_cpu_is_called_cpu():
    assert describe_device(CPU) == "cpu"


def test_versions_are_the_ones_that_run():
    found = versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == (
        torch.__version__
    )
    assert found["python"] == platform.python_version()
    assert {"torchvision", "numpy", "pillow", "transfer-studies"} < found.keys()


@pytest.mark.parametrize("status", [b"VmRSS: 1 kB", OSError()], ids=["another line", "no file"])
def test_where_linux_does_not_tell_anonymous_memory_is_unknown(monkeypatch, status):
    def read(path):
        if isinstance(status, OSError):
            raise status
        return status

    monkeypatch.setattr(Path, "read_bytes", read)
    assert anonymous_bytes() is None


@pytest.fixture
def switches(monkeypatch):
    """What is asked of torch's deterministic algorithms; its other switches are put back."""
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on, **k: asked.append(on))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield asked
    cudnn.allow_tf32, matmul.allow_tf32 = before
    torch.utils.deterministic.fill_uninitialized_memory = fills


def test_on_cuda_float32_is_not_computed_in_fewer_bits(switches):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.allow_tf32 = matmul.allow_tf32 = True
    make_deterministic(num_threads(), torch.device("cuda"))
    assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)


def test_deterministic_algorithms_do_not_write_into_every_new_tensor(switches):
    torch.utils.deterministic.fill_uninitialized_memory = True
    make_deterministic(num_threads(), torch.device("cuda:1"))
    assert switches == [True]
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_a_run_on_the_cpu_changes_nothing_of_a_gpu_that_is_there(gpus, switches):
    gpus(1)
    torch.backends.cudnn.allow_tf32 = True
    make_deterministic(num_threads(), CPU)
    assert switches == [] and torch.backends.cudnn.allow_tf32
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
