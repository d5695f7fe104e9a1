"""The first look at a GPU fails where something is wrong: tried on the CPU."""

import argparse
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu
from transfer.training.train import train

CPU = torch.device("cpu")


def test_frozen_layers_are_compared_bit_for_bit(monkeypatch):
    monkeypatch.setattr(gpu, "train", lambda config, activations: train(config, activations))
    found = gpu.frozen_is_frozen(CPU)
    assert found["ok"] and found["identical"] == found["tensors"] > 50

    def moves_one(config, activations):
        result = train(config, activations)
        blocks = activations._pretrained(gpu.BACKBONE)
        next(t for t in blocks.state_dict().values() if t.is_floating_point()).add_(1e-6)
        return result

    monkeypatch.setattr(gpu, "train", moves_one)
    found = gpu.frozen_is_frozen(CPU)
    assert not found["ok"] and found["identical"] == found["tensors"] - 1


@pytest.mark.parametrize(
    ("states", "expected", "ok"),
    [
        ("CCC", "COMPLETE", True),
        ("CCP", "PRUNED", True),
        ("CCC", "PRUNED", False),
        ("CCF", "COMPLETE", False),
    ],
)
def test_a_study_without_the_states_that_it_is_to_show_has_failed(
    monkeypatch, states, expected, ok
):
    names = {"C": "COMPLETE", "P": "PRUNED", "F": "FAIL"}
    strategies = ["fine_tuning", "feature_extraction", "fine_tuning"]
    records = [
        SimpleNamespace(state=names[state], value=0.9, strategy=strategy)
        for state, strategy in zip(states, strategies, strict=True)
    ]
    monkeypatch.setattr(gpu.studies, "run", lambda **_: SimpleNamespace(records=records))
    arguments = argparse.Namespace(device="cpu", weights_dir=None)
    assert gpu.run_study("phantom", arguments, expected=expected)["ok"] is ok


def test_on_a_gpu_it_must_take_less_than_five_minutes():
    cuda = torch.device("cuda")
    assert [gpu.in_time(s, d)["ok"] for s, d in ((299, cuda), (301, cuda), (301, CPU))] == [
        True,
        False,
        None,
    ]
