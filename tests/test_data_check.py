"""A study is refused for what spoils it, with the ways out; what is allowed is never forgotten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from paths import SHARED
from phantom_folders import write_folder
from PIL import Image

from studies.cli.search import main
from studies.data_card import FINDINGS, SAMPLES
from studies.database.storage import load_study, open_existing
from studies.database.study import read_data_card

SHARED_DATA = SHARED / "data"
needs_shared = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no folder {SHARED_DATA}")
ONE_TRIAL = "run --weights random --backbones resnet18 --strategies feature_extraction --epochs 1"
RUN = [*ONE_TRIAL.split(), "--no-confirm", "--no-report"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def leaking(home):
    """A folder with two training images in the test split as well, and a broken one."""
    write_folder(home / "images", "phantom:train=60,test=30,size=32")
    for i, path in enumerate(sorted((home / "images/train/NORMAL").iterdir())[:2]):
        shutil.copy(path, home / f"images/test/NORMAL/copy{i}.png")
    return home / "images"


def break_one(folder, split="train"):
    path = sorted((folder / split / "OPACITY").iterdir())[0]
    path.write_bytes(path.read_bytes()[:80])
    return f"{split}/OPACITY/{path.name}"


def run(capsys, folder, *flags, trials=1):
    """The exit code, and what was printed on stdout (JSON) and on stderr."""
    code = main([*RUN, "--data", str(folder), "--trials", str(trials), "--json", *flags])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_a_leak_is_refused_with_the_pairs_and_the_ways_out(leaking, capsys):
    code, found, err = run(capsys, leaking)
    assert code == 2 and found["refused"]
    (error,) = [f for f in found["findings"] if f["level"] == "error"]
    assert (error["kind"], error["count"], len(error["images"])) == ("copies_across_splits", 2, 2)
    assert "copy0.png" in err and "Error: The data are refused. 2 images stand in both" in err
    assert "--drop-duplicates" in err and "--allow-leakage" in err
    assert not Path("studies.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "num_test"), [("--allow-leakage", 32), ("--drop-duplicates", 30)]
)
def test_a_leak_that_is_allowed_stands_in_every_later_output(leaking, capsys, flag, num_test):
    code, summary, err = run(capsys, leaking, flag)
    assert code == 0, err
    (allowed,) = summary["data_check"]["allowed"]
    assert allowed.startswith(f"{flag}, as 2 images stand in both train and test")
    assert f"With {flag}: 2 images" in err
    left_out = summary["data_check"]["left_out"]["copies"]
    assert left_out == ({"test": 2} if flag == "--drop-duplicates" else {})
    main(["status", "images", "--json"])
    assert json.loads(capsys.readouterr().out)["data_check"] == summary["data_check"]
    for command in (["status", "images"], [*RUN, "--data", str(leaking), "--trials", "1"]):
        assert main(command) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"Went on with {flag}, as 2 images stand in both train and test" in shown
        told = "Left out as copies: 2 of test; the test set is not the one that was brought."
        assert (told in shown) == (flag == "--drop-duplicates")
    study = load_study(open_existing("sqlite:///studies.db"), "images")
    assert sum(read_data_card(study)["counts"]["test"].values()) == num_test


@pytest.mark.slow
def test_going_on_takes_what_was_allowed_and_no_more(leaking, capsys):
    assert run(capsys, leaking, "--drop-duplicates")[0] == 0
    assert run(capsys, leaking, trials=2)[0] == 0
    code, _, err = run(capsys, leaking, "--skip-unreadable", trials=3)
    assert code == 2 and "without --skip-unreadable" in err


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_unreadable_image_is_refused_or_left_out(leaking, capsys, split):
    name = break_one(leaking, split)
    code, found, err = run(capsys, leaking, "--allow-leakage")
    assert code == 2 and name in err and "--skip-unreadable" in err
    errors = [f for f in found["findings"] if f["kind"] == "unreadable"]
    assert [image["name"] for f in errors for (image,) in f["images"]] == [name]
    code, summary, err = run(capsys, leaking, "--allow-leakage", "--skip-unreadable")
    assert code == 0, err
    assert summary["data_check"]["left_out"]["unreadable"] == {split: 1}
    assert len(summary["data_check"]["allowed"]) == 2


def test_allowances_may_come_from_a_file(leaking, home, capsys):
    (home / "study.toml").write_text("allow_leakage = true\n")
    assert run(capsys, leaking, "--config", "study.toml")[0] == 0


def test_check_shows_everything_and_ends_with_2_for_an_error(leaking, capsys):
    assert main(["data", str(leaking), "--check"]) == 2
    out, err = capsys.readouterr()
    assert "Error: 2 images stand in both train and test" in out and "1 error, " in out
    assert err.startswith("Error: The data are refused.")
    assert main(["data", str(leaking), "--check", "--drop-duplicates"]) == 0
    out, err = capsys.readouterr()
    assert "With --drop-duplicates: 2 images" in out and err == ""
    assert "Left out as copies: 2 of test" in out


def test_check_of_clean_data_says_so(home, capsys):
    assert main(["data", "phantom", "--check"]) == 0
    assert capsys.readouterr().out == "700 images checked: nothing found.\n"


def test_ten_pairs_are_shown_and_all_of_them_with_json(home, capsys):
    write_folder(home / "images", "phantom:train=60,test=30,size=32")
    for i, path in enumerate(sorted((home / "images/train/NORMAL").iterdir())[:13]):
        shutil.copy(path, home / f"images/test/NORMAL/copy{i:02d}.png")
    main(["data", "images", "--check"])
    out = capsys.readouterr().out
    assert out.count("/copy") == 10 and "and 3 more (all of them with --json)" in out
    main(["data", "images", "--check", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    (error,) = [f for f in findings if f["level"] == "error"]
    assert len(error["images"]) == 13


def test_names_with_markup_are_shown_as_they_are(leaking, capsys):
    (leaking / "test/NORMAL/copy0.png").rename(leaking / "test/NORMAL/[red]x.png")
    main(["data", str(leaking), "--check"])
    assert "[red]x.png" in capsys.readouterr().out


def test_the_card_of_the_data_is_stored_with_the_study(leaking, capsys):
    assert run(capsys, leaking, "--drop-duplicates")[0] == 0
    storage = open_existing("sqlite:///studies.db")
    card = read_data_card(load_study(storage, "images"))
    assert card["counts"]["train"]["NORMAL"] + card["counts"]["val"]["NORMAL"] == 30
    assert card["findings"][0]["kind"] == "copies_across_splits"
    assert len(card["fingerprint"]) == len(card["test_fingerprint"]) == 64
    with storage.artifacts.open_reader(card["artifacts"][SAMPLES]) as reader:
        sheet = Image.open(reader)
        assert sheet.format == "PNG" and np.asarray(sheet).std() > 0
    with storage.artifacts.open_reader(card["artifacts"][FINDINGS]) as reader:
        assert json.load(reader)["findings"][0]["count"] == 2


def test_data_shows_findings_in_short_and_refuses_what_cannot_be_read(leaking, capsys):
    assert main(["data", str(leaking)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 images stand in both train and test" in shown
    assert "no, it will be refused: 2 images stand" in shown
    name = break_one(leaking)
    assert main(["data", str(leaking)]) == 2
    assert name in capsys.readouterr().err
    assert main(["data", str(leaking), "--skip-unreadable"]) == 0
    assert "--skip-unreadable" in capsys.readouterr().out  # in the command that `run` needs


@pytest.mark.slow
@needs_shared
def test_pneumoniamnist_is_refused_with_its_eight_images_in_train_and_val(home, capsys):
    file = str(SHARED_DATA / "pneumoniamnist.npz")
    assert main(["data", file, "--check", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    (error,) = [f for f in found["findings"] if f["level"] == "error"]
    assert (error["splits"], error["count"]) == (["train", "val"], 8)
    for flag, num_val in (("--allow-leakage", 524), ("--drop-duplicates", 516)):
        assert main(["data", file, "--check", "--json", flag]) == 0
        counts = json.loads(capsys.readouterr().out)["counts"]
        assert sum(counts["val"].values()) == num_val
        assert sum(counts["test"].values()) == 624


@pytest.mark.slow
@needs_shared
def test_the_x_rays_are_refused_for_subjects_in_both_folders_and_warned_of_without(home, capsys):
    folder = str(SHARED_DATA / "chest_xray")
    assert main(["data", folder, "--check", "--json", "--group-pattern", r"person(\d+)"]) == 2
    out, err = capsys.readouterr()
    (error,) = json.loads(out)["findings"]
    assert error["count"] == len(error["groups"]) == 42
    assert "Names may be reused across folders" in err and "--allow-leakage" in err
    assert main(["data", folder, "--check", "--json"]) == 0
    stems, pairs = json.loads(capsys.readouterr().out)["findings"]
    assert (pairs["kind"], pairs["same_picture"]) == ("near_duplicates_across_splits", 0)
    assert stems["kind"] == "shared_stems" and stems["subjects_across_splits"] == 42
    assert stems["group_pattern"].startswith(r"^(person\d+|")


def test_a_class_of_which_no_file_can_be_read_is_refused_with_its_files(leaking, capsys):
    for path in (leaking / "train/OPACITY").iterdir():
        path.write_bytes(b"junk")
    code, found, err = run(capsys, leaking)
    assert code == 2 and found["refused"]
    (finding,) = found["findings"]
    assert len(finding["images"]) == finding["count"] == 30
    assert "Class 'OPACITY' has no image left in train" in err and "can't be read" in err


@pytest.mark.slow
def test_a_file_that_breaks_or_is_mended_later_is_named(leaking, capsys):
    assert run(capsys, leaking, "--allow-leakage")[0] == 0
    name = break_one(leaking)
    code, _, err = run(capsys, leaking, trials=2)
    assert code == 2 and f"1 can't be read any more: {name}" in err
    assert run(capsys, leaking, "--allow-leakage", "--skip-unreadable", "--name", "b")[0] == 0
    original = sorted((leaking / "train/OPACITY").iterdir())[1]
    shutil.copy(original, leaking / name)
    code, _, err = run(capsys, leaking, "--name", "b", trials=2)
    assert code == 2 and f"1 could not be read then: {name}" in err


def test_names_that_a_terminal_cannot_show_are_escaped(leaking, capsys):
    (leaking / "test/NORMAL/copy0.png").rename(leaking / "test/NORMAL/:warning:\x1b[2J\n.png")
    main(["data", str(leaking), "--check"])
    assert ":warning:\\x1b[2J\\n.png" in capsys.readouterr().out
