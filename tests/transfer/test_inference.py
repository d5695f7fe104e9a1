"""A whole network gives an image the same logits in any company, and those of its parts."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from bundles import head

from transfer import device
from transfer.activations.activations import Activations
from transfer.backbones.find import find_spec
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.inference import Classifier
from transfer.weights.find import find_weights
from transfer.weights.whole import whole_network

CPU = torch.device("cpu")


def noise(num_images, channels=1):
    shape = (num_images, 32, 32, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def classifier(name):
    weight_file = find_weights(name, weights="random")
    return Classifier(weight_file, head(3, find_spec(name).num_features), CPU)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_logits_of_an_image_do_not_depend_on_its_company(name):
    network, images = classifier(name), noise(37)
    together = network.logits(images)
    assert together.shape == (37, 3) and together.dtype == np.float32
    for i in (0, 7, 15, 16, 36):
        assert np.array_equal(network.logits(images[i : i + 1])[0], together[i])
        assert np.array_equal(network.logits(np.roll(images, i, axis=0))[i], together[0])


def test_one_channel_is_the_same_as_three_equal_ones():
    network, images = classifier("resnet18"), noise(3)
    assert np.array_equal(network.logits(images), network.logits(images.repeat(3, axis=3)))


def test_memory_stays_with_the_process_while_images_pass():
    network, depths = classifier("resnet18"), []
    network._frozen._blocks[0].register_forward_hook(lambda *given: depths.append(device._depth))
    network.logits(noise(17))
    assert depths == [1, 1] and device._depth == 0


def test_no_image_gives_no_logits():
    assert classifier("resnet18").logits(noise(0)).shape == (0, 3)


def test_from_a_bundles_file_it_gives_what_features_and_head_give(tmp_path):
    name = "mobilenet_v3_small"
    first = find_weights(name, weights="random")
    linear = head(2, find_spec(name).num_features)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(whole_network(first, linear), path)
    weight_file = replace(first, path=path, sha256="x", source="bundle")
    data = load_data(
        open_source("phantom:train=20,test=10,size=32"),
        image_size=32,
        seed=0,
        cache_dir=tmp_path,
    )
    activations = Activations(
        data=data, weights={name: weight_file}, cache_dir=tmp_path, device=CPU, limit_bytes=0
    )
    features_ND = activations.features(name)
    weight, bias = linear.values()
    expected_NC = torch.nn.functional.linear(features_ND, weight, bias).numpy()
    found_NC = Classifier(weight_file, linear, CPU).logits(data.images(np.arange(len(data))))
    assert np.allclose(found_NC, expected_NC, atol=1e-5)
    assert np.array_equal(
        Classifier(first, linear, CPU).logits(noise(4)),
        Classifier(weight_file, linear, CPU).logits(noise(4)),
    )
