"""Features are computed once, kept whole, and the same whoever computes them in what company.

Shapes: N images, D features.
"""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from transfer.activations import Activations
from transfer.backbones import backbones_from_file, pool
from transfer.catalog import BACKBONES
from transfer.data.loading import ImageData, Split
from transfer.data.phantom import PhantomSpec, phantom_images
from transfer.weights import find_weights, load_blocks

CPU = torch.device("cpu")
# Not MobileNetV2: with random weights in eval mode its features are about 1e-10.
NAME = "resnet18"
DEPTH = BACKBONES[NAME].depth


def image_data(num_images=20, *, size=32, seed=0, fingerprint="pixels"):
    """Phantom images in the order of their drawing; the first five are for validation."""
    spec = PhantomSpec(train=num_images, size=size, seed=seed)
    images_NHW, labels_N = phantom_images(spec, "train")
    positions_N = np.arange(num_images)
    return ImageData(
        images_NHWC=images_NHW[..., None],
        rows_N=positions_N,
        names=tuple(map(str, positions_N)),
        classes=("NORMAL", "OPACITY"),
        train=Split(positions_N=positions_N[5:], labels_N=labels_N[5:]),
        val=Split(positions_N=positions_N[:5], labels_N=labels_N[:5]),
        counts={},
        pixels_fingerprint=fingerprint,
        fingerprint="all",
        test_fingerprint="test",
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images_NHW),
    )


@pytest.fixture
def activations(tmp_path):
    def build(data=None, *, seed=0, name=NAME, **given):
        return Activations(
            data=data or image_data(),
            weights={name: find_weights(name, weights="random", seed=seed)},
            cache_dir=tmp_path,
            device=CPU,
            **given,
        )

    return build


def kept(folder):
    return sorted((folder / "activations").iterdir())


class Computed:
    """Counts how often the network has run, through the progress it reports."""

    def __init__(self):
        self.num_batches = 0

    def __call__(self, what, done, total):
        self.num_batches += 1


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_the_pooled_outputs_of_all_blocks(activations, name):
    data, spec = image_data(), BACKBONES[name]
    features_ND = activations(data, name=name).features(name)
    assert features_ND.shape == (20, spec.num_features)
    assert features_ND.dtype == torch.float32 and torch.isfinite(features_ND).all()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (spec.mean, spec.std))
    images_N3hw = torch.from_numpy(data.images_NHWC).permute(0, 3, 1, 2).float() / 255
    blocks = load_blocks(find_weights(name, weights="random"))
    with torch.inference_mode():
        expected_ND = pool(blocks((images_N3hw.expand(-1, 3, -1, -1) - mean) / std))
    # Random weights give features of any scale, but they differ between images.
    scale = expected_ND.abs().max()
    torch.testing.assert_close(features_ND / scale, expected_ND / scale, rtol=1e-3, atol=1e-4)
    assert ((features_ND - features_ND[0]) / scale).abs().amax() > 0.01


def test_features_are_computed_once_in_a_process_and_once_in_all(activations, tmp_path):
    first, second = Computed(), Computed()
    one, other = activations(on_progress=first), activations(on_progress=second)
    features_ND = one.features(NAME)
    assert one.features(NAME) is features_ND
    assert torch.equal(other.features(NAME), features_ND)
    assert (first.num_batches, second.num_batches) == (1, 0)
    assert len(kept(tmp_path)) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(tensors):
    return lambda path: save_file(tensors, path)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not safetensors at all"),
        overwrite({"other": torch.zeros(20, 512)}),
        overwrite({"features": torch.zeros(19, 512)}),
        overwrite({"features": torch.zeros(20, 512, dtype=torch.float16)}),
    ],
    ids=["cut", "empty", "text", "other name", "other shape", "other type"],
)
def test_a_torn_or_foreign_file_is_computed_again(activations, tmp_path, damage):
    features_ND = activations().features(NAME).clone()
    damage(kept(tmp_path)[0])
    again = Computed()
    assert torch.equal(activations(on_progress=again).features(NAME), features_ND)
    assert again.num_batches == 1
    third = Computed()
    activations(on_progress=third).features(NAME)
    assert third.num_batches == 0


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("num_few", [20, 65, 66, 69])
def test_an_images_features_do_not_depend_on_how_many_others_there_are(activations, name, num_few):
    # A larger phantom begins with the smaller one, and 65 leave one image for the last batch.
    few = activations(image_data(num_few, fingerprint="few"), name=name).features(name)
    many = activations(image_data(100, fingerprint="many"), name=name).features(name)
    assert torch.equal(few, many[:num_few])


def test_the_number_of_threads_is_part_of_the_key(activations, tmp_path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            activations().features(NAME)
    finally:
        torch.set_num_threads(before)
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"data": image_data(seed=1, fingerprint="other")},
        {"data": image_data(size=48)},
    ],
    ids=["weights", "data", "image size"],
)
def test_other_weights_data_or_size_are_never_answered_from_the_file(activations, tmp_path, other):
    features_ND = activations().features(NAME)
    computed = Computed()
    assert not torch.equal(activations(on_progress=computed, **other).features(NAME), features_ND)
    assert computed.num_batches == 1
    assert len(kept(tmp_path)) == 2


