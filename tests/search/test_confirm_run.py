"""Confirming trains each candidate once a seed, beside the search, and can be gone on with."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from studies.cli.search import main
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.study import read_confirm
from studies.database.trials import read_trials
from studies.results.choice import read_confirmed
from transfer.training.train import _Run

DATA = "phantom:train=60,test=20,size=32"
SPACE = """
name = "tiny"
backbone.choices = ["resnet18"]
strategy.choices = ["feature_extraction", "fine_tuning"]
batch_size.choices = [16]
learning_rate.choices = [1e-3, 1e-2]
num_unfrozen_layers.fine_tuning.choices = [1]
[[baselines]]
strategy = "fine_tuning"
learning_rate = 1e-3
batch_size = 16
depth_share = 0.1
"""
URL = "sqlite:///studies.db"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def command(capsys, line):
    code = main([*line.split(), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


SEARCH = (
    f"run --data {DATA} --space space.toml --weights random --epochs 1 --trials 4 --no-confirm "
    "--no-report"
)


@pytest.fixture
def searched(home, capsys):
    assert command(capsys, SEARCH)[0] == 0
    return home


def trials_of(name):
    return read_trials(load_study(open_existing(URL), name))


def test_each_candidate_is_trained_once_a_seed_and_the_search_stays_as_it_was(searched, capsys):
    before = trials_of("phantom")
    code, found, err = command(capsys, "confirm --top 1 --seeds 2")
    assert code == 0, err
    assert found["seeds"] == [1, 2] and len(found["candidates"]) == 2
    assert {c["strategy"] for c in found["candidates"]} == {"feature_extraction", "fine_tuning"}
    assert all(c["seeds"] == [1, 2] and len(c["values"]) == 2 for c in found["candidates"])
    assert trials_of("phantom") == before
    runs = trials_of("phantom/confirm")
    assert len(runs) == 4 and {run.config["seed"] for run in runs} == {1, 2}
    controls = {row["control"] for row in found["controls"]}
    assert controls == {
        "majority",
        "knn",
        "logistic_regression",
        "default_recipe (fine_tuning)",
    }
    recipes = [run for run in trials_of("phantom/controls") if "candidate" in run.params]
    assert [run.params["seed"] for run in recipes] == [1, 2]
    again = command(capsys, "confirm --top 1 --seeds 2")[1]
    assert again == found and len(trials_of("phantom/confirm")) == 4
    more = command(capsys, "confirm --top 1 --seeds 3 --choose cheapest")[1]
    assert more["seeds"] == [1, 2, 3] and more["choose"] == "cheapest"
    assert len(trials_of("phantom/confirm")) == 6
    names = [s["study"] for s in command(capsys, "status")[1]["studies"]]
    assert names == ["phantom"]


def test_the_trained_part_of_every_seed_is_kept(searched, capsys):
    assert command(capsys, "confirm --top 1 --seeds 2")[0] == 0
    storage = open_existing(URL)
    heads = []
    for run in trials_of("phantom/confirm"):
        with storage.artifacts.open_reader(run.weights) as reader:
            tensors = load(reader.read())
        assert tensors["head.1.weight"].shape == (2, 512)
        assert any(key.startswith("blocks.8.") for key in tensors) == (
            run.strategy == "fine_tuning"
        )
        heads.append(tensors["head.1.weight"])
    assert len({head.tobytes() for head in heads}) == 4 and np.isfinite(heads).all()


def test_what_was_confirmed_is_read_back(searched, capsys):
    found = command(capsys, "confirm --top 1 --seeds 2")[1]
    study = load_study(open_existing(URL), "phantom/confirm")
    read = read_confirmed(study, trials_of("phantom"), "accuracy").as_json()
    assert {key: found[key] for key in read} == read


def test_the_margin_is_declared_before_confirming_and_not_changed_behind_it(searched, capsys):
    found = command(capsys, "confirm --top 1 --seeds 1 --margin 0.03")[1]
    assert found["margin"] == 0.03
    if found["difference"] is not None:
        assert found["difference"]["margin"] == 0.03
    assert command(capsys, "confirm --top 1 --seeds 1")[1]["margin"] == 0.03
    assert command(capsys, "confirm --top 1 --seeds 1 --margin 0.03")[0] == 0
    for line in ("confirm --top 1 --seeds 1 --margin 0.01", f"{SEARCH} --margin 0.01"):
        code, _, err = command(capsys, line)
        assert code == 2 and "was confirmed with margin 0.03" in err
    assert command(capsys, "confirm --top 1 --seeds 1 --margin 0.9")[0] == 2


def test_a_margin_that_the_search_was_run_with_is_the_one_of_confirming(home, capsys):
    assert command(capsys, f"{SEARCH} --margin 0.04")[0] == 0
    assert command(capsys, "confirm --top 1 --seeds 1")[1]["margin"] == 0.04


def test_a_study_that_was_confirmed_before_there_were_margins_has_none(searched, capsys):
    assert command(capsys, "confirm --top 1 --seeds 1")[1]["margin"] == 0.02
    study = load_study(open_storage(URL), "phantom/confirm")
    old = {key: value for key, value in study.user_attrs["confirm"].items() if key != "margin"}
    study.set_user_attr("confirm", old)
    assert command(capsys, "confirm --top 1 --seeds 1")[1]["margin"] is None
    code, _, err = command(capsys, "confirm --top 1 --seeds 1 --margin 0.02")
    assert code == 2 and "was confirmed with no margin" in err


def test_run_ends_with_confirming_unless_told_not_to(home, capsys):
    code, summary, err = command(capsys, SEARCH.replace(" --no-confirm", " --top 1 --seeds 1"))
    assert code == 0, err
    assert len(summary["confirmed"]["candidates"]) == 2
    assert "phantom/confirm" not in {s["study"] for s in command(capsys, "status")[1]["studies"]}


@pytest.mark.slow
def test_resplitting_draws_other_validation_images_and_is_not_changed_later(searched, capsys):
    assert command(capsys, "confirm --top 1 --seeds 2 --resplit")[0] == 0
    storage, positions = open_existing(URL), set()
    for run in trials_of("phantom/confirm"):
        with storage.artifacts.open_reader(run.predictions) as reader:
            (home_file := searched / "p.npz").write_bytes(reader.read())
        positions.add((run.params["seed"], np.load(home_file)["positions_N"].tobytes()))
    assert len(positions) == 2
    code, _, err = command(capsys, "confirm --no-resplit")
    assert code == 2 and "a validation split for each seed" in err


def test_without_a_study_there_is_nothing_to_confirm(home, capsys):
    code, _, err = command(capsys, "confirm")
    assert code == 2 and "No study database" in err


def test_what_was_asked_of_confirming_is_known_when_the_study_goes_on(home, capsys):
    """Who stops a search by Ctrl-C goes on by its name alone."""
    assert command(capsys, f"{SEARCH} --top 1 --seeds 2 --choose cheapest --resplit")[0] == 0
    code, _, err = command(capsys, "run --name phantom --no-report")
    assert code == 0, err
    stored = read_confirm(load_study(open_existing(URL), "phantom/confirm"))
    assert (stored["top"], stored["num_seeds"], stored["choose"]) == (1, 2, "cheapest")
    assert stored["resplit"] is True


def test_a_seed_whose_device_died_is_trained_again_by_the_same_command(
    searched, capsys, monkeypatch
):
    epoch, died = _Run.epoch, []

    def dies_once(self, number):
        if self.config.seed == 2 and not died:
            died.append(number)
            raise RuntimeError("CUDA error: device-side assert triggered")
        return epoch(self, number)

    monkeypatch.setattr(_Run, "epoch", dies_once)
    code, _, err = command(capsys, "confirm --top 1 --seeds 2")
    assert code == 1 and "left the device unusable" in err
    code, _, err = command(capsys, "run --name phantom --no-report --top 1 --seeds 2")
    assert code == 0, err
    runs = trials_of("phantom/confirm")
    assert [run.state for run in runs].count("FAIL") == 1
    assert [run.state for run in runs].count("COMPLETE") == 4


def test_a_split_that_can_not_be_drawn_anew_is_refused_before_anything_is_stored(home, capsys):
    images = home / "images"
    for split in ("train", "val", "test"):
        for label in ("A", "B"):
            (images / split / label).mkdir(parents=True)
            for number in range(6):
                noise = np.random.default_rng([number, ord(label), len(split)])
                pixels = noise.integers(0, 256, (32, 32), dtype=np.uint8)
                Image.fromarray(pixels).save(images / split / label / f"{number}.png")
    line = (
        "run --data images --space space.toml --weights random --epochs 1 --trials 2 --no-report"
    )
    code, _, err = command(capsys, f"{line} --resplit")
    assert code == 2 and "leave it out" in err
    code, _, err = command(capsys, f"{line} --top 1 --seeds 1")
    assert code == 0, err
