"""What is validated and kept has BatchNorm statistics of its own weights, at any momentum.

Shapes: B images of a batch, c channels, h x w pixels, D features.
"""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from trainings import CPU, DEPTH, NAME, asked_for, config, numbers

from transfer.activations.activations import Activations
from transfer.backbones.find import TransferNetwork
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.inference import predict_logits
from transfer.network import freeze
from transfer.training.batch_norm import (
    MAX_IMAGES,
    MIN_IMAGES,
    SHARE,
    num_statistics_images,
    take_statistics,
)
from transfer.training.optimizer import logits_above
from transfer.training.train import train
from transfer.weights.find import find_weights


@pytest.fixture(scope="module")
def activations(tmp_path_factory):
    data = load_data(
        open_source("phantom:train=40,test=10,size=32,contrast=4"),
        image_size=32,
        seed=0,
        cache_dir=tmp_path_factory.mktemp("cache"),
        with_views=True,
    )
    return Activations(
        data=data,
        weights={NAME: find_weights(NAME, weights="random")},
        cache_dir=tmp_path_factory.mktemp("activations"),
        device=CPU,
    )


def set_momentum(blocks, momentum):
    for module in blocks.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum
    return blocks


@pytest.fixture
def with_momentum(activations, monkeypatch):
    """Give the layers that train this momentum from now on."""
    blocks = activations.blocks

    def use(momentum):
        def changed(backbone, boundary):
            built = blocks(backbone, boundary)
            set_momentum(built[boundary:], momentum)
            return built

        monkeypatch.setattr(activations, "blocks", changed)

    return use


@pytest.mark.parametrize(
    ("changed", "momenta"),
    [
        ({}, (0.001, 0.01, 0.3, 0.0, None)),
        ({"ema_decay": 0.9, "gradual_unfreezing": 0.5}, (0.001, 0.3)),
        ({"mixup": 0.4, "num_views": 2, "precision": "bf16"}, (0.001, 0.3)),
    ],
    ids=str,
)
def test_the_momentum_of_batch_norm_changes_no_bit(activations, with_momentum, changed, momenta):
    runs = []
    for momentum in momenta:
        with_momentum(momentum)
        runs.append(numbers(train(config(1, epochs=2, **changed), activations)))
    assert all(run == runs[0] for run in runs[1:])


@pytest.mark.parametrize("changed", [{}, {"ema_decay": 0.9}], ids=str)
@pytest.mark.parametrize("momentum", [0.001, 0.1])
def test_in_eval_mode_the_kept_network_knows_the_training_images_as_in_train_mode(
    activations, with_momentum, momentum, changed
):
    with_momentum(momentum)
    run = config(2, epochs=5, dropout=0.0, **changed)
    result = train(run, activations)
    positions_N = activations.data.train.positions_N
    boundary = DEPTH - 2
    network = TransferNetwork(activations.blocks(NAME, boundary), 512, 2, dropout=0.0)
    network.load_state_dict(result.trained_state, strict=False)
    freeze(network, 2)
    x = activations.inputs(NAME, boundary, passes=1).at(positions_N)
    eval_logits_NC = predict_logits(run, activations, result.trained_state)[positions_N]
    with torch.no_grad():
        train_logits_NC = logits_above(network.train(), boundary, x, "fp32").numpy()
    labels_N = activations.data.train.labels_N
    in_eval, in_train = (
        np.mean(logits_NC.argmax(axis=1) == labels_N)
        for logits_NC in (eval_logits_NC, train_logits_NC)
    )
    assert in_train > 0.9 and abs(in_eval - in_train) <= 0.02


def test_what_is_kept_gives_what_was_validated(activations, with_momentum):
    with_momentum(0.01)
    run = config(2, epochs=3, ema_decay=0.9)
    result = train(run, activations)
    logits_NC = predict_logits(run, activations, result.trained_state)
    val = activations.data.val
    np.testing.assert_allclose(
        logits_NC[val.positions_N], result.best.val_logits_NC, rtol=1e-5, atol=1e-6
    )


