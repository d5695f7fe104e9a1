"""The command line: every mistake of the user is one line on stderr and exit code 2."""

import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from studies.cli.search import main
from studies.settings import DEFAULTS

TINY = "--data phantom:train=20,test=10,size=32 --weights random --backbones resnet18 --trials 1"


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """An empty folder to be in, a cache of its own, no weights and no network."""

    def fail(*arguments, **options):
        raise URLError("no route\nto host")

    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    return home


def make_images(home, *folders, num_images=6):
    rng = np.random.default_rng(0)
    for folder in folders:
        (home / "data" / folder).mkdir(parents=True)
        for i in range(num_images):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(home / "data" / folder / f"{i}.png")


def expect_one_line(capsys, arguments, *said):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err
    for part in said:
        assert part in err


BAD_ARGUMENTS = [
    ("run --trails 3", ["--trails"]),
    ("ran", ["ran"]),
    ("run stray", ["stray"]),
    ("run --trials", ["--trials"]),
    ("run --trials 0", ["trials", "0"]),
    ("run --trials -5", ["trials", "-5"]),
    ("run --trials many", ["--trials", "integer"]),
    ("run --trials 1.5", ["--trials", "integer"]),
    ("run --epochs 0", ["epochs"]),
    ("run --patience -1", ["patience"]),
    ("run --timeout 0", ["timeout"]),
    ("run --timeout nan", ["timeout"]),
    ("run --timeout soon", ["--timeout", "number"]),
    ("run --seed -1", ["seed"]),
    ("run --image-size 8", ["image_size"]),
    ("run --backbones resnet51", ["resnet51", "resnet50"]),
    ("run --backbones ,", ["backbones"]),
    ("run --strategies frozen", ["frozen", "feature_extraction"]),
    ("run --metric precision", ["precision", "accuracy"]),
    ("run --sampler grid", ["grid", "tpe"]),
    ("run --pruner hyperband", ["hyperband", "median"]),
    ("run --precision fp8", ["fp8", "bf16"]),
    ("run --weights mine", ["mine", "imagenet"]),
    ("run --weights-dir nowhere --backbones resnet18", ["nowhere", "does not exist"]),
    ("run --device tpu", ["tpu", "cpu"]),
    ("run --device cuda:x", ["cuda:x"]),
    ("run --name a/b", ["a/b"]),
    ("run --data nowhere", ["nowhere"]),
    ("run --data phantom --group-pattern x", ["Group pattern 'x'"]),
    ("run --set learning_rate", ["--set learning_rate", "NAME=LOW..HIGH"]),
    ("run --set momentum=0.9", ["momentum", "learning_rate"]),
    ("run --set batch_size=1 --weights random", ["batch_size >= 2", "BatchNorm", "lite0"]),
    ("run --views 0", ["num_views"]),
    ("run --space extended --weights random --views 4", ["--set num_views=4"]),
    ("run --backbone-module nowhere.py", ["nowhere.py"]),
    ("run --backbones torchvision:fcn_resnet50", ["torchvision:fcn_resnet50"]),
    ("data", ["SOURCE"]),
    ("data nowhere", ["nowhere"]),
    ("data phantom --preview seen.jpg", ["seen.jpg", ".png"]),
    ("data phantom --image-size 8", ["image_size"]),
    ("backbones resnet51", ["resnet51", "resnet50"]),
    ("backbones --backbone-module nowhere.py", ["nowhere.py"]),
    ("backbones --weights-dir nowhere", ["nowhere"]),
    ("spaces nowhere", ["nowhere", "default"]),
    ("spaces default --set batch_size=0", ["batch_size", ">= 1"]),
    ("spaces default --backbones resnet51", ["resnet51"]),
    ("spaces default --strategies frozen", ["frozen"]),
    ("run --data phantom:trian=20", ["trian"]),
    ("run --data phantom:train=2", ["train"]),
    ("run --space nowhere", ["nowhere", "default"]),
    ("run --config nowhere.toml", ["nowhere.toml"]),
    ("run --storage mysql", ["mysql"]),
    ("run --storage sqlite:///:memory:", ["memory"]),
    ("run --storage sqlite:///no/folder/s.db", ["no/folder"]),
    ("run --storage nothing://x", ["nothing"]),
    ("run --cache-dir file.txt", ["file.txt"]),
    ("run --cache-limit -1", ["cache_limit", ">= 0", "-1"]),
    ("run --cache-limit 2pints", ["cache_limit", "GB", "2pints"]),
    ("cache --cache-dir file.txt", ["file.txt"]),
    ("cache stray", ["stray"]),
    ("status", ["No study database"]),
    ("status --storage elsewhere.db", ["elsewhere.db"]),
    ("status --trials 3", ["--trials"]),
    ("dashboard", ["No study database"]),
    ("dashboard --port 0", ["--port"]),
    ("dashboard --host nowhere.invalid", ["--host", "nowhere.invalid"]),
    ("dashboard --read-only --storage postgresql://h/db", ["--read-only", "SQLite"]),
]


