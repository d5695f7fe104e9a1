"""The precision of trained layers: as asked, or measured once on this machine."""

import errno
import json
from contextlib import nullcontext

import pytest
import torch

from transfer.backbones import custom
from transfer.training import precision
from transfer.training.precision import choose_precision, describe_precision
from transfer.training.throughput import Speedup

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OWN = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))

BACKBONES = {"my_net": build}
"""


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch):
    """A measurement must be expected: it takes time and its result is noise."""
    monkeypatch.setattr(precision, "measure_speedup", lambda *a, **k: pytest.fail("measured"))


@pytest.fixture
def cpu_with(monkeypatch):
    def pretend(*flags):
        monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))

    return pretend


@pytest.fixture
def gpu(monkeypatch):
    def pretend(*, bf16, capability):
        def is_bf16_supported(including_emulation=True):
            return bf16 or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
        monkeypatch.setattr(torch.cuda, "device", nullcontext)

    return pretend


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A backbone of one's own: two convolutions, measured in no time."""
    path = tmp_path / "my_nets.py"
    path.write_text(OWN, encoding="utf-8")
    monkeypatch.setattr(custom, "from_files", {})
    custom.backbones_from_file(path)
    return "my_net"


def speedup(low, high=None, was_quiet=True):
    high = 1.1 * low if high is None else high
    return Speedup(value=(low * high) ** 0.5, low=low, high=high, was_quiet=was_quiet)


def measured(monkeypatch, *speedups):
    """These are found one after another; returns what was asked."""
    calls, left = [], iter(speedups)

    def measure(name, asked, *, image_size, device, until):
        calls.append((name, asked, image_size, device))
        found = next(left)
        if isinstance(found, Exception):
            raise found
        assert until(found) == found.is_clear(1.1)
        return found

    monkeypatch.setattr(precision, "measure_speedup", measure)
    return calls


def chosen(tmp_path, asked="auto", backbone="resnet18", device=CPU, image_size=224):
    return choose_precision(
        asked, backbone, device, image_size=image_size, cache_dir=tmp_path / "cache"
    )


@pytest.mark.parametrize(
    ("bf16", "capability", "half"),
    [
        (True, (8, 0), "bf16"),
        (True, (9, 0), "bf16"),
        (False, (7, 5), "fp16"),
        (False, (7, 0), "fp16"),
        (False, (6, 1), None),
    ],
)
def test_a_gpu_is_measured_in_what_its_hardware_has(
    gpu, tmp_path, monkeypatch, bf16, capability, half
):
    gpu(bf16=bf16, capability=capability)
    calls = measured(monkeypatch, speedup(1.4), speedup(0.9))
    assert chosen(tmp_path, device=CUDA) == (half or "fp32")
    assert chosen(tmp_path, backbone="mobilenet_v2", device=CUDA) == "fp32"
    names = [] if half is None else ["resnet18", "mobilenet_v2"]
    assert calls == [(name, half, 224, CUDA) for name in names]


@pytest.mark.parametrize(
    ("flags", "is_measured"),
    [
        (("avx2", "avx512f", "avx512_bf16"), True),
        (("amx_bf16",), True),
        (("avx2", "avx512f"), False),
        ((), False),
    ],
)
def test_a_cpu_is_measured_only_where_it_has_instructions(
    cpu_with, tmp_path, monkeypatch, flags, is_measured
):
    cpu_with(*flags)
    calls = measured(monkeypatch, speedup(1.5))
    assert chosen(tmp_path) == ("bf16" if is_measured else "fp32")
    assert calls == [("resnet18", "bf16", 224, CPU)] * is_measured


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        (speedup(1.1, 1.2), "bf16"),
        (speedup(1.5, 1.9), "bf16"),
        # It may be less than 1.1 times as fast, but faster it is.
        (speedup(1.05, 1.3), "bf16"),
        (speedup(1.01, 1.15), "fp32"),
        # It may be slower.
        (speedup(0.99, 1.4), "fp32"),
        (speedup(0.9, 5.0), "fp32"),
        (speedup(0.7, 0.8), "fp32"),
        (RuntimeError("no kernel"), "fp32"),
    ],
    ids=str,
)
def test_layers_train_in_half_the_bits_only_where_that_is_surely_faster_and_worth_it(
    cpu_with, tmp_path, monkeypatch, found, precision
):
    cpu_with("avx512_bf16")
    measured(monkeypatch, found)
    assert chosen(tmp_path) == precision


