"""A study's precision is decided once, said, and kept on whatever machine it goes on."""

from types import SimpleNamespace

import pytest
import torch

from studies.search import setup
from studies.search.setup import chosen_precision

BOTH, FROZEN = ("feature_extraction", "fine_tuning"), ("feature_extraction",)


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """Choose for two backbones, of which the first trains in bfloat16; returns what was said."""

    def asked(precision, backbone, device, **given):
        return "bf16" if backbone == "resnet18" else "fp32"

    def run(strategies=BOTH, stored=None):
        monkeypatch.setattr(setup, "choose_precision", asked)
        said = []
        found = chosen_precision(
            SimpleNamespace(precision="auto", image_size=64),
            SimpleNamespace(strategies=strategies, backbones=("resnet18", "resnet50")),
            torch.device("cpu"),
            tmp_path,
            stored,
            SimpleNamespace(message=said.append, work=None),
        )
        return found, said

    return run


def test_each_backbone_has_its_own_and_half_the_bits_are_said_with_the_way_out(choose):
    found, said = choose()
    assert found == {"resnet18": "bf16", "resnet50": "fp32"}
    assert said == ["Layers train in bfloat16: resnet18 (--precision fp32 turns it off)."]


def test_where_no_layer_trains_nothing_is_decided_or_said(choose):
    assert choose(strategies=FROZEN) == ({}, [])


def test_a_stored_study_keeps_its_own(choose):
    stored = SimpleNamespace(identity={"precision": {"resnet50": "bf16"}})
    assert choose(stored=stored) == (
        {"resnet50": "bf16"},
        ["Layers train in bfloat16: resnet50."],
    )
