"""Outputs at the freeze boundary are computed once and the same whoever computes them, and how.

Shapes: N images, D features.
"""

import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import HELPERS, ROOT
from slowly import slow

from transfer import device
from transfer.activations.activations import Activations
from transfer.activations.frozen import BlockCost, FrozenBlocks
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import backbones_from_file, pool
from transfer.data.loading import ImageData, Split
from transfer.data.sources.phantom import PhantomSpec, phantom_images
from transfer.weights.find import find_weights, load_blocks

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
        # At their own size: no interpolation changes them.
        resized=dict.fromkeys(("bilinear", "bicubic"), images_NHW[..., None]),
        large_NHWC=images_NHW.repeat(2, axis=1).repeat(2, axis=2)[..., None],
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
    """Remembers what was computed to be kept, through the progress it reports."""

    def __init__(self):
        self.what = []

    def __call__(self, what, done, total):
        if done == total:
            self.what.append(what)


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
    assert torch.equal(one.features(NAME), features_ND)
    assert torch.equal(other.features(NAME), features_ND)
    assert (first.what, second.what) == ([f"features of {NAME}"], [])
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.unlink(),
    ],
    ids=["cut", "zeros", "gone"],
)
def test_what_is_torn_is_computed_again_with_the_same_bits(activations, tmp_path, damage):
    features_ND = activations().features(NAME)
    damage(kept(tmp_path)[0] / "rows.npy")
    again = Computed()
    assert torch.equal(activations(on_progress=again).features(NAME), features_ND)
    assert again.what == [f"features of {NAME}"]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("num_few", [20, 65, *slow([66, 69])])
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


def test_what_another_processor_computes_is_not_shared(activations, monkeypatch):
    found = activations()
    before = found._key(NAME, 5, 0)
    assert found._key(NAME, 5, 0) == before
    monkeypatch.setattr("transfer.activations.activations.cpu_model", lambda: "another processor")
    assert found._key(NAME, 5, 0) != before


@pytest.mark.parametrize("of", [torch.backends.cudnn, torch.backends.cuda.matmul])
def test_what_a_gpu_computes_in_short_numbers_is_not_shared(activations, monkeypatch, of):
    monkeypatch.setattr("transfer.activations.activations.describe_device", lambda device: "a GPU")
    found, was = activations(), of.allow_tf32
    found._frozen(NAME)
    found.device = torch.device("cuda")
    keys = []
    try:
        for of.allow_tf32 in (False, True, False):
            keys.append(found._key(NAME, 5, 0))
    finally:
        of.allow_tf32 = was
    assert keys[0] == keys[2] != keys[1]


def test_for_a_chunk_that_does_not_fit_no_kept_outputs_make_way(
    activations, monkeypatch, tmp_path
):
    """What it costs is measured for each size of chunk, so that it fails before room is made."""
    step, reserved = FrozenBlocks._step, []

    def short_of_memory(blocks, inputs_n, index):
        if len(inputs_n) > 8:
            raise torch.OutOfMemoryError("of more than eight images")
        return step(blocks, inputs_n, index)

    monkeypatch.setattr(FrozenBlocks, "_step", short_of_memory)
    shared = activations()
    keep = shared._entries.find_or_keep

    def reserving(*given, **others):
        reserved.append(shared._frozen(NAME).chunk_size)
        return keep(*given, **others)

    monkeypatch.setattr(shared._entries, "find_or_keep", reserving)
    for _ in range(2):
        shared.inputs(NAME, DEPTH, passes=9)
        shared.inputs(NAME, 5, passes=9)
    assert set(reserved) == {8}


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
    assert len(computed.what) == 1
    assert len(kept(tmp_path)) == 2


def test_labels_and_splits_are_not_part_of_the_key(activations):
    activations(image_data()).features(NAME)
    computed, relabelled = Computed(), image_data()
    object.__setattr__(relabelled, "fingerprint", "other labels")
    activations(relabelled, on_progress=computed).features(NAME)
    assert computed.what == []


def test_blocks_are_shared_below_the_boundary_and_copied_above_it(activations):
    shared = activations()
    first, second = shared.blocks(NAME, DEPTH - 2), shared.blocks(NAME, DEPTH - 2)
    same = [a is b for a, b in zip(first, second, strict=True)]
    assert same == [True] * (DEPTH - 2) + [False] * 2
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert next(first[-1].parameters()) is not next(second[-1].parameters())


