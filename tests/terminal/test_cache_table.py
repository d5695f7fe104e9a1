"""The cache is shown by kind, freed when asked, and never made by looking."""

import json
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from studies.cli.search import main
from studies.terminal.cache import WORDS, look_at_cache, print_cache
from transfer.cache import KINDS, UNFINISHED_SECONDS

KEY = "0123456789abcdef" * 2
RUN = (
    "run --data phantom:train=20,test=10,size=32 --weights random --backbones resnet18 --trials 1 "
    "--no-confirm --no-report"
)


def put(path, num_bytes=1500, age=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    os.utime(path, (time.time() - age,) * 2)
    os.utime(path.parent, (time.time() - age,) * 2)


@pytest.fixture
def cache(tmp_path):
    """An entry of images, two of activations."""
    put(tmp_path / "cache" / "images" / KEY / "images.npy", 2_000_000)
    for end in "ab":
        put(tmp_path / "cache" / "activations" / (KEY[:-1] + end) / "rows.npy", 250)
    return tmp_path / "cache"


def shown(found):
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as captured:
        print_cache(console, found)
    return captured.get()


def rows(text):
    """Cells of the table's rows, by their first."""
    cells = [line.strip().split("  ") for line in text.splitlines() if "  " in line.strip()]
    return {row[0]: [cell.strip() for cell in row[1:] if cell] for row in cells}


def test_every_kind_has_a_word():
    assert WORDS.keys() == KINDS.keys()


def test_kinds_are_shown_in_words_with_entries_size_and_day(cache):
    text = shown(look_at_cache(cache))
    table = rows(text)
    assert table["decoded images"][:2] == ["1", "2.0 MB"]
    assert table["activations"][:2] == ["2", "500 B"]
    assert table["all"] == ["3", "2.0 MB"]
    assert table["activations"][2][:10] in (
        time.strftime("%Y-%m-%d", time.localtime(time.time() - ago)) for ago in (0, 60)
    )
    assert "hashes" not in text
    assert text.startswith(f"The cache is {cache}\n")
    assert "--cache-limit" in text


def test_the_way_to_free_it_is_a_command_to_copy(tmp_path):
    folder = tmp_path / "my cache"
    put(folder / "images" / KEY / "images.npy")
    text = shown(look_at_cache(folder))
    assert f"python -m studies cache --clear --cache-dir '{folder}'\n" in text


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_empty_or_missing_cache_says_so_and_is_left_so(tmp_path, is_there, free):
    folder = tmp_path / "cache"
    if is_there:
        folder.mkdir()
    text = shown(look_at_cache(folder, free=free))
    assert "It is empty." in text and "what" not in text
    assert ("Freed 0 B." in text) is free
    assert folder.exists() is is_there
    assert not is_there or list(folder.iterdir()) == []


def test_clearing_says_how_much_was_freed_and_leaves_nothing(cache):
    found = look_at_cache(cache, free=True)
    assert found["freed_bytes"] == 2_000_500
    assert found["kinds"] == look_at_cache(cache)["kinds"] == []
    assert "Freed 2.0 MB." in shown(found) and "It is empty." in shown(found)


def test_what_is_left_after_clearing_is_shown_with_the_reason(cache):
    put(cache / "activations" / f".{KEY}-ab" / "rows.npy", 700, UNFINISHED_SECONDS / 2)
    text = shown(look_at_cache(cache, free=True))
    assert rows(text)["all"] == ["1", "700 B"]
    assert "What is left may be being written" in text and "--clear" not in text


def test_json_has_folder_limit_kinds_and_what_was_freed(cache, capsys):
    line = ["cache", "--cache-dir", str(cache), "--json"]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(cache) and found["freed_bytes"] is None
    assert found["limit_bytes"] > 0
    assert [(kind["name"], kind["num_entries"], kind["num_bytes"]) for kind in found["kinds"]] == [
        ("images", 1, 2_000_000),
        ("activations", 2, 500),
    ]
    assert all(abs(kind["last_used"] - time.time()) < 60 for kind in found["kinds"])
    assert main([*line, "--clear"]) == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == 2_000_500


def test_without_a_folder_it_is_the_one_that_run_takes(cache, monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(cache))
    assert look_at_cache(None)["kinds"] == look_at_cache(cache)["kinds"] != []


def test_what_a_study_keeps_is_all_known_and_freed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache"
    given = [*RUN.split(), "--epochs", "1", "--strategies", "feature_extraction"]
    assert main([*given, "--cache-dir", str(folder)]) == 0
    kept = [kind["name"] for kind in look_at_cache(folder)["kinds"]]
    assert {"images", "facts", "activations"} <= set(kept)
    assert {path.name for path in folder.iterdir()} - {"locks"} == set(kept)
    look_at_cache(folder, free=True)
    left = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("module", ["studies.terminal.cache", "transfer.cache"])
def test_looking_does_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