def test_labels_and_splits_are_not_part_of_the_key(activations):
    activations(image_data()).features(NAME)
    computed, relabelled = Computed(), image_data()
    object.__setattr__(relabelled, "fingerprint", "other labels")
    activations(relabelled, on_progress=computed).features(NAME)
    assert computed.num_batches == 0


def test_blocks_are_shared_below_the_boundary_and_copied_above_it(activations):
    shared = activations()
    first, second = shared.blocks(NAME, DEPTH - 2), shared.blocks(NAME, DEPTH - 2)
    same = [a is b for a, b in zip(first, second, strict=True)]
    assert same == [True] * (DEPTH - 2) + [False] * 2
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert next(first[-1].parameters()) is not next(second[-1].parameters())


def test_a_run_starts_from_the_outputs_at_its_boundary(activations):
    shared = activations()
    positions = np.array([7, 2])
    at_depth, below = shared.inputs(NAME, DEPTH), shared.inputs(NAME, 1)
    assert torch.equal(at_depth.at(positions, None), shared.features(NAME)[[7, 2]])
    assert below.at(positions, None).shape == (2, 64, 8, 8)


def test_seconds_are_counted_when_features_are_computed_and_not_when_asked_again(activations):
    shared = activations()
    assert shared.seconds == 0
    shared.features(NAME)
    spent = shared.seconds
    assert spent > 0
    shared.features(NAME)
    assert shared.seconds == spent


def test_features_of_a_view_are_those_of_the_training_images_shown_so(activations):
    data = image_data()
    shared = activations(data)
    train = data.train.positions_N
    features_ND = shared.features(NAME, view=2)
    assert features_ND.shape == (len(train), BACKBONES[NAME].num_features)
    shown = shared.inputs(NAME, 0).at(train, np.full(len(train), 2))
    blocks = load_blocks(find_weights(NAME, weights="random"))
    with torch.inference_mode():
        expected_ND = pool(blocks(shown))
    torch.testing.assert_close(features_ND, expected_ND, rtol=1e-3, atol=1e-3)
    assert not torch.equal(features_ND, shared.features(NAME)[train])


def test_a_batch_gets_each_image_in_its_own_view(activations):
    shared = activations()
    positions_B, views_B = np.array([19, 5, 7, 5]), np.array([1, 0, 2, 1])
    rows = {position: row for row, position in enumerate(range(5, 20))}
    expected_BD = torch.stack(
        [
            shared.features(NAME, view)[rows[position]]
            if view
            else shared.features(NAME)[position]
            for position, view in zip(positions_B.tolist(), views_B.tolist(), strict=True)
        ]
    )
    assert torch.equal(shared.inputs(NAME, DEPTH).at(positions_B, views_B), expected_BD)
    images_BCHW = shared.inputs(NAME, 0).at(positions_B, views_B)
    assert torch.equal(images_BCHW[1], shared.inputs(NAME, 0).at(positions_B[1:2], None)[0])
    assert not torch.equal(images_BCHW[1], images_BCHW[3])


def test_views_are_kept_apart_and_computed_once(activations, tmp_path):
    first = Computed()
    shared = activations(on_progress=first)
    for view in (0, 1, 2, 1, 0):
        shared.features(NAME, view)
    assert first.num_batches == len(kept(tmp_path)) == 3
    again = Computed()
    other = activations(on_progress=again)
    assert all(torch.equal(other.features(NAME, v), shared.features(NAME, v)) for v in range(3))
    assert again.num_batches == 0


def test_the_views_of_other_training_images_are_never_answered_from_the_file(activations):
    activations().features(NAME, 1)
    resplit, computed = image_data(), Computed()
    swapped = Split(positions_N=np.arange(15), labels_N=resplit.train.labels_N)
    object.__setattr__(resplit, "train", swapped)
    activations(resplit, on_progress=computed).features(NAME, 1)
    assert computed.num_batches == 1


OWN = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.{activation}())

BACKBONES = {{"own_net": build}}
MEAN = ({mean}, 0.5, 0.5)
"""


def test_other_code_with_equal_weights_is_never_answered_from_the_file(activations, tmp_path):
    found = []
    for number, (activation, mean) in enumerate([("ReLU", 0.5), ("Tanh", 0.5), ("Tanh", 0.1)]):
        path = tmp_path / f"nets{number}.py"
        path.write_text(OWN.format(activation=activation, mean=mean))
        backbones_from_file(path)
        computed = Computed()
        found.append(activations(name="own_net", on_progress=computed).features("own_net"))
        assert computed.num_batches == 1
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


def test_the_probe_is_solved_once_on_the_training_images(activations, monkeypatch):
    shared = activations()
    first = shared.probe(NAME)
    assert first.weight_CD.shape == (2, BACKBONES[NAME].num_features)
    monkeypatch.setattr("transfer.activations.solve_probe", None)
    assert shared.probe(NAME) is first


def test_everything_kept_is_there_before_a_run_asks_for_it(activations):
    computed = Computed()
    inputs = activations(on_progress=computed).inputs(NAME, DEPTH, num_views=3)
    assert computed.num_batches == 3
    inputs.at(np.array([5, 6, 7]), np.array([0, 1, 2]))
    assert computed.num_batches == 3