def test_what_could_not_be_measured_is_not_remembered(cpu_with, tmp_path, monkeypatch):
    cpu_with("avx512_bf16")
    measured(monkeypatch, torch.OutOfMemoryError("for the moment"), speedup(1.5))
    assert [chosen(tmp_path) for _ in range(2)] == ["fp32", "bf16"]


@pytest.mark.parametrize(
    ("first", "is_remembered"),
    [
        (speedup(1.0, 1.2), True),
        (speedup(0.7, 0.8, was_quiet=False), True),
        (speedup(1.0, 1.2, was_quiet=False), False),
    ],
    ids=["quiet", "clear", "busy and unclear"],
)
def test_what_a_busy_machine_left_unclear_is_measured_again(
    cpu_with, tmp_path, monkeypatch, first, is_remembered
):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, first, speedup(1.5))
    assert chosen(tmp_path) == "fp32"
    assert chosen(tmp_path) == ("fp32" if is_remembered else "bf16")
    assert len(calls) == (1 if is_remembered else 2)


def test_a_study_of_tiny_images_is_not_worth_a_measurement(cpu_with, tmp_path):
    cpu_with("avx512_bf16")
    assert chosen(tmp_path, image_size=63) == "fp32"


@pytest.mark.parametrize(("asked", "size"), [(64, 64), (224, 224), (512, 224)])
def test_the_studys_image_size_is_measured_up_to_a_largest_one(
    cpu_with, tmp_path, monkeypatch, asked, size
):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, speedup(1.5))
    chosen(tmp_path, image_size=asked)
    assert calls[0][2] == size


def test_another_backbone_is_not_measured_without_instructions(cpu_with, tmp_path, own):
    cpu_with()
    assert chosen(tmp_path, backbone=own) == "fp32"


def test_a_measurement_is_remembered_so_that_noise_changes_no_later_study(
    cpu_with, tmp_path, monkeypatch, own
):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, speedup(1.5), speedup(0.5))
    assert [chosen(tmp_path, backbone=own) for _ in range(2)] == ["bf16", "bf16"]
    assert len(calls) == 1
    (path,) = (tmp_path / "cache" / "speed").iterdir()
    assert len(path.stem) == 32 and set(path.stem) <= set("0123456789abcdef")
    assert json.loads(path.read_text())["low"] == 1.5


@pytest.mark.parametrize(
    "change", ["size", "model", "threads", "code"], ids=lambda change: f"other {change}"
)
def test_what_the_speed_depends_on_is_measured_anew(cpu_with, tmp_path, monkeypatch, own, change):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, speedup(1.5), speedup(0.5))
    chosen(tmp_path, backbone=own, image_size=64)
    if change == "model":
        monkeypatch.setattr(precision, "cpu_model", lambda: "another")
    elif change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    elif change == "code":
        path = tmp_path / "my_nets.py"
        path.write_text(OWN + "# changed\n", encoding="utf-8")
        custom.from_files.clear()
        custom.backbones_from_file(path)
    size = 96 if change == "size" else 64
    assert chosen(tmp_path, backbone=own, image_size=size) == "fp32"
    assert [call[2] for call in calls] == [64, size]


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"value": 1.5, "low": 1.4, "high": 1.6}',
        '{"value": 1.5, "low": "fast", "high": 1.6, "was_quiet": true}',
        '{"value": NaN, "low": 1.4, "high": 1.6, "was_quiet": true}',
        '{"value": 1.5, "low": true, "high": 1.6, "was_quiet": true}',
        '{"value": 1.5, "low": 1.6, "high": 1.4, "was_quiet": true}',
    ],
)
def test_a_damaged_file_is_measured_again(cpu_with, tmp_path, monkeypatch, own, damaged):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, speedup(1.5), speedup(1.5))
    chosen(tmp_path, backbone=own)
    (path,) = (tmp_path / "cache" / "speed").iterdir()
    path.write_text(damaged)
    assert chosen(tmp_path, backbone=own) == "bf16"
    assert len(calls) == 2 and json.loads(path.read_text())["low"] == 1.5


