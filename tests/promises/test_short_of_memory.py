"""A run that is short of memory goes on in smaller parts, to the same numbers, and says so.

Memory is short where a block refuses more than so many images.
"""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from slowly import slow
from trainings import CPU, DEPTH, NAME, config, numbers

from transfer.activations.activations import Activations
from transfer.activations.frozen import FrozenBlocks
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.training import train as training
from transfer.training.micro_batches import MemoryLimits
from transfer.training.train import train
from transfer.weights.find import find_weights

# 16 training images in two batches of 8, 4 validation images.
EXACT = {"batch_norm": "frozen", "dropout": 0.0}
NO_BATCH_NORM = "convnext_tiny"


@pytest.fixture(scope="module")
def activations(tmp_path_factory):
    data = load_data(
        open_source("phantom:train=20,test=10,size=32"),
        image_size=32,
        seed=0,
        cache_dir=tmp_path_factory.mktemp("cache"),
    )
    return Activations(
        data=data,
        weights={n: find_weights(n, weights="random") for n in (NAME, NO_BATCH_NORM)},
        cache_dir=tmp_path_factory.mktemp("activations"),
        device=CPU,
    )


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """As much memory is free at any time: other processes take and give it meanwhile."""
    monkeypatch.setattr("transfer.training.micro_batches.free_bytes", lambda device: 1000)


class Memory:
    """Room for ``limit`` images in the last block: ``tried`` and ``done`` are sizes seen there."""

    def __init__(self, activations, monkeypatch):
        self.limit, self.in_validation, self.error = 10**6, False, None
        self.tried, self.done, self.networks = [], [], []
        blocks = activations.blocks

        def limited(backbone, boundary):
            built = blocks(backbone, boundary)
            built[-1].register_forward_pre_hook(self._take)
            self.held_before = [network for network in self.networks if network() is not None]
            self.networks.append(weakref.ref(built[-1]))
            return built

        monkeypatch.setattr(activations, "blocks", limited)

    def _take(self, block, inputs):
        if torch.is_inference_mode_enabled() != self.in_validation:
            return
        self.tried.append(len(inputs[0]))
        if len(inputs[0]) > self.limit:
            raise self.error or torch.OutOfMemoryError(
                f"CUDA out of memory: {len(inputs[0])} images"
            )
        self.done.append(len(inputs[0]))


@pytest.fixture
def memory(activations, monkeypatch):
    return Memory(activations, monkeypatch)


def from_the_start(run, activations, size):
    """What the run gives with micro-batches of ``size`` where nothing ever failed."""
    return training._train(run, activations, lambda record: False, size)


