"""The arithmetic behind the ratios, and that both sides run on a few small pictures."""

import json
import sys
from pathlib import Path

import pytest
import torch
from paths import ROOT
from PIL import Image
from safetensors.torch import save_file

from transfer.backbones.find import block_tensors, find_backbone
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images

sys.path.insert(0, str(ROOT / "benchmarks"))

import engine
import ours
import usual_script


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data folder of 20 pictures and a few more for the test, and one of weights."""
    data, weights = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("weights")
    spec = parse_phantom("phantom:train=24,test=12,size=32")
    for split in ("train", "test"):
        images_NHW, labels_N = phantom_images(spec, split)
        for i, (pixels, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
            path = data / split / class_names(spec)[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    with torch.random.fork_rng():
        tensors = block_tensors("mobilenet_v2", find_backbone("mobilenet_v2").build())
    save_file(
        {key: t.contiguous() for key, t in tensors.items()}, weights / "mobilenet_v2.safetensors"
    )
    return ["--data", str(data), "--weights-dir", str(weights), "--image-size", "32"]


def epoch(seconds, startup_seconds=0.0):
    return usual_script.Epoch(seconds=seconds, startup_seconds=startup_seconds, val_accuracy=0.5)


def run_of(seconds, *epoch_seconds, **spans):
    trainings = [{"seconds": list(epochs)} for epochs in epoch_seconds]
    return ours.Run(seconds=seconds, trainings=trainings, spans=spans)


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(0, 1), (2, 4)], 3),
        ([(2, 4), (0, 3)], 4),  # two threads at once
        ([(0, 5), (1, 2), (5, 6)], 6),  # a forward call within a backward one
    ],
)
def test_time_is_counted_once_however_many_calls_cover_it(spans, seconds):
    assert ours.covered_seconds(spans) == seconds


def test_non_arithmetic_is_what_neither_decoding_nor_a_network_covers():
    run = run_of(10.0, decoding=[(0, 2)], forward=[(2, 5)], backward=[(4, 8)], steps=[(8, 9)])
    assert run.parts()["non-arithmetic share"] == pytest.approx(0.2)


def test_the_usual_script_counts_with_its_best_number_of_workers_and_starts_once():
    measured = [{0: epoch(3.0, 1.0), 2: epoch(6.0, 1.0)}, {0: epoch(5.0), 2: epoch(1.0)}]
    config = engine.configuration(4, 10, 1e-4)
    assert engine.usual_seconds(config, measured) == 1.0 + 10 * 3.5


def test_epochs_that_we_left_out_count_at_the_median_of_the_others():
    configs = [engine.configuration(19, 10, 1e-4), engine.configuration(4, 3, 1e-4)]
    assert engine.our_seconds(run_of(20.0, [1.0, 9.0, 2.0], [1.0] * 3), configs) == 20 + 7 * 2


def test_the_ratio_is_of_all_trainings_of_a_row_and_of_the_mean_of_our_runs():
    row = engine.Row(what="two", configs=tuple(engine.configuration(k, 2, 1e-4) for k in (0, 4)))
    usual = {0: [{0: epoch(10.0)}], 4: [{0: epoch(20.0)}]}
    runs = [
        run_of(seconds, [1.0] * 2, [1.0] * 2, decoding=[], forward=[], backward=[])
        for seconds in (4.0, 6.0)
    ]
    assert engine.compare(row, usual, runs)["ratio"] == (2 * 10 + 2 * 20) / 5


@pytest.mark.slow
def test_the_engine_and_the_usual_script_train_the_same_images_side_by_side(
    folders, tmp_path, capsys
):
    results = tmp_path / "results.json"
    options = ["--images", "20", "--workers", "0", "--rows", "all", "--json", str(results)]
    engine.main([*folders, *options])
    row = json.loads(results.read_text())["rows"]["all"]
    assert row["ratio"] == pytest.approx(row["usual_seconds"] / row["our_seconds"])
    assert [len(t["seconds"]) for run in row["ours"] for t in run["trainings"]] == [2, 2]
    assert all(0 < run["non-arithmetic share"] < 1 for run in row["ours"])
    assert "2 measured epochs x 5" in capsys.readouterr().out


@pytest.mark.slow
def test_the_list_runs_as_a_study_of_exactly_its_configurations(folders, tmp_path):
    results = tmp_path / "results.json"
    options = ["--images", "20", "--workers", "0", "--rows", "list", "--json", str(results)]
    engine.main([*folders, *options])
    (run,) = json.loads(results.read_text())["rows"]["list"]["ours"]
    assert sorted(t["k"] for t in run["trainings"]) == [0] * 5 + [2, 4, 9, 14, 19]
    assert {len(t["seconds"]) for t in run["trainings"]} == {8}


def test_the_usual_script_prints_every_epoch(folders, capsys):
    usual_script.main([*folders, "--workers", "0", "--unfrozen", "4", "--epochs", "2"])
    epochs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(epochs) == 2 and all(epoch["seconds"] > 0 for epoch in epochs)


def test_the_usual_script_trains_on_the_images_that_are_named(folders):
    dataset, data = usual_script.image_folder(Path(folders[1]), 32), Path(folders[1])
    names = [Path(path).relative_to(data).as_posix() for path, _ in dataset.samples]
    split = {"train": names[3:], "val": names[:3]}
    found = usual_script.named_halves(dataset, data, split)
    assert found == (list(range(3, len(names))), [0, 1, 2])


def test_the_usual_script_trains_the_last_layers_and_the_head_alone(folders):
    data, weights_dir = Path(folders[1]), Path(folders[3])
    before = usual_script.transfer_network(weights_dir, 4, 2).state_dict()
    dataset = usual_script.image_folder(data, 32)
    epochs = usual_script.train(
        dataset,
        *usual_script.stratified_halves(dataset.targets),
        weights_dir=weights_dir,
        num_unfrozen=4,
        learning_rate=1e-3,
        num_workers=0,
        epochs=1,
    )
    next(epochs)
    with pytest.raises(StopIteration) as end:
        next(epochs)
    after = end.value.value.state_dict()
    moved = {key.split(".")[1] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"15", "16", "17", "18", "1"}  # Layers 15 to 18, and the classifier's second.
