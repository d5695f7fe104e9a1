"""A small training for tests of what trains, and all that two runs of it must have in common."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from transfer.activations.activations import Activations
from transfer.backbones.catalog import BACKBONES
from transfer.config import TransferConfig
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.weights.find import find_weights

CPU = torch.device("cpu")


# Not MobileNetV2: with random weights in eval mode its features are about 1e-10.
NAME = "resnet18"


DEPTH = BACKBONES[NAME].depth


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # 17 training images: batches of 8 would leave one alone.
    return load_data(
        open_source("phantom:train=21,test=10,size=32"),
        image_size=32,
        seed=0,
        cache_dir=tmp_path_factory.mktemp("cache"),
        interpolations=("bilinear", "bicubic"),
        with_views=True,
    )


@pytest.fixture(scope="module")
def activations(data, tmp_path_factory):
    return Activations(
        data=data,
        weights={name: find_weights(name, weights="random") for name in BACKBONES},
        cache_dir=tmp_path_factory.mktemp("activations"),
        device=CPU,
    )


def config(num_unfrozen_layers=0, **changed):
    values = {
        "backbone": NAME,
        "strategy": "fine_tuning" if num_unfrozen_layers else "feature_extraction",
        "num_unfrozen_layers": num_unfrozen_layers,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "epochs": 3,
    }
    return TransferConfig(**{**values, **changed})


def numbers(result):
    """All that two runs must have in common: everything but times and memory."""
    return (
        [(record.epoch, record.train, record.val) for record in result.history],
        [record.val_logits_NC.tobytes() for record in result.history],
        result.best_epoch,
        result.num_trainable_parameters,
        {key: tensor.numpy().tobytes() for key, tensor in result.trained_state.items()},
    )


def asked_for(activations, monkeypatch):
    """The positions and views of every batch that runs ask for from now on, in their order."""
    seen, inputs = [], activations.inputs

    def watched(*arguments, **named):
        given = inputs(*arguments, **named)

        def batches(positions, views=None):
            seen.extend(zip(positions, views or itertools.repeat(None), strict=False))
            return given.batches(positions, views)

        return SimpleNamespace(
            batches=batches, start=given.start, num_bytes=0, was_at_hand=given.was_at_hand
        )

    monkeypatch.setattr(activations, "inputs", watched)
    return seen
