"""The precision of trained layers: by rule on a GPU, by table or one measurement on a CPU."""

import errno
import json
from contextlib import nullcontext

import pytest
import torch

from transfer import custom, precision
from transfer.catalog import BACKBONES
from transfer.precision import BF16_PAYS_ON_CPU, choose_precision, describe_precision

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
    """A backbone of one's own, whose speed is measured: `speedups` are told one after another."""
    path = tmp_path / "my_nets.py"
    path.write_text(OWN, encoding="utf-8")
    monkeypatch.setattr(custom, "from_files", {})
    custom.backbones_from_file(path)
    return "my_net"


def measured(monkeypatch, *speedups):
    calls, left = [], iter(speedups)

    def measure(name, asked, *, image_size, device):
        calls.append((name, asked, image_size, device))
        speedup = next(left)
        if isinstance(speedup, Exception):
            raise speedup
        return speedup

    monkeypatch.setattr(precision, "measure_speedup", measure)
    return calls


def chosen(tmp_path, asked="auto", backbone="resnet18", device=CPU, image_size=224):
    return choose_precision(
        asked, backbone, device, image_size=image_size, cache_dir=tmp_path / "cache"
    )


@pytest.mark.parametrize(
    ("bf16", "capability", "found"),
    [
        (True, (8, 0), "bf16"),
        (True, (9, 0), "bf16"),
        (False, (7, 5), "fp16"),
        (False, (7, 0), "fp16"),
        (False, (6, 1), "fp32"),
    ],
)
def test_a_gpu_computes_in_what_its_hardware_has(gpu, tmp_path, bf16, capability, found):
    gpu(bf16=bf16, capability=capability)
    assert chosen(tmp_path, device=CUDA) == found


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("avx2", "avx512f", "avx512_bf16"), "bf16"),
        (("amx_bf16",), "bf16"),
        (("avx2", "avx512f"), "fp32"),
        ((), "fp32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_instructions(
    cpu_with, tmp_path, flags, found
):
    cpu_with(*flags)
    assert chosen(tmp_path) == found


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbones_of_the_table_are_known_and_never_measured(cpu_with, tmp_path, backbone):
    cpu_with("avx512_bf16")
    pays_from = BF16_PAYS_ON_CPU.get(backbone)
    assert chosen(tmp_path, backbone=backbone) == ("fp32" if pays_from is None else "bf16")
    if pays_from is not None:
        smaller = chosen(tmp_path, backbone=backbone, image_size=pays_from - 1)
        assert smaller == "fp32"
    assert not (tmp_path / "cache").exists()


def test_the_table_names_only_backbones_that_there_are():
    assert BF16_PAYS_ON_CPU.keys() <= BACKBONES.keys()


@pytest.mark.parametrize(
    ("speedup", "found"), [(1.19, "fp32"), (1.2, "bf16"), (RuntimeError("no kernel"), "fp32")]
)
def test_another_backbone_trains_in_bfloat16_where_that_was_measured_to_be_faster(
    cpu_with, tmp_path, monkeypatch, own, speedup, found
):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, speedup)
    assert chosen(tmp_path, backbone=own) == found
    assert calls == [(own, "bf16", 128, CPU)]


def test_another_backbone_is_not_measured_without_instructions(cpu_with, tmp_path, own):
    cpu_with()
    assert chosen(tmp_path, backbone=own) == "fp32"


def test_a_measurement_is_remembered_so_that_noise_changes_no_later_study(
    cpu_with, tmp_path, monkeypatch, own
):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, 1.5, 0.5)
    assert [chosen(tmp_path, backbone=own) for _ in range(2)] == ["bf16", "bf16"]
    assert len(calls) == 1
    (path,) = (tmp_path / "cache" / "speed").iterdir()
    assert len(path.stem) == 32 and set(path.stem) <= set("0123456789abcdef")
    assert json.loads(path.read_text())["speedup"] == 1.5


@pytest.mark.parametrize(
    "change", ["size", "model", "threads", "code"], ids=lambda change: f"other {change}"
)
def test_what_the_speed_depends_on_is_measured_anew(cpu_with, tmp_path, monkeypatch, own, change):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, 1.5, 0.5)
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
    ["", "{", "[]", "{}", '{"speedup": "fast"}', '{"speedup": NaN}', '{"speedup": true}'],
)
def test_a_damaged_file_is_measured_again(cpu_with, tmp_path, monkeypatch, own, damaged):
    cpu_with("avx512_bf16")
    calls = measured(monkeypatch, 1.5, 1.5)
    chosen(tmp_path, backbone=own)
    (path,) = (tmp_path / "cache" / "speed").iterdir()
    path.write_text(damaged)
    assert chosen(tmp_path, backbone=own) == "bf16"
    assert len(calls) == 2 and json.loads(path.read_text())["speedup"] == 1.5


@pytest.mark.parametrize(("number", "is_told"), [(errno.ENOSPC, False), (errno.EIO, True)])
def test_on_a_full_disk_what_was_measured_is_used_and_not_remembered(
    cpu_with, tmp_path, monkeypatch, own, number, is_told
):
    cpu_with("avx512_bf16")
    measured(monkeypatch, 1.5)

    def fail(path):
        raise OSError(number, "no")

    monkeypatch.setattr("transfer.precision.written_whole", fail)
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
    calls = measured(monkeypatch, 1.5)
    chosen(tmp_path, backbone=own, image_size=160)
    assert calls[0][2] == 160


def test_own_networks_are_really_measured_and_nothing_but_noise_is_random(
    cpu_with, tmp_path, monkeypatch, own
):
    monkeypatch.undo()
    custom.backbones_from_file(tmp_path / "my_nets.py")
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    before = torch.get_rng_state()
    assert chosen(tmp_path, backbone=own, image_size=32) in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), before)
    (path,) = (tmp_path / "cache" / "speed").iterdir()
    assert json.loads(path.read_text())["speedup"] > 0


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