def equal(some, others):
    return all(
        torch.equal(x, y) and x.stride() == y.stride() for x, y in zip(some, others, strict=True)
    )


def asked(data, rng):
    """Batches of several sizes with views mixed within them, and validation images alone."""
    sizes = (1, 8, 3, 20)
    positions = [rng.choice(data.train.positions_N, size=size) for size in sizes]
    return positions, [rng.integers(3, size=size) for size in sizes]


EVERY = [(name, boundary) for name in BACKBONES for boundary in range(BACKBONES[name].depth + 1)]
# DenseNet's 64 boundaries take as long as those of all others together.
SOME = [(name, boundary) for name, boundary in EVERY if name != "densenet121" or boundary % 9 == 0]
QUICK = [(name, boundary) for name, boundary in SOME if name in ("resnet18", "mobilenet_v2")]


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """For each backbone one that keeps every boundary it is asked for, the next from the last.

    A second one finds what that keeps and keeps nothing; a third one computes all from images.
    """
    data, found = image_data(), {}

    def chain(name):
        if name not in found:
            found.clear()  # One at a time: networks are large.
            shared, empty = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("empty")
            found[name] = [
                Activations(
                    data=data,
                    weights={name: find_weights(name, weights="random")},
                    cache_dir=folder,
                    device=CPU,
                    limit_bytes=limit_bytes,
                )
                for folder, limit_bytes in ((shared, 10**10), (shared, 0), (empty, 0))
            ]
            keeping, *others = found[name]
            for one in others:
                one._pretrained_blocks[name] = keeping._pretrained(name)
            # Whatever it really costs, every layer is worth keeping.
            keeping._costs[name, keeping._frozen(name).chunk_size] = [
                replace(cost, seconds=1.0) for cost in keeping._block_costs(name)
            ]
        return data, *found[name]

    return chain


def bits_are_the_same(chains, name, boundary):
    data, keeping, finding, recomputing = chains(name)
    rng = np.random.default_rng(boundary)
    positions, views = asked(data, rng)
    below = finding.inputs(name, boundary, num_views=3, passes=10**6)
    assert below.start < boundary or boundary == 0
    made = keeping.inputs(name, boundary, num_views=3, passes=10**6)
    again = keeping.inputs(name, boundary, num_views=3, passes=10**6)
    anew = recomputing.inputs(name, boundary, num_views=3, passes=10**6)
    outputs = list(made.batches(positions, views))
    assert all(torch.isfinite(x).all() for x in outputs)
    assert (made.start, again.start, again.was_at_hand) == (boundary, boundary, True)
    assert equal(again.batches(positions, views), outputs)
    assert equal(below.batches(positions, views), outputs)
    assert anew.start == 0 and equal(anew.batches(positions, views), outputs)
    # In the company of others, alone, and in another place.
    together = np.concatenate(positions), np.concatenate(views)
    order = rng.permutation(len(together[0]))
    shuffled = anew.at(together[0][order], together[1][order])
    assert torch.equal(shuffled, torch.cat(outputs)[order])
    assert torch.equal(anew.at(positions[1][:1], views[1][:1]), outputs[1][:1])
    images = np.arange(len(data))
    every = anew.at(images)
    assert equal([made.at(images)], [every])
    # A network that gives the same for all images would pass all this.
    assert len(every.flatten(1).unique(dim=0)) == len(images)


@pytest.mark.parametrize(
    ("name", "boundary"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SOME if case not in QUICK)],
)
def test_kept_recomputed_and_otherwise_batched_outputs_are_bit_identical(chains, name, boundary):
    bits_are_the_same(chains, name, boundary)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "boundary"), [case for case in EVERY if case[0] == "densenet121"]
)
def test_outputs_are_bit_identical_at_every_boundary_of_the_deepest_backbone(
    chains, name, boundary
):
    bits_are_the_same(chains, name, boundary)