@pytest.mark.parametrize("changed", [{}, {"mixup": 0.4}, {"ema_decay": 0.9}, EXACT], ids=str)
def test_the_numbers_are_those_of_the_smaller_parts_from_the_start(activations, memory, changed):
    run = config(2, **changed)
    memory.limit = 5
    short = train(run, activations)
    memory.limit = 10**6
    assert numbers(short) == numbers(from_the_start(run, activations, 4))
    assert short.micro_batch_size == 4


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"mixup": 0.4},
        {"class_weights": "balanced", "label_smoothing": 0.1},
        {"gradual_unfreezing": 0.4, "layer_decay": 0.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", [5, *slow([1])])
def test_without_dropout_and_moving_statistics_the_parts_give_what_the_whole_batch_gives(
    activations, memory, changed, limit
):
    # SGD: where a gradient is next to nothing, Adam's step has full size and a random sign.
    run = config(2, **{**EXACT, "optimizer": "sgd", "epochs": 2, **changed})
    whole = train(run, activations)
    assert (whole.micro_batch_size, memory.tried) == (8, [8, 8] * 2)
    memory.limit = limit
    short = train(run, activations)
    assert short.micro_batch_size == {5: 4, 1: 1}[limit]
    assert max(memory.done[4:]) <= limit
    for one, other in zip(whole.history, short.history, strict=True):
        np.testing.assert_allclose(one.val_logits_NC, other.val_logits_NC, rtol=1e-4, atol=1e-5)
    for key, tensor in whole.trained_state.items():
        torch.testing.assert_close(short.trained_state[key], tensor, rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_batch_make_one_step(activations, memory, monkeypatch):
    steps, step = [], training.Stepping.step
    monkeypatch.setattr(training.Stepping, "step", lambda self: steps.append(1) or step(self))
    memory.limit = 5
    train(config(2, epochs=3), activations)
    assert len(steps) == 3 * 2


@pytest.mark.slow
def test_what_failed_is_not_tried_again_by_the_runs_that_share_the_limits(activations, memory):
    limits = MemoryLimits()
    memory.limit = 5
    first = train(config(2), activations, limits=limits)
    # Once may have been a shortage that is over.
    memory.tried.clear()
    train(config(2, seed=2), activations, limits=limits)
    assert memory.tried[0] == 8
    memory.tried.clear()
    again = train(config(2, seed=3), activations, limits=limits)
    assert max(memory.tried) == 4
    assert first.micro_batch_size == again.micro_batch_size == 4
    # Another boundary needs other memory.
    memory.tried.clear()
    train(config(1), activations, limits=limits)
    assert max(memory.tried) == 8


def test_a_run_starts_anew_from_its_first_epoch_when_memory_fails_later(activations, memory):
    seen = []

    def on_epoch(record):
        if seen == []:
            memory.limit = 5
        seen.append(record.epoch)
        return False

    result = train(config(2), activations, on_epoch)
    memory.limit = 10**6
    assert seen == [1, 1, 2, 3]
    assert numbers(result) == numbers(from_the_start(config(2), activations, 4))


@pytest.mark.slow
def test_without_memory_for_one_image_it_is_an_error_and_the_next_run_works(activations, memory):
    before = numbers(train(config(2), activations))
    limits = MemoryLimits()
    memory.limit, memory.tried = 0, []
    with pytest.raises(torch.OutOfMemoryError, match="1 images"):
        train(config(2, batch_norm="frozen"), activations, limits=limits)
    assert memory.tried == [8, 4, 2, 1]
    memory.limit = 10**6
    assert train(config(2, batch_norm="frozen"), activations, limits=limits).history
    assert numbers(train(config(2), activations)) == before


@pytest.mark.slow
def test_batch_norm_never_trains_on_one_image(activations, memory):
    memory.limit = 1
    with pytest.raises(torch.OutOfMemoryError, match="2 images"):
        train(config(2), activations)
    assert min(memory.tried) == 2
    memory.limit = 3
    # Batches of 5, 5 and 6.
    result = train(config(2, batch_size=7), activations)
    assert (result.micro_batch_size, set(memory.done)) == (2, {2, 3})


@pytest.mark.parametrize(
    ("changed", "trains"),
    [
        ({"num_unfrozen_layers": 2}, True),
        ({"num_unfrozen_layers": 2, "gradual_unfreezing": 0.5}, True),
        ({"num_unfrozen_layers": DEPTH}, True),
        ({"num_unfrozen_layers": 2, "batch_norm": "frozen"}, False),
        ({"num_unfrozen_layers": 0}, False),
        ({"num_unfrozen_layers": 2, "backbone": NO_BATCH_NORM}, False),
    ],
    ids=str,
)
def test_it_is_told_whether_batch_norm_saw_the_parts(activations, changed, trains):
    assert train(config(epochs=1, **changed), activations).batch_norm_trains == trains


def test_the_network_that_filled_the_memory_is_gone_before_the_next_one_is_built(
    activations, memory
):
    memory.limit = 5
    train(config(2, epochs=1), activations)
    assert len(memory.networks) == 2 and memory.held_before == []


def test_validation_is_split_too_and_its_numbers_stay(activations, memory):
    plain = train(config(2), activations)
    memory.limit, memory.in_validation, memory.tried = 3, True, []
    limits = MemoryLimits()
    short = train(config(2), activations, limits=limits)
    num_val = len(activations.data.val)
    assert num_val == 4 and memory.tried == [16, 8, 4, 2, 2] * 2 + [2, 2] + [2] * 8
    assert short.micro_batch_size == 8
    for one, other in zip(plain.history, short.history, strict=True):
        np.testing.assert_allclose(one.val_logits_NC, other.val_logits_NC, rtol=1e-4, atol=1e-5)
    memory.limit = 10**6
    assert numbers(train(config(2), activations, limits=limits)) == numbers(plain)


@pytest.fixture
def frozen_memory(monkeypatch):
    """Room for ``limit`` images in a frozen pass: ``tried`` are the sizes that came."""
    room, run = SimpleNamespace(limit=10**6, tried=[]), FrozenBlocks.run

    def limited(frozen, inputs_n, start, end):
        room.tried.append(len(inputs_n))
        if len(inputs_n) > room.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(inputs_n)} images")
        return run(frozen, inputs_n, start, end)

    monkeypatch.setattr(FrozenBlocks, "run", limited)
    return room


def fresh(activations, folder, limit_bytes=None):
    """The same study in another process, with a cache of its own."""
    return Activations(
        data=activations.data,
        weights={n: find_weights(n, weights="random") for n in (NAME, NO_BATCH_NORM)},
        cache_dir=folder,
        device=CPU,
        limit_bytes=limit_bytes,
    )


@pytest.mark.parametrize("limit_bytes", [None, *slow([0])], ids=["kept", "recomputed"])
@pytest.mark.parametrize("num_unfrozen_layers", [0, 2])
def test_a_frozen_pass_that_is_short_of_memory_changes_no_batch_and_no_later_run(
    activations, frozen_memory, monkeypatch, tmp_path, num_unfrozen_layers, limit_bytes
):
    short = fresh(activations, tmp_path / "short", limit_bytes)
    limits, started = MemoryLimits(), []
    start = training._Run.__init__
    monkeypatch.setattr(
        training._Run, "__init__", lambda run, *given: started.append(1) or start(run, *given)
    )
    frozen_memory.limit = 5
    run = config(num_unfrozen_layers)
    result = train(run, short, limits=limits)
    assert {16, 8, 4} <= set(frozen_memory.tried)
    assert (len(started), result.micro_batch_size) == (1, 8)
    # The shortage is over: what it left is neither used nor in the way.
    frozen_memory.limit, frozen_memory.tried = 10**6, []
    later = train(run, short, limits=limits)
    assert set(frozen_memory.tried) == {16}
    assert later.micro_batch_size == 8
    expected = train(run, fresh(activations, tmp_path / "free", limit_bytes))
    assert numbers(later) == numbers(expected)
    for one, other in zip(result.history, expected.history, strict=True):
        np.testing.assert_allclose(one.val_logits_NC, other.val_logits_NC, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_without_memory_for_one_frozen_image_a_run_fails_once_and_the_next_is_as_ever(
    activations, frozen_memory, tmp_path
):
    study, limits = fresh(activations, tmp_path), MemoryLimits()
    frozen_memory.limit = 0
    with pytest.raises(torch.OutOfMemoryError, match="1 images"):
        train(config(2), study, limits=limits)
    assert frozen_memory.tried == [16, 8, 4, 2, 1]
    frozen_memory.limit = 10**6
    assert train(config(2), study, limits=limits).micro_batch_size == 8


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: out of memory"), MemoryError("Unable to allocate 4 GiB")],
    ids=str,
)
def test_a_step_without_room_is_split_by_whatever_name_it_is_told(activations, memory, error):
    memory.limit, memory.error = 5, error
    assert train(config(2), activations).micro_batch_size == 4
