"""A step does what its optimizer's paper says, in the number format that was asked for.

Legend: B images of a batch, C classes, D features.
"""

from functools import partial

import pytest
import torch
from torch import nn

from transfer.backbones.find import TransferNetwork
from transfer.config import TransferConfig
from transfer.network import freeze
from transfer.training.optimizer import Stepping, logits_above, make_optimizer


def config(**changed):
    values = {"backbone": "resnet18", "strategy": "fine_tuning", "num_unfrozen_layers": 1}
    return TransferConfig(**{**values, "learning_rate": 1e-3, "batch_size": 8, **changed})


def network_of(*blocks):
    torch.manual_seed(0)
    return TransferNetwork(nn.Sequential(*blocks), num_features=3, num_classes=2, dropout=0.0)


@pytest.mark.parametrize(
    ("optimizer", "factor"),
    [
        # Apart from the gradient: a share of the weight, whatever Adam makes of gradients.
        ("adamw", 1 - 0.1 * 0.5),
        # A gradient of weight_decay * weight: a plain step along it.
        ("sgd", 1 - 0.1 * 0.5),
    ],
)
def test_weight_decay_alone_shrinks_a_weight_by_rate_times_decay(optimizer, factor):
    network = TransferNetwork(torch.nn.Sequential(), num_features=3, num_classes=2, dropout=0.0)
    stepping = make_optimizer(
        config(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5), network
    )
    before = network.head[1].weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepping.step()
    torch.testing.assert_close(network.head[1].weight.detach(), factor * before)


def test_adams_weight_decay_is_part_of_the_gradient_and_so_of_unit_size():
    network = TransferNetwork(torch.nn.Sequential(), num_features=3, num_classes=2, dropout=0.0)
    stepping = make_optimizer(
        config(optimizer="adam", learning_rate=0.1, weight_decay=0.5), network
    )
    before = network.head[1].weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepping.step()
    torch.testing.assert_close(network.head[1].weight.detach(), before - 0.1 * before.sign())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_step_is_one_fused_kernel_that_gives_what_the_plain_one_gives(optimizer):
    run = config(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1)
    network, plain = network_of(), network_of()
    stepping, plainly = make_optimizer(run, network), make_optimizer(run, plain)
    for group in plainly.param_groups:
        assert group["fused"] is True
        group["fused"] = None
    for _ in range(3):
        for parameter, other in zip(network.parameters(), plain.parameters(), strict=True):
            parameter.grad = torch.ones_like(parameter)
            other.grad = torch.ones_like(other)
        stepping.step()
        plainly.step()
    for parameter, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, other)


def test_sgd_in_float16_takes_no_fused_kernel():
    # It keeps a momentum that was never written where the first step overflows.
    optimizer = make_optimizer(config(optimizer="sgd", precision="fp16"), network_of())
    assert [group["fused"] for group in optimizer.param_groups] == [False]


def test_complex_weights_for_which_there_is_no_fused_kernel_train_as_well():
    network = network_of()
    network.blocks.append(nn.ParameterList([torch.ones(3, dtype=torch.complex64)]))
    stepping = make_optimizer(config(), network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = network.blocks[0][0].detach().clone()
    stepping.step()
    assert not torch.equal(network.blocks[0][0], before)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_blocks_compute_in_the_precision_and_pooling_head_and_weights_in_float32(precision, dtype):
    network = network_of(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    freeze(network, 2)
    seen = []
    network.blocks[1].register_forward_hook(lambda module, x, y: seen.append(y.dtype))
    network.head.register_forward_hook(lambda module, x, y: seen.extend([x[0].dtype, y.dtype]))
    logits_BC = logits_above(network, 0, torch.rand(2, 3, 4, 4), precision)
    assert seen == [dtype, torch.float32, torch.float32]
    logits_BC.sum().backward()
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_only_blocks_from_the_boundary_on_are_run():
    network = network_of(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    network.blocks[0].register_forward_hook(lambda *given: pytest.fail("ran a frozen block"))
    assert logits_above(network, 1, torch.rand(2, 3, 4, 4), "fp32").shape == (2, 2)
    assert logits_above(network, 2, torch.rand(5, 3), "fp32").shape == (5, 2)


def test_a_step_drops_the_gradients_and_their_memory():
    network = network_of()
    stepping = Stepping(config(), network)
    stepping.add_gradients(network.head(torch.ones(2, 3)).sum())
    assert stepping.step()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_gradients_of_parts_add_up_to_one_step():
    whole, split = network_of(), network_of()
    x_BD = torch.rand(8, 3)
    for network, parts in ((whole, [slice(0, 8)]), (split, [slice(0, 5), slice(5, 8)])):
        stepping = Stepping(config(optimizer="sgd", learning_rate=0.1), network)
        for part in parts:
            stepping.add_gradients(network.head(x_BD[part]).square().sum())
        stepping.step()
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_step_whose_gradients_overflow_in_float16_is_skipped_and_the_scale_halved(monkeypatch):
    # Four times the largest scale at which a gradient of 16 is finite.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**125)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    network = network_of()
    stepping = Stepping(config(precision="fp16", optimizer="sgd"), network)
    before = network.head[1].weight.detach().clone()
    taken = []
    for _ in range(4):
        stepping.add_gradients(network.head(torch.ones(1, 3)).sum() * 16)
        taken.append(stepping.step())
        moved = not torch.equal(network.head[1].weight, before)
        assert moved == any(taken)
    assert taken == [False, False, True, True]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_the_scale_of_float16_does_not_change_the_step(optimizer):
    networks = [network_of(), network_of()]
    for network, precision in zip(networks, ("fp32", "fp16"), strict=True):
        stepping = Stepping(config(precision=precision, optimizer=optimizer), network)
        for _ in range(3):
            stepping.add_gradients(network.head(torch.ones(1, 3)).square().sum())
            assert stepping.step()
    for one, other in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_comes_back_from_pooling_in_the_layout_of_the_pictures():
    conv = nn.Conv2d(3, 3, 1).to(memory_format=torch.channels_last)
    network, seen = network_of(conv), []
    freeze(network, 1)
    conv.register_full_backward_hook(lambda module, before, behind: seen.append(behind[0]))
    x = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    logits_above(network, 0, x, "fp32").sum().backward()
    (gradient,) = seen
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    found = conv.weight.grad.clone()
    conv.weight.grad = None
    network(x).sum().backward()
    torch.testing.assert_close(found, conv.weight.grad)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_first_step_that_overflows_leaves_the_steps_behind_it_as_they_would_be(
    monkeypatch, optimizer
):
    networks = [network_of(), network_of()]
    for network, init_scale in zip(networks, (2.0**127, 1.0), strict=True):
        scaler = partial(torch.amp.GradScaler, init_scale=init_scale)
        monkeypatch.setattr(torch.amp, "GradScaler", scaler)
        # NaN for what nobody has written: otherwise it may be 0 by chance.
        monkeypatch.setattr(torch, "empty_like", partial(torch.full_like, fill_value=torch.nan))
        stepping = Stepping(config(precision="fp16", optimizer=optimizer), network)
        taken = 0
        while taken < 3:
            stepping.add_gradients(network.head(torch.ones(1, 3)).square().sum() * 16)
            taken += stepping.step()
    for one, other in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(one, other)