@pytest.mark.parametrize(("number", "is_told"), [(errno.ENOSPC, False), (errno.EIO, True)])
def test_on_a_full_disk_what_was_measured_is_used_and_not_remembered(
    cpu_with, tmp_path, monkeypatch, own, number, is_told
):
    cpu_with("avx512_bf16")
    measured(monkeypatch, speedup(1.5))

    def fail(path):
        raise OSError(number, "no")

    monkeypatch.setattr("transfer.training.precision.written_whole", fail)
    with pytest.raises(OSError) if is_told else nullcontext():
        assert chosen(tmp_path, backbone=own) == "bf16"
    assert not (tmp_path / "cache").exists()


def test_a_backbone_that_takes_no_smaller_images_is_measured_at_the_studys_size(
    cpu_with, tmp_path, monkeypatch, own
):
    cpu_with("avx512_bf16")

    def check(name, image_size):
        if image_size != 160:
            raise ValueError("only 160")

    monkeypatch.setattr(precision, "check_image_size", check)
    calls = measured(monkeypatch, speedup(1.5))
    chosen(tmp_path, backbone=own, image_size=160)
    assert calls[0][2] == 160


def test_networks_are_really_measured_and_nothing_but_noise_is_random(
    cpu_with, tmp_path, monkeypatch, own
):
    monkeypatch.undo()
    custom.backbones_from_file(tmp_path / "my_nets.py")
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    before = torch.get_rng_state()
    assert chosen(tmp_path, backbone=own, image_size=64) in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), before)
    (path,) = (tmp_path / "cache" / "speed").iterdir()
    assert json.loads(path.read_text())["low"] > 0


@pytest.mark.parametrize("asked", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_taken_on_any_cpu(cpu_with, tmp_path, asked):
    cpu_with()
    assert chosen(tmp_path, asked, "squeezenet1_1", image_size=64) == asked


@pytest.mark.parametrize("asked", ["fp32", "fp16"])
def test_what_is_asked_for_is_taken_on_an_old_gpu(gpu, tmp_path, asked):
    gpu(bf16=False, capability=(6, 1))
    assert chosen(tmp_path, asked, device=CUDA) == asked


def test_bfloat16_is_refused_where_a_gpu_would_emulate_it(gpu, tmp_path):
    gpu(bf16=False, capability=(7, 5))
    with pytest.raises(ValueError) as error:
        chosen(tmp_path, "bf16", device=CUDA)
    assert str(error.value) == (
        "Tesla T4 can't compute in bfloat16; use --precision fp16, fp32 or auto."
    )


def test_a_backbone_that_cannot_train_in_what_was_asked_for_is_refused_in_one_line(
    cpu_with, tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise RuntimeError('"conv" not implemented\nfor Half')

    monkeypatch.setattr(precision, "train_one_step", fail)
    with pytest.raises(ValueError) as error:
        chosen(tmp_path, "fp16", "squeezenet1_1", image_size=64)
    assert str(error.value) == (
        "Backbone 'squeezenet1_1' can't train in float16 on this CPU (RuntimeError: \"conv\" not "
        "implemented for Half); use --precision fp32 or auto."
    )


def test_an_unknown_precision_is_refused_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match="'fp8'; choose from auto, fp32, bf16, fp16"):
        chosen(tmp_path, "fp8")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, None),
        ({"a": "fp32"}, None),
        ({"a": "bf16", "b": "fp32", "c": "bf16"}, "Layers train in bfloat16: a, c"),
        ({"a": "fp16"}, "Layers train in float16: a"),
    ],
)
def test_only_backbones_with_half_the_bits_are_named(found, said):
    assert describe_precision(found) == said
