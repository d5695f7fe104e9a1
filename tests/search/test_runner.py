"""Whole runs on a small phantom with random weights: totals, resuming, refusals, two at once."""

import json
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import optuna
import pytest

from studies.cli.search import main
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.trials import read_trials
from studies.search import worker as worker
from studies.search.objective import Objective
from studies.search.run import _next
from studies.terminal.progress import LineProgress
from transfer.training.train import _Run, train

SPACE = """
name = "tiny"
[backbone]
choices = ["resnet18"]
[strategy]
choices = ["feature_extraction", "fine_tuning"]
[learning_rate.feature_extraction]
low = 1e-4
high = 1e-1
log = true
[learning_rate.fine_tuning]
low = 1e-5
high = 1e-3
log = true
[batch_size]
choices = [16, 32]
[num_unfrozen_layers.fine_tuning]
low = 1
high = 1
[[baselines]]
strategy = "feature_extraction"
learning_rate = 1e-3
batch_size = 16
"""
FINITE = """
name = "finite"
[backbone]
choices = ["resnet18"]
[strategy]
choices = ["feature_extraction"]
[learning_rate]
choices = [1e-3, 1e-2]
[batch_size]
choices = [16, 32]
"""
DATA = "phantom:train=60,test=20,size=32"
RUN = (
    f"run --data {DATA} --space space.toml --weights random --epochs 2 --no-confirm --no-report "
    "--json"
).split()
KEYS = {
    "report",
    "study",
    "storage",
    "metric",
    "choose_by",
    "trials",
    "share",
    "best",
    "best_by_strategy",
    "seconds",
    "accounting",
    "data_check",
    "confirmed",
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all runs: they share decoded images and features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIES_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def furnish(home):
    (home / "space.toml").write_text(SPACE, encoding="utf-8")
    (home / "finite.toml").write_text(FINITE, encoding="utf-8")
    (home / "other.toml").write_text(SPACE.replace("1e-1", "1e-2"), encoding="utf-8")


@pytest.fixture
def home(tmp_path, monkeypatch):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a study of four trials; only what is refused is asked of it."""
    folder = tmp_path_factory.mktemp("made")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*RUN, "--trials", "4"]) == 0
    return folder


@pytest.fixture
def in_made(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def table():
    records = read_trials(load_study(open_existing("studies.db"), "phantom"))
    return [(r.number, r.logical_number, r.state, r.value, r.params) for r in records]


def run_json(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_run_prints_one_json_object_and_its_log_on_stderr(home, capsys):
    value, log = run_json(capsys, *RUN, "--trials", "4")
    assert set(value) == KEYS
    assert (value["study"], value["metric"]) == ("phantom", "accuracy")
    counts = value["trials"]
    assert sum(counts.values()) == 4 and counts["running"] == 0
    best = max(t["value"] for t in value["best_by_strategy"].values() if t)
    assert value["best"]["value"] == best
    assert set(value["best"]["params"]) == {
        "backbone",
        "strategy",
        "learning_rate",
        "batch_size",
        "num_unfrozen_layers",
    }
    assert sum(line.startswith("[") for line in log.splitlines()) == 4


@pytest.mark.slow
def test_the_same_again_adds_nothing_and_a_higher_total_adds_the_rest(home, capsys):
    run_json(capsys, *RUN, "--trials", "3")
    before = table()
    run_json(capsys, *RUN, "--trials", "3")
    assert table() == before
    value, _ = run_json(capsys, *RUN, "--trials", "5")
    assert sum(value["trials"].values()) == 5
    assert table()[:3] == before
    run_json(capsys, "run", "--name", "phantom", "--no-report", "--json")
    assert len(table()) == 5


@pytest.mark.slow
def test_a_study_is_the_same_in_one_go_and_in_two(home, capsys):
    run_json(capsys, *RUN, "--trials", "2", "--name", "phantom")
    run_json(capsys, "run", "--name", "phantom", "--trials", "6", "--no-report", "--json")
    in_two = table()
    (home / "studies.db").rename(home / "first.db")
    run_json(capsys, *RUN, "--trials", "6")
    assert table() == in_two


CHANGES = {
    "epochs": ("--epochs 3", "epochs (stored 2, asked for 3)"),
    "patience": ("--patience 1", "patience (stored 5, asked for 1)"),
    "metric": ("--metric auroc", "metric (stored accuracy, asked for auroc)"),
    "image size": ("--image-size 64", "image_size (stored 32, asked for 64)"),
    "seed": ("--seed 1", "seed (stored 0, asked for 1)"),
    "sampler": ("--sampler random", "sampler (stored tpe, asked for random)"),
    "pruner": ("--pruner none", "pruner (stored median, asked for none)"),
    "weights": ("--weights imagenet", "weights (stored random, asked for imagenet)"),
    "space": ("--space other.toml", "space (learning_rate feature_extraction)"),
    "backbones": ("--space space.toml --backbones resnet50", "space (backbone)"),
    "strategies": ("--space space.toml --strategies fine_tuning", "space (strategy)"),
    "training images": (
        "--data phantom:train=60,test=20,size=32,seed=5",
        "data (other training images, labels or groups)",
    ),
    "test images": ("--data phantom:train=60,test=30,size=32", "data (other test images"),
    "labels": ("--data phantom:train=60,test=20,size=32,label_noise=0.5", "data (other training"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_to_go_on_with_something_else_is_refused_with_what_differs(in_made, capsys, change):
    before = table()
    arguments, said = CHANGES[change]
    capsys.readouterr()
    assert main(["run", "--name", "phantom", "--trials", "6", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert said in err and "another --name" in err
    assert table() == before


def test_what_was_asked_for_before_may_be_asked_for_again(in_made, capsys):
    before = table()
    run_json(capsys, *RUN)
    assert table() == before


def test_another_name_is_another_study_in_the_same_database(home, capsys):
    run_json(capsys, *RUN, "--trials", "1")
    value, _ = run_json(capsys, *RUN, "--trials", "1", "--name", "second", "--seed", "1")
    assert value["study"] == "second"
    status, _ = run_json(capsys, "status", "--json")
    assert [study["study"] for study in status["studies"]] == ["phantom", "second"]


def test_a_finite_space_ends_when_it_is_exhausted(home, capsys):
    arguments = [*RUN[:-1], "--space", "finite.toml", "--trials", "50"]
    assert main(arguments) == 0
    assert "Every configuration of the space has been tried." in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["trials"].values()) == 4


def test_the_time_limit_ends_a_study_and_is_said(home, capsys):
    assert main([*RUN[:-1], "--trials", "50", "--timeout", "0.001"]) == 0
    assert "time limit" in capsys.readouterr().out
    assert len(table()) == 1


def test_a_study_whose_trials_all_fail_exits_with_1_and_the_reason(home, capsys, monkeypatch):
    def fail(self, epoch):
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr("transfer.training.train._Run.epoch", fail)
    assert main([*RUN, "--trials", "3"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("Error: ") and "3 failed" in last
    assert "RuntimeError: no kernel for this device" in last
    assert [state for _, _, state, _, _ in table()] == ["FAIL"] * 3


@pytest.fixture
def broken(monkeypatch):
    """A switch: while it holds a reason, every training fails for it."""
    reasons, epoch = [], _Run.epoch

    def fail(self, number):
        if reasons:
            raise RuntimeError(reasons[-1])
        return epoch(self, number)

    monkeypatch.setattr(_Run, "epoch", fail)
    return reasons


@pytest.mark.slow
def test_a_passing_fault_stops_a_study_and_retrying_makes_it_what_it_would_have_been(
    home, capsys, broken
):
    broken.append("no space left")
    assert main([*RUN, "--trials", "6"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Error: ") and "no space left" in last and "--retry-failed" in last
    assert [state for _, _, state, _, _ in table()] == ["FAIL"] * 5
    broken.clear()
    assert main([*RUN[:-1], "--trials", "6", "--retry-failed"]) == 0
    # Failures that were retried count no more, so that all six are of this call.
    assert "6 of 6 trials (6 new)" in " ".join(capsys.readouterr().out.split())
    value, _ = run_json(capsys, *RUN, "--trials", "6")
    assert sum(value["trials"].values()) == 6 and value["trials"]["fail"] == 0
    mended = [row[1:] for row in table()[5:]]
    (home / "studies.db").rename(home / "first.db")
    run_json(capsys, *RUN, "--trials", "6")
    assert mended == [row[1:] for row in table()]


def test_failures_that_find_no_room_in_the_total_are_told():
    done = SimpleNamespace(state="COMPLETE", counts=True, seconds=1.0)
    void = SimpleNamespace(state="FAIL", counts=False, seconds=1.0)
    prepared = SimpleNamespace(settings=SimpleNamespace(trials=1, timeout_seconds=None))
    said = _next(None, None, [done, void], prepared, "", failed=[void])
    assert "1 failed configuration again" in said and "raise --trials by 1" in said
    assert _next(None, None, [done, void], prepared, "", failed=[]) == ""


@pytest.mark.parametrize(("state", "said"), [("RUNNING", None), ("COMPLETE", "The time limit")])
def test_at_the_time_limit_nobody_confirms_while_another_worker_still_searches(state, said):
    done = SimpleNamespace(state="COMPLETE", counts=True, seconds=9.0)
    other = SimpleNamespace(state=state, counts=state == "COMPLETE", seconds=0.0)
    settings = SimpleNamespace(trials=5, timeout_seconds=5.0)
    found = _next(None, None, [done, other], SimpleNamespace(settings=settings), "", failed=[])
    assert found is None if said is None else found.startswith(said)


def test_the_shares_of_the_strategies_are_told(home, capsys):
    value, _ = run_json(capsys, *RUN, "--trials", "4", "--share", "trials")
    share = value["share"]
    assert share["of"] == "trials"
    assert {share[s]["trials"] for s in ("feature_extraction", "fine_tuning")} == {2}
    status, _ = run_json(capsys, "status", "phantom", "--json")
    assert status["share"] == share
    assert main([*RUN, "--share", "seconds"]) == 2
    assert "share (stored trials, asked for seconds)" in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_at_once_on_one_study_reach_exactly_the_total(home):
    command = [sys.executable, "-m", "studies", *RUN, "--trials", "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=200) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    for out, _ in outputs:
        counts = json.loads(out)["trials"]
        assert sum(counts.values()) == 7 and counts["running"] == 0
    assert sorted(logical for _, logical, *_ in table()) == list(range(7))


@pytest.mark.parametrize("belonging", ["trial", "attribute", "direction"])
def test_a_study_of_another_program_is_refused_and_left_as_it_is(home, capsys, belonging):
    storage = open_storage("sqlite:///studies.db")
    direction = "minimize" if belonging == "direction" else "maximize"
    theirs = optuna.create_study(storage=storage.database, study_name="mine", direction=direction)
    if belonging == "trial":
        theirs.add_trial(optuna.create_trial(value=0.5))
    elif belonging == "attribute":
        theirs.set_user_attr("note", "keep")
    before = theirs.user_attrs
    assert main([*RUN, "--name", "mine"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "'mine'" in err and "choose another --name" in err
    after = load_study(open_existing("sqlite:///studies.db"), "mine")
    assert after.user_attrs == before and after.metric_names is None
    assert len(after.trials) == (belonging == "trial")


@pytest.mark.parametrize("moment", ["training", "between trials"])
def test_a_study_that_is_deleted_while_it_runs_ends_with_one_line(
    home, capsys, monkeypatch, moment
):
    def delete():
        storage = open_existing("sqlite:///studies.db").database
        if "phantom" in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name="phantom", storage=open_storage("studies.db").database)

    def deleted_while(config, *given, **options):
        result = train(config, *given, **options)
        delete()
        return result

    if moment == "training":
        patched = partial(Objective, train=deleted_while)
        monkeypatch.setattr(worker, "Objective", patched)
    else:
        monkeypatch.setattr(LineProgress, "trial_finished", lambda *given: delete())
    assert main([*RUN, "--trials", "2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last == "Error: Study 'phantom' was deleted or renamed while it ran."
    assert "not up to date" not in err