@pytest.mark.parametrize(("line", "said"), BAD_ARGUMENTS, ids=[line for line, _ in BAD_ARGUMENTS])
def test_bad_arguments(capsys, at_home, line, said):
    (at_home / "file.txt").write_text("x", encoding="utf-8")
    (at_home / "mysql").mkdir()
    expect_one_line(capsys, line.split(), *said)


@pytest.mark.parametrize("command", ["status", "dashboard"])
def test_reading_commands_create_nothing(at_home, command):
    assert main([command]) == 2
    assert list(at_home.iterdir()) == []


BAD_DATA = {
    "an empty folder": (lambda home: (home / "data").mkdir(), ["train"]),
    "no test split": (lambda home: make_images(home, "train/A", "train/B"), ["test"]),
    "one class": (lambda home: make_images(home, "train/A", "test/A"), ["'A'"]),
    "an empty class": (
        lambda home: (
            make_images(home, "train/A", "test/A", "test/B"),
            (home / "data/train/B").mkdir(),
        ),
        ["'B'", "train"],
    ),
    "a class missing in a split": (
        lambda home: make_images(home, "train/A", "train/B", "test/A"),
        ["'B'", "test"],
    ),
    "a class that is in the test split alone": (
        lambda home: make_images(home, "train/A", "train/B", "test/A", "test/B", "test/C"),
        ["'C'"],
    ),
    "a class of one image": (
        lambda home: make_images(home, "train/A", "train/B", "test/A", "test/B", num_images=1),
        ["at least 2 training images"],
    ),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(capsys, at_home, kind):
    prepare, said = BAD_DATA[kind]
    prepare(at_home)
    line = "run --data data --weights random --backbones resnet18 --image-size 32"
    expect_one_line(capsys, line.split(), *said)


SPACE = """
name = "s"
[backbone]
choices = ["resnet18"]
[strategy]
choices = ["feature_extraction"]
[batch_size]
choices = [16]
"""

BAD_FILES = {
    "malformed config": ("--config", "epochs = 2\ntrials = = 3\n", ["line 2"]),
    "unknown option in a config": ("--config", "trails = 3\n", ["trails", "trials"]),
    "bad value in a config": ("--config", 'metric = "precision"\n', ["metric", "precision"]),
    "malformed space": ("--space", 'name = "s"\n[backbone\n', ["line 2"]),
    "unknown key in a space": ("--space", SPACE + "[lr]\nlow = 1\n", ["lr", "learning_rate"]),
    "low above high": (
        "--space",
        SPACE + "[learning_rate]\nlow = 0.1\nhigh = 0.01\n",
        ["low <= high", "0.1", "0.01"],
    ),
    "a parameter left out of a space": ("--space", SPACE, ["learning_rate"]),
    "a negative rate": (
        "--space",
        SPACE + "[learning_rate]\nlow = -0.1\nhigh = 0.01\n",
        ["learning_rate", "-0.1"],
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file(capsys, at_home, kind):
    option, content, said = BAD_FILES[kind]
    (at_home / "bad.toml").write_text(content, encoding="utf-8")
    expect_one_line(capsys, ["run", option, "bad.toml"], "bad.toml", *said)


def test_weights_out_of_reach_are_said_with_the_ways_out(capsys):
    line = "run --data phantom:train=20,test=10 --backbones resnet50"
    expect_one_line(capsys, line.split(), "resnet50", "--weights-dir", "--weights random")


@pytest.mark.parametrize("command", ["run " + TINY, "status", "dashboard"])
def test_a_damaged_database_is_refused_and_left_as_it_is(capsys, at_home, command):
    content = b"SQLite format 3\0" + bytes(range(256)) * 40
    (at_home / "studies.db").write_bytes(content)
    expect_one_line(capsys, command.split(), "studies.db")
    assert (at_home / "studies.db").read_bytes() == content


def test_debug_shows_where_an_error_comes_from(capsys):
    assert main(["status", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


COMMANDS = ("run", "status", "data", "backbones", "spaces", "cache", "dashboard")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(capsys, command):
    assert main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert "Usage: python -m studies" in out and err == ""


def test_the_help_of_run_shows_every_default(capsys):
    assert main(["run", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for value in DEFAULTS.values():
        assert value is None or f"[default: {value}]" in out
    assert "[default: phantom]" in out and "[default: default; demo with phantom]" in out


def test_without_a_command_there_is_help_and_no_traceback(capsys):
    assert main([]) in (0, 2)
    out, err = capsys.readouterr()
    assert "Usage: python -m studies" in out + err and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("data phantom:train=20,test=10,size=32", "counts"),
        ("backbones resnet18", "backbones"),
        ("spaces", "spaces"),
        ("spaces default", "parameters"),
        ("cache", "kinds"),
        ("cache --clear", "freed_bytes"),
    ],
)
def test_what_looks_gives_one_json_object_or_a_table_and_no_database(
    capsys, at_home, command, key
):
    assert main([*command.split(), "--json"]) == 0
    assert key in json.loads(capsys.readouterr().out)
    assert main(command.split()) == 0
    assert capsys.readouterr().out
    assert not (at_home / "studies.db").exists()
