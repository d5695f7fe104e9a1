"""Each recipe does what its paper says, on numbers small enough to follow.

Legend: N images, B images of a batch, C classes, D features.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from transfer.backbones.find import TransferNetwork
from transfer.config import TransferConfig
from transfer.network import freeze
from transfer.probe import Probe
from transfer.training.recipes import (
    Mixing,
    WeightAverage,
    loss_function,
    num_layers_unfrozen,
    parameter_groups,
    start_head_from_probe,
)

CONFIG = TransferConfig(
    backbone="resnet18",
    strategy="fine_tuning",
    learning_rate=1e-3,
    batch_size=8,
    num_unfrozen_layers=4,
)


def config(**changed):
    return dataclasses.replace(CONFIG, **changed)


@pytest.fixture
def network():
    torch.manual_seed(0)
    blocks = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(5)))
    return TransferNetwork(blocks, num_features=3, num_classes=2, dropout=0.0)


def rates(network, **given):
    """The learning rate of every layer that has one: blocks by index, then "head"."""
    groups = parameter_groups(network, **given)
    named = {f"{i}": block for i, block in enumerate(network.blocks)} | {"head": network.head}
    found = {}
    for group in groups:
        (name,) = (n for n, m in named.items() if set(m.parameters()) == set(group["params"]))
        found[name] = group["lr"]
    return found


def test_the_rate_falls_by_one_factor_a_layer_from_the_head_down(network):
    freeze(network, 3)
    found = rates(network, learning_rate=0.1, layer_decay=0.5)
    assert found == {"head": 0.1, "4": 0.05, "3": 0.025, "2": 0.0125}


def test_without_decay_every_trained_layer_has_the_same_rate(network):
    freeze(network, 5)
    found = rates(network, learning_rate=0.1, layer_decay=1.0)
    assert set(found.values()) == {0.1} and len(found) == 6


def test_the_heads_rate_is_a_multiple_of_its_own_and_no_layers(network):
    freeze(network, 2)
    found = rates(network, learning_rate=0.1, layer_decay=0.5, head_rate_factor=10.0)
    assert found == {"head": 1.0, "4": 0.05, "3": 0.025}


def test_what_is_frozen_has_no_rate(network):
    freeze(network, 0)
    assert rates(network, learning_rate=0.1, layer_decay=0.5) == {"head": 0.1}


def unfrozen(epochs, k, share):
    run = config(epochs=epochs, num_unfrozen_layers=k, gradual_unfreezing=share)
    return [num_layers_unfrozen(epoch, run) for epoch in range(1, epochs + 1)]


def test_without_gradual_unfreezing_all_layers_train_from_the_first_epoch():
    assert unfrozen(5, 4, 0.0) == [4] * 5


def test_gradual_unfreezing_starts_with_the_head_alone_and_adds_layers_one_by_one():
    assert unfrozen(10, 5, 0.5) == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert unfrozen(10, 2, 0.5) == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("share", [0.2, 0.34, 0.5, 0.99])
@pytest.mark.parametrize("k", [1, 4, 19])
@pytest.mark.parametrize("epochs", [1, 3, 10, 15])
def test_gradual_unfreezing_never_takes_a_layer_back_and_is_done_behind_its_share(
    epochs, k, share
):
    course = unfrozen(epochs, k, share)
    assert course == sorted(course)
    assert all(n == k for epoch, n in enumerate(course, 1) if epoch > share * epochs)
    if share * epochs >= 1:
        assert course[0] == 0


def logits_and_labels():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 3, generator=generator), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])


def test_the_plain_loss_is_cross_entropy():
    logits_NC, labels_N = logits_and_labels()
    loss = loss_function(config(), labels_N, 3)
    assert torch.equal(loss(logits_NC, labels_N), cross_entropy(logits_NC, labels_N))


def test_label_smoothing_spreads_its_share_of_the_target_over_all_classes():
    logits_NC, labels_N = logits_and_labels()
    target_NC = 0.7 * nn.functional.one_hot(labels_N, 3) + 0.3 / 3
    expected = -(target_NC * logits_NC.log_softmax(dim=1)).sum(dim=1).mean()
    loss = loss_function(config(label_smoothing=0.3), labels_N, 3)
    torch.testing.assert_close(loss(logits_NC, labels_N), expected)


def test_balanced_weights_give_every_class_the_same_say():
    logits_NC, labels_N = logits_and_labels()
    loss = loss_function(config(class_weights="balanced"), labels_N, 3)
    by_class = [
        cross_entropy(logits_NC[labels_N == label], labels_N[labels_N == label])
        for label in range(3)
    ]
    torch.testing.assert_close(loss(logits_NC, labels_N), torch.stack(by_class).mean())


def test_balanced_weights_give_every_class_the_same_say_over_batches_too():
    logits_NC, labels_N = logits_and_labels()
    loss = loss_function(config(class_weights="balanced"), labels_N, 3)
    batches = torch.arange(9).view(3, 3)  # The first holds images of one class alone.
    over_batches = torch.stack([loss(logits_NC[b], labels_N[b]) for b in batches]).mean()
    torch.testing.assert_close(over_batches, loss(logits_NC, labels_N))


def test_balanced_weights_leave_the_smoothed_target_of_an_image_as_it_is():
    """The best prediction for one image is its smoothed target, whatever the other classes."""
    labels_N = torch.tensor([0] * 9 + [1])
    loss = loss_function(config(class_weights="balanced", label_smoothing=0.1), labels_N, 2)
    logits_1C = torch.tensor([[0.95, 0.05]]).log().requires_grad_()
    loss(logits_1C, labels_N[:1]).backward()
    torch.testing.assert_close(logits_1C.grad, torch.zeros(1, 2), atol=1e-6, rtol=0)


def test_balanced_weights_of_balanced_classes_change_nothing():
    logits_NC, _ = logits_and_labels()
    labels_N = torch.arange(9) % 3
    plain, balanced = (
        loss_function(config(class_weights=weights), labels_N, 3)
        for weights in ("none", "balanced")
    )
    torch.testing.assert_close(plain(logits_NC, labels_N), balanced(logits_NC, labels_N))


def test_mixup_of_nothing_hands_the_batch_and_its_loss_through():
    x, labels_B = torch.rand(4, 3), torch.arange(4)
    batch = Mixing(0.0, seed=0)(x, labels_B)
    assert batch.x is x and batch.labels_B is labels_B
    logits_BC = torch.rand(4, 5)
    assert torch.equal(batch.loss(cross_entropy, logits_BC), cross_entropy(logits_BC, labels_B))


def numbered(shape):
    """A batch in which image and label of number i are both i."""
    return torch.arange(6.0).view(6, *[1] * (len(shape) - 1)).expand(shape), torch.arange(6)


def labels_as_loss(logits_BC, labels_B):
    return labels_B.float()


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 4, 4)], ids=["features", "images"])
def test_mixup_mixes_images_and_losses_by_the_same_share_with_the_same_partner(shape):
    batch = Mixing(0.4, seed=3)(*numbered(shape))
    mixed_B = batch.x.flatten(1)
    assert torch.equal(mixed_B, mixed_B[:, :1].expand_as(mixed_B))
    # Image and label of number i are both i: so what is mixed must be the same on both sides.
    torch.testing.assert_close(batch.loss(labels_as_loss, None), mixed_B[:, 0])
    assert not torch.equal(mixed_B[:, 0], torch.arange(6.0))


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_a_part_of_a_mixed_batch_keeps_its_partners_in_the_whole_batch(alpha):
    batch = Mixing(alpha, seed=3)(*numbered((6, 5)))
    for images in (slice(0, 2), slice(2, 6)):
        part = batch.part(images)
        assert torch.equal(part.x, batch.x[images])
        loss_B = part.loss(labels_as_loss, None)
        torch.testing.assert_close(loss_B, batch.x[images, 0])


@pytest.mark.parametrize(
    "changed",
    [{}, {"label_smoothing": 0.2}, {"class_weights": "balanced"}],
    ids=["plain", "smoothed", "balanced"],
)
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_losses_of_parts_by_their_share_sum_up_to_the_loss_of_the_batch(changed, alpha):
    logits_NC, labels_N = logits_and_labels()
    loss = loss_function(config(**changed), labels_N, 3)
    batch = Mixing(alpha, seed=3)(logits_NC, labels_N)
    parts = [slice(0, 4), slice(4, 8), slice(8, 9)]
    total = sum(
        batch.part(p).loss(loss, logits_NC[p]) * (p.stop - p.start) / len(labels_N) for p in parts
    )
    torch.testing.assert_close(total, batch.loss(loss, logits_NC))


def test_mixup_leaves_every_image_the_larger_share_of_itself_and_draws_it_anew():
    mixing, x = Mixing(1.0, seed=0), torch.tensor([0.0, 1.0])
    shares = set()
    for _ in range(200):
        mixed = mixing(x, torch.tensor([0, 1])).x
        assert mixed[0] <= 0.5 <= mixed[1]
        shares.add(round(float(mixed[1]), 6))
    assert len(shares) > 50
    # Uniform for alpha = 1; the larger of share and rest has mean 3/4 where images were swapped.
    swapped = [share for share in shares if share < 1]
    assert abs(np.mean(swapped) - 0.75) < 0.05


def test_a_small_alpha_mixes_less_than_a_large_one():
    def mean_change(alpha):
        mixing, x = Mixing(alpha, seed=0), torch.arange(10.0)
        mixed = [mixing(x, torch.arange(10)).x for _ in range(200)]
        return float(torch.stack([(m - x).abs().mean() for m in mixed]).mean())

    assert mean_change(0.1) < mean_change(0.4) < mean_change(5.0)


def test_the_average_follows_the_recursion_with_a_warmed_up_decay():
    tensor = torch.tensor([10.0])
    average = WeightAverage({"w": tensor}, decay=0.25)
    expected = 10.0
    for step, value in enumerate((20.0, 30.0, 0.0, 7.0, 9.0), start=1):
        tensor.fill_(value)
        average.update()
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert tensor.item() == pytest.approx(expected)
    assert tensor.item() == 9.0


def test_counters_are_copied_and_the_tensors_come_back_even_after_an_error():
    tensors = {"w": torch.tensor([1.0]), "steps": torch.tensor(3)}
    average = WeightAverage(tensors, decay=0.9)
    tensors["w"].fill_(5.0)
    tensors["steps"].fill_(4)
    average.update()
    with pytest.raises(RuntimeError, match="broken"), average.applied():
        assert tensors["w"].item() != 5.0 and tensors["steps"].item() == 4
        raise RuntimeError("broken")
    assert tensors["w"].item() == 5.0 and tensors["steps"].item() == 4


def test_the_head_starts_with_the_probes_logits():
    probe = Probe(np.arange(6.0).reshape(2, 3), np.array([0.5, -0.5]))
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).eval()
    start_head_from_probe(head, probe)
    features_ND = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    expected_NC = features_ND.double().numpy() @ probe.weight_CD.T + probe.bias_C
    with torch.inference_mode():
        np.testing.assert_allclose(head(features_ND).numpy(), expected_NC, rtol=1e-6)