class Noisy(nn.Module):
    """A block with all that moves or draws in train mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3, momentum=0.01)
        self.no_statistics = nn.BatchNorm2d(3, track_running_stats=False)
        self.other = nn.InstanceNorm2d(3, track_running_stats=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.other(self.no_statistics(self.drop(self.norm(self.conv(x)))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = TransferNetwork(nn.Sequential(*(Noisy() for _ in range(3))), 3, 2, dropout=0.5)
    freeze(network, 2)
    return network


def batches_Bchw(num=3, size=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 5, 5, generator=generator) + i for i in range(num)]


def test_statistics_are_the_mean_of_those_of_the_batches(network):
    take_statistics(network, 1, batches_Bchw())
    with torch.no_grad():
        inputs = [network.blocks[1].conv(x) for x in batches_Bchw()]
    norm = network.blocks[1].norm
    means, variances = (
        torch.stack([getattr(x, kind)(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
        for kind in ("mean", "var")
    )
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)


def test_nothing_but_statistics_of_batch_norm_that_trains_moves_nor_draws(network):
    before = copy.deepcopy(network.state_dict())
    state = torch.random.get_rng_state()
    take_statistics(network, 1, batches_Bchw())
    moved = {k for k, t in network.state_dict().items() if not torch.equal(t, before[k])}
    assert moved == {
        f"blocks.{block}.norm.{buffer}"
        for block in (1, 2)
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {block.norm.momentum for block in network.blocks} == {0.01}
    assert not any(module.training for module in network.modules())


def test_they_are_of_the_number_format_that_training_computes_in(network):
    seen = []
    network.blocks[1].norm.register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    take_statistics(network, 1, batches_Bchw())
    exact = network.blocks[1].norm.running_mean.clone()
    take_statistics(network, 1, batches_Bchw(), "bf16")
    assert set(seen[:3]) == {torch.float32} and set(seen[3:]) == {torch.bfloat16}
    rounded = network.blocks[1].norm.running_mean
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


def test_statistics_do_not_depend_on_what_they_were(network):
    other = copy.deepcopy(network)
    for block in other.blocks[1:]:
        block.norm.running_mean.fill_(math.nan)
        block.norm.running_var.fill_(7.0)
    states = []
    for each in (network, other):
        take_statistics(each, 1, batches_Bchw())
        states.append([t.numpy().tobytes() for t in each.state_dict().values()])
    assert states[0] == states[1]


def test_where_batch_norm_is_frozen_or_there_is_none_no_batch_is_asked_for(network):
    def never():
        raise AssertionError("a batch was asked for")
        yield

    freeze(network, 2, batch_norm="frozen")
    take_statistics(network, 1, never())
    freeze(network, 0)
    take_statistics(network, 3, never())
    plain = TransferNetwork(nn.Sequential(nn.Conv2d(3, 3, 1)), 3, 2, dropout=0.0)
    freeze(plain, 1)
    take_statistics(plain, 0, never())


def test_features_are_normalised_as_pictures_are():
    network = TransferNetwork(nn.Sequential(nn.BatchNorm1d(4, momentum=None)), 4, 2, dropout=0.0)
    freeze(network, 1)
    x_BD = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    take_statistics(network, 0, [x_BD])
    torch.testing.assert_close(network.blocks[0].running_mean, x_BD.mean(dim=0))
    torch.testing.assert_close(network.blocks[0].running_var, x_BD.var(dim=0))
    assert network.blocks[0].momentum is None


@pytest.mark.parametrize(
    ("num_train", "expected"),
    [
        (1, 1),
        (40, 40),
        (MIN_IMAGES, MIN_IMAGES),
        (200, MIN_IMAGES),
        (320, 64),
        (1000, round(SHARE * 1000)),
        (10**6, MAX_IMAGES),
    ],
)
def test_a_share_of_the_training_images_is_looked_at_and_of_few_images_enough(num_train, expected):
    assert num_statistics_images(num_train) == expected


def test_the_same_training_images_in_every_epoch_as_they_are(activations, monkeypatch):
    seen = asked_for(activations, monkeypatch)
    train(config(2, epochs=3, num_views=2), activations)
    of_training = set(activations.data.train.positions_N.tolist())
    looked_at = [
        position
        for positions_B, views_B in seen
        if views_B is None
        for position in positions_B.tolist()
        if position in of_training
    ]
    num_images = num_statistics_images(len(of_training))
    by_epoch = [looked_at[i * num_images : (i + 1) * num_images] for i in range(3)]
    assert by_epoch == [by_epoch[0]] * 3 and len(set(by_epoch[0])) == num_images
