"""A trained network gives on its own what it gave in validation, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from trainings import CPU, DEPTH, NAME, config

from transfer import device
from transfer.activations.activations import Activations
from transfer.data.loading import Split, load_data
from transfer.data.sources.open import open_source
from transfer.data.unsealing import unsealed
from transfer.inference import predict_logits, trained_features
from transfer.training.optimizer import logits_above
from transfer.training.train import train
from transfer.weights.find import find_weights

TEXT = "phantom:train=30,test=21,size=32"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_data(open_source(TEXT), image_size=32, seed=0, cache_dir=cache)


def activations_of(data, cache):
    weights = {NAME: find_weights(NAME, weights="random")}
    return Activations(data=data, weights=weights, cache_dir=cache, device=CPU)


@pytest.mark.parametrize("num_unfrozen_layers", [0, 2, DEPTH])
def test_validation_logits_come_again_from_the_kept_state(data, tmp_path, num_unfrozen_layers):
    run = config(num_unfrozen_layers=num_unfrozen_layers, epochs=2)
    result = train(run, activations_of(data, tmp_path / "a"))
    logits_NC = predict_logits(run, activations_of(data, tmp_path / "b"), result.trained_state)
    assert logits_NC.shape == (len(data), 2)
    assert np.array_equal(logits_NC[data.val.positions_N], result.best.val_logits_NC)


def test_memory_stays_with_the_process_while_images_pass(data, tmp_path, monkeypatch):
    run, depths = config(num_unfrozen_layers=2, epochs=1), []
    activations = activations_of(data, tmp_path)
    state = train(run, activations).trained_state
    blocks = activations.blocks

    def watched(backbone, boundary):
        built = blocks(backbone, boundary)
        built[-1].register_forward_hook(lambda *given: depths.append(device._depth))
        return built

    monkeypatch.setattr(activations, "blocks", watched)
    predict_logits(run, activations, state)
    assert set(depths) == {1} and device._depth == 0


@pytest.mark.parametrize("num_val", [1, 15, 16, 17])
def test_they_come_again_for_any_number_of_validation_images(data, tmp_path, num_val):
    val = Split(positions_N=np.arange(num_val), labels_N=np.arange(num_val) % 2)
    data = replace(data, val=val)
    run = config(num_unfrozen_layers=2, epochs=1)
    result = train(run, activations_of(data, tmp_path))
    logits_NC = predict_logits(run, activations_of(data, tmp_path), result.trained_state)
    assert result.best.val_logits_NC.shape == (num_val, 2)
    assert np.array_equal(logits_NC[val.positions_N], result.best.val_logits_NC)


@pytest.mark.parametrize("num_unfrozen_layers", [0, 2])
def test_an_image_has_the_same_logits_alone_and_among_others(data, tmp_path, num_unfrozen_layers):
    run = config(num_unfrozen_layers=num_unfrozen_layers, epochs=1)
    state = train(run, activations_of(data, tmp_path / "a")).trained_state
    test = unsealed(data, tmp_path)
    every = predict_logits(run, activations_of(test, tmp_path / "b"), state)
    one = replace(test, rows_N=test.rows_N[:1], pixels_fingerprint="one")
    alone = predict_logits(run, activations_of(one, tmp_path / "b"), state)
    assert np.array_equal(alone, every[:1])


def test_another_networks_state_is_refused(data, tmp_path):
    activations = activations_of(data, tmp_path)
    state = train(config(num_unfrozen_layers=1, epochs=1), activations).trained_state
    with pytest.raises(ValueError, match="don't fit"):
        predict_logits(config(num_unfrozen_layers=2), activations, state)


@pytest.mark.parametrize("num_unfrozen_layers", [0, 2])
def test_features_after_training_are_what_goes_into_the_head(data, tmp_path, num_unfrozen_layers):
    run = config(num_unfrozen_layers=num_unfrozen_layers, epochs=1)
    activations = activations_of(data, tmp_path)
    state = train(run, activations).trained_state
    positions_N = data.val.positions_N
    features_ND = trained_features(run, activations, state, positions_N)
    weight_CD, bias_C = (state[f"head.1.{name}"].numpy() for name in ("weight", "bias"))
    logits_NC = predict_logits(run, activations, state)[positions_N]
    np.testing.assert_allclose(features_ND @ weight_CD.T + bias_C, logits_NC, rtol=1e-4, atol=1e-5)
    pretrained_ND = activations.features(run.backbone).numpy()[positions_N]
    assert np.allclose(features_ND, pretrained_ND, atol=1e-6) == (num_unfrozen_layers == 0)


def test_a_network_that_is_asked_again_takes_smaller_parts_where_memory_is_short(
    data, tmp_path, monkeypatch
):
    run = config(num_unfrozen_layers=2, epochs=1)
    activations = activations_of(data, tmp_path)
    result = train(run, activations)
    tried = []

    def short(network, boundary, x, precision):
        tried.append(len(x))
        if len(x) > 4:
            raise torch.OutOfMemoryError("no room")
        return logits_above(network, boundary, x, precision)

    monkeypatch.setattr("transfer.inference.logits_above", short)
    logits_NC = predict_logits(run, activations, result.trained_state)
    assert tried[:3] == [16, 8, 4] and set(tried[3:]) == {4}
    best_NC = result.history[result.best_epoch - 1].val_logits_NC
    np.testing.assert_allclose(logits_NC[data.val.positions_N], best_NC, rtol=1e-4, atol=1e-5)