@pytest.mark.parametrize("name", BACKBONES)
def test_outputs_at_a_boundary_are_those_of_the_blocks_below_it(activations, name):
    middle = BACKBONES[name].depth // 2
    shared = activations(name=name)
    images = np.arange(20)
    blocks = load_blocks(find_weights(name, weights="random"))
    with torch.no_grad():
        expected = blocks[:middle](shared.inputs(name, 0, passes=1).at(images))
    found = shared.inputs(name, middle, passes=1).at(images)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-3, atol=1e-4)


@pytest.fixture
def plain_costs(monkeypatch):
    """Every layer takes a second an image and gives a row of one kilobyte, features too."""

    def give(costs):
        monkeypatch.setattr(Activations, "_block_costs", lambda self, backbone: costs(self))

    def real_shapes(self):
        return [BlockCost(seconds=1.0, row_shape=cost.row_shape) for cost in measured(self, NAME)]

    measured = Activations._block_costs
    give(real_shapes)
    return give


def test_a_boundary_starts_from_the_nearest_one_that_is_kept_below_it(activations, plain_costs):
    shared = activations()
    assert shared.inputs(NAME, 4, passes=9).start == 4
    runs = []
    frozen = shared._frozen(NAME)
    run = frozen.run

    def watched(inputs_n, start, end):
        runs.append((start, end))
        return run(inputs_n, start, end)

    frozen.run = watched
    assert shared.inputs(NAME, 6, passes=9).start == 6
    assert set(runs) == {(4, 6)}
    runs.clear()
    assert shared.inputs(NAME, 3, passes=9).start == 3
    assert set(runs) == {(0, 3)}


def test_what_is_kept_is_at_hand_for_the_next_run_and_the_next_process(activations, plain_costs):
    first = activations().inputs(NAME, 5, passes=9)
    other = activations().inputs(NAME, 5, passes=9)
    assert (first.start, first.was_at_hand) == (5, False)
    assert (other.start, other.was_at_hand, other.num_bytes) == (5, True, first.num_bytes)
    assert first.num_bytes == 20 * 4 * 128 * 4 * 4


def test_what_does_not_fit_is_recomputed_from_the_deepest_boundary_that_does(
    activations, plain_costs
):
    # At 32 pixels the last boundaries of a ResNet-18 take 4 and 2 kilobytes an image.
    full = activations(limit_bytes=20 * 20 * 1024).inputs(NAME, 5, passes=9)
    assert full.start == 5
    tight = activations(limit_bytes=20 * 6 * 1024)
    assert tight.inputs(NAME, 3, passes=9).start == 0
    assert tight.inputs(NAME, 7, passes=9).start == 7
    assert tight.inputs(NAME, DEPTH, passes=9).start == DEPTH


def test_a_limit_of_zero_keeps_nothing_and_measures_nothing(activations, tmp_path, plain_costs):
    plain_costs(lambda self: pytest.fail("there is nothing to weigh"))
    none = activations(limit_bytes=0)
    for boundary in (3, DEPTH):
        inputs = none.inputs(NAME, boundary, num_views=2, passes=9)
        assert (inputs.start, inputs.num_bytes, inputs.was_at_hand) == (0, 0, False)
    assert not (tmp_path / "activations").exists()


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "disk full"), OSError(errno.EDQUOT, "quota")]
)
def test_on_a_full_disk_a_run_recomputes_the_same_bits(activations, monkeypatch, failure):
    positions = np.arange(20)
    expected = activations(limit_bytes=0).inputs(NAME, 5, passes=9).at(positions)

    def fail(path):
        raise failure

    monkeypatch.setattr("transfer.activations.store.reserve", fail)
    inputs = activations().inputs(NAME, 5, passes=9)
    assert inputs.start == 0 and torch.equal(inputs.at(positions), expected)


def outputs_at_some_boundaries(cache, limit_bytes):
    """A digest of what a run gets at each of these boundaries, and what is said of it."""
    shared = Activations(
        data=image_data(),
        weights={NAME: find_weights(NAME, weights="random")},
        cache_dir=cache,
        device=CPU,
        limit_bytes=limit_bytes,
    )
    for boundary in (DEPTH, 5, 1):
        inputs = shared.inputs(NAME, boundary, num_views=2, passes=10**6)
        some = inputs.batches(
            [np.arange(20), np.arange(5, 9)], [np.zeros(20, np.int64), np.ones(4, np.int64)]
        )
        digest = hashlib.sha256(b"".join(x.numpy().tobytes() for x in some)).hexdigest()
        yield digest, inputs.was_at_hand, inputs.num_bytes > 0


PROCESS = """
import json
from test_activations import *
torch.set_num_threads({threads})
{before}
print(json.dumps(list(outputs_at_some_boundaries(Path({cache!r}), 10**9))))
"""


def from_a_process(cache, before=""):
    """The same from a process of its own: digests, what was at hand, what is kept."""
    program = PROCESS.format(cache=str(cache), before=before, threads=torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}:{HELPERS}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return list(zip(*json.loads(done.stdout), strict=True))


def digests(cache, limit_bytes):
    return tuple(digest for digest, *_ in outputs_at_some_boundaries(cache, limit_bytes))


def left_over(cache):
    return [path.name for path in cache.rglob(".*")]


@pytest.mark.slow
def test_another_process_finds_what_one_kept_with_the_same_bits(tmp_path):
    expected = digests(tmp_path, 10**9)
    assert from_a_process(tmp_path)[:2] == [expected, (True, True, True)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file")
def test_a_limit_on_the_size_of_a_file_changes_no_bit(tmp_path):
    # Features find room, outputs at lower boundaries don't.
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    found, _, are_kept = from_a_process(tmp_path / "limited", before)
    assert found == digests(tmp_path / "none", 0)
    assert are_kept == (True, False, False)
    assert left_over(tmp_path / "limited") == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kb_of_others", "fit"), [(0, True), (196, False), (200, False)])
def test_a_full_disk_neither_ends_the_process_nor_changes_a_bit(
    tmp_path, small_disk, kb_of_others, fit
):
    (small_disk / "others").write_bytes(bytes(kb_of_others * 1024))
    found, _, are_kept = from_a_process(small_disk)
    assert found == digests(tmp_path / "none", 0)
    assert are_kept == (fit, False, False)
    assert left_over(small_disk) == []


@pytest.mark.parametrize(("num_views", "boundary"), [(1, 6), (3, 5)])
def test_keeping_pays_for_a_single_epoch_as_well_for_trials_follow(
    activations, plain_costs, num_views, boundary
):
    inputs = activations().inputs(NAME, boundary, num_views=num_views, passes=1)
    assert inputs.start == boundary


def test_what_is_kept_is_what_was_chosen(activations, monkeypatch, tmp_path, plain_costs):
    asked_for = []

    def plan(layers, start, boundary, **others):
        asked_for.append((start, boundary))
        return [start + 2] if boundary > start + 1 else []

    monkeypatch.setattr("transfer.activations.activations.plan", plan)
    shared = activations()
    starts = [shared.inputs(NAME, boundary, passes=9).start for boundary in (4, 2, 5, 5)]
    assert starts == [2, 2, 4, 4]
    assert asked_for == [(0, 4), (2, 5), (4, 5)]
    assert len(kept(tmp_path)) == 2


def test_outputs_that_other_runs_may_ask_for_are_kept_on_the_way(
    activations, tmp_path, plain_costs
):
    computed, expected = Computed(), activations(limit_bytes=0)
    shared = activations(boundaries={NAME: (2, 5, DEPTH)}, on_progress=computed)
    features = shared.features(NAME)
    assert computed.what == [f"outputs of layer 5 of {NAME}", f"features of {NAME}"]
    assert torch.equal(features, expected.features(NAME))
    later = shared.inputs(NAME, 5, passes=9)
    assert (later.start, later.was_at_hand) == (5, True)
    positions = np.arange(20)
    assert torch.equal(later.at(positions), expected.inputs(NAME, 5, passes=9).at(positions))
    # What is kept already will not be asked for again: of those left none lies between.
    assert shared.inputs(NAME, 4, passes=9).start == 4
    assert len(kept(tmp_path)) == 4  # 2 was kept on the way to 4.


def test_memory_stays_with_the_process_while_outputs_are_computed(activations, plain_costs):
    during = []
    shared = activations(on_progress=lambda *_: during.append(device._depth))
    shared.features(NAME)
    assert during and min(during) > 0 and device._depth == 0


def test_views_on_the_way_are_kept_whole(activations, tmp_path, plain_costs):
    shared = activations(boundaries={NAME: (3, 6)})
    assert shared.inputs(NAME, 6, num_views=3, passes=9).start == 6
    assert len(kept(tmp_path)) == 6
    assert shared.inputs(NAME, 3, num_views=3, passes=9).was_at_hand


def test_where_there_is_no_disk_for_what_lies_on_the_way_the_run_has_what_it_needs(
    activations, monkeypatch, tmp_path, plain_costs
):
    shared = activations(boundaries={NAME: (5, DEPTH)})
    keep = shared._entries.find_or_keep

    def full_for_layer_5(key, *given, **others):
        return None if key == shared._key(NAME, 5, 0) else keep(key, *given, **others)

    monkeypatch.setattr(shared._entries, "find_or_keep", full_for_layer_5)
    assert shared.inputs(NAME, DEPTH, passes=9).start == DEPTH
    assert len(kept(tmp_path)) == 1


def test_at_a_lower_boundary_nothing_foreign_is_found_either(activations, tmp_path, plain_costs):
    def run(**given):
        return activations(**given).inputs(NAME, 5, num_views=2, passes=99).was_at_hand

    resplit = image_data()
    swapped = Split(positions_N=np.arange(15), labels_N=resplit.train.labels_N)
    object.__setattr__(resplit, "train", swapped)
    others = [
        {},
        {"seed": 1},
        {"data": image_data(seed=1, fingerprint="other")},
        {"data": image_data(size=48)},
        {"data": resplit},
    ]
    assert [run(**given) for given in others] == [False] * 5
    assert [run(**given) for given in others] == [True] * 5
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert not run()
    finally:
        torch.set_num_threads(before)
    # The images themselves are the same whatever the split.
    assert len(kept(tmp_path)) == 2 * 6 - 1


def test_the_time_between_batches_is_not_counted(activations, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("transfer.activations.activations.perf_counter", lambda: clock[0])
    shared = activations(limit_bytes=0)
    inputs = shared.inputs(NAME, 3, passes=9)
    run = FrozenBlocks.run

    def slow(*given):
        clock[0] += 2.0
        return run(*given)

    monkeypatch.setattr(FrozenBlocks, "run", slow)
    for _ in inputs.batches([np.arange(16)] * 3):
        clock[0] += 100.0
    assert shared.seconds == 6.0


def test_all_views_of_a_boundary_are_kept_or_none_is_used(activations, plain_costs):
    shared = activations()
    one = shared.inputs(NAME, 5, passes=9)
    three = shared.inputs(NAME, 5, num_views=3, passes=9)
    assert (one.start, three.start, three.was_at_hand) == (5, 5, False)
    assert three.num_bytes == one.num_bytes * (20 + 2 * 15) / 20


def test_seconds_are_counted_for_computing_and_fetching(activations):
    shared = activations()
    assert shared.seconds == 0
    inputs = shared.inputs(NAME, DEPTH, passes=9)
    computed = shared.seconds
    assert computed > 0
    inputs.at(np.arange(5))
    assert shared.seconds > computed
    shared.seconds = 0.0
    shared.inputs(NAME, DEPTH, passes=9)
    assert 0 < shared.seconds < computed


def test_the_views_of_other_training_images_are_never_answered_from_the_file(activations):
    activations().inputs(NAME, DEPTH, num_views=2, passes=99)
    resplit, computed = image_data(), Computed()
    swapped = Split(positions_N=np.arange(15), labels_N=resplit.train.labels_N)
    object.__setattr__(resplit, "train", swapped)
    activations(resplit, on_progress=computed).inputs(NAME, DEPTH, num_views=2, passes=99)
    assert computed.what == [f"features of {NAME}, view 1"]


def test_views_that_are_mirrored_otherwise_are_told_apart_and_the_images_are_not(activations):
    found = []
    for flip in ("horizontal", "none", "both", "none"):
        computed = Computed()
        inputs = activations(on_progress=computed).inputs(
            NAME, DEPTH, num_views=2, flip=flip, passes=99
        )
        found.append(computed.what)
        fresh = activations(limit_bytes=0).inputs(NAME, DEPTH, num_views=2, flip=flip, passes=9)
        batch = (np.arange(5, 20), np.ones(15, dtype=np.int64))
        assert torch.equal(inputs.at(*batch), fresh.at(*batch))
    views = [f"features of {NAME}, view 1"]
    assert found == [[f"features of {NAME}", *views], views, views, []]


def test_images_that_were_resized_otherwise_are_told_apart(activations):
    data = image_data()
    assert not activations(data).inputs(NAME, DEPTH, passes=99).was_at_hand
    padded = replace(data, resize="pad")
    assert not activations(padded).inputs(NAME, DEPTH, passes=99).was_at_hand
    assert activations(data).inputs(NAME, DEPTH, passes=99).was_at_hand


@pytest.mark.parametrize(("name", "wanted"), [("efficientnet_b0", "bicubic"), (NAME, "bilinear")])
def test_a_backbone_sees_the_images_that_were_resized_as_it_wants(activations, name, wanted):
    data = image_data()
    pixels = {"bilinear": data.images_NHWC, "bicubic": 255 - data.images_NHWC}
    both, alone = replace(data, resized=pixels), replace(data, resized={wanted: pixels[wanted]})
    features = activations(both, name=name, limit_bytes=0).features(name)
    assert torch.equal(features, activations(alone, name=name, limit_bytes=0).features(name))


def test_what_the_data_were_loaded_without_is_named(activations):
    data = replace(image_data(), large_NHWC=None)
    with pytest.raises(ValueError, match=r"ask for them by load_data\(with_views=True\)"):
        activations(data).inputs(NAME, DEPTH, num_views=2, passes=9)
    data = replace(image_data(), resized={"bicubic": data.images_NHWC})
    with pytest.raises(ValueError, match=r"by bicubic, but a backbone wants bilinear"):
        activations(data).features(NAME)


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
        assert len(computed.what) == 1
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


def test_the_probe_is_solved_once_on_the_training_images(activations, monkeypatch):
    shared = activations()
    first = shared.probe(NAME)
    assert first.weight_CD.shape == (2, BACKBONES[NAME].num_features)
    monkeypatch.setattr("transfer.activations.activations.solve_probe", None)
    assert shared.probe(NAME) is first


def test_everything_kept_is_there_before_a_run_asks_for_it(activations):
    computed = Computed()
    inputs = activations(on_progress=computed).inputs(NAME, DEPTH, num_views=3, passes=99)
    assert len(computed.what) == 3
    inputs.at(np.array([5, 6, 7]), np.array([0, 1, 2]))
    assert len(computed.what) == 3


def test_under_a_limit_of_zero_what_is_kept_is_not_used_either(activations):
    activations().inputs(NAME, DEPTH, passes=9)
    without = activations(limit_bytes=0).inputs(NAME, DEPTH, passes=9)
    assert (without.start, without.num_bytes, without.was_at_hand) == (0, 0, False)


HELPED = """
import torch
from helper_of_my_net import act
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), act(), nn.Conv2d(4, 4, 3))

BACKBONES = {"my_net": build}
"""


def test_what_ones_own_backbone_imports_is_part_of_its_key(tmp_path, monkeypatch, activations):
    (tmp_path / "my_nets.py").write_text(HELPED)
    monkeypatch.setattr("transfer.backbones.custom.from_files", {})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    features = []
    for act in ("ReLU", "Tanh"):
        (tmp_path / "helper_of_my_net.py").write_text(f"from torch.nn import {act} as act")
        monkeypatch.delitem(sys.modules, "helper_of_my_net", raising=False)
        backbones_from_file(tmp_path / "my_nets.py")
        features.append(activations(name="my_net").features("my_net"))
    assert not torch.equal(*features)


def test_on_a_gpu_the_images_are_there_before_the_first_run_begins(activations, monkeypatch):
    """Else the first training that needs them would have them in its own peak of memory."""
    taken = []
    monkeypatch.setattr(
        "transfer.activations.activations.Rows", lambda pixels, device: taken.append(device)
    )
    found = activations()
    monkeypatch.setattr(found, "_frozen", lambda backbone: None)
    found.load(NAME)
    assert taken == []
    found.device = torch.device("cuda")
    found.load(NAME)
    found.load(NAME)
    assert taken == [torch.device("cuda")]
    found.load(NAME, with_views=True)
    assert len(taken) == 2
