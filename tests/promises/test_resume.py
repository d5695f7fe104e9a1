"""kill -9, Ctrl-C and going on: end to end through the command line, in processes of their own."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.database.storage import load_study, open_existing
from studies.database.trials import TrialRecord, read_trials

SPACE = """
name = "tiny"
[backbone]
choices = ["resnet18", "mobilenet_v2"]
[strategy]
choices = ["feature_extraction", "fine_tuning"]
[learning_rate.feature_extraction]
low = 1e-3
high = 1e-1
log = true
[learning_rate.fine_tuning]
low = 1e-5
high = 1e-2
log = true
[batch_size]
choices = [16, 32]
[num_unfrozen_layers.fine_tuning]
low = 1
high = 2
[[baselines]]
strategy = "feature_extraction"
learning_rate = 1e-2
batch_size = 32
[[baselines]]
strategy = "fine_tuning"
learning_rate = 1e-3
batch_size = 32
depth_share = 0.1
"""
N_TRIALS = 16


def command(folder: Path, name: str = "study", n_trials: int = N_TRIALS) -> list[str]:
    (folder / "tiny.toml").write_text(SPACE)
    options = {
        "--name": name,
        "--data": "phantom:train=60,test=20,size=32",
        "--space": str(folder / "tiny.toml"),
        "--weights": "random",
        "--trials": str(n_trials),
        "--epochs": "5",
        "--storage": f"sqlite:///{folder / 'studies.db'}",
        "--cache-dir": str(folder / "cache"),
    }
    flat = [part for pair in options.items() for part in pair]
    return [sys.executable, "-m", "studies", "run", "--json", "--no-confirm", "--no-report", *flat]


def start(folder: Path, name: str = "study") -> subprocess.Popen[str]:
    # Threads are fixed when the study is created; one keeps two studies at once apart.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            command(folder, name),
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            env=environment,
        )


def records(folder: Path, name: str = "study") -> list[TrialRecord]:
    return read_trials(load_study(open_existing(str(folder / "studies.db")), name))


def table(folder: Path, name: str = "study") -> list[tuple[object, ...]]:
    """Configurations, states and values in the order in which they were handed out."""
    kept = [r for r in records(folder, name) if not r.is_interrupted]
    kept.sort(key=lambda r: (r.logical_number is None, r.logical_number))
    return [(r.logical_number, tuple(r.keyed_params.items()), r.state, r.value) for r in kept]


def wait_for_trials(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the log tells of the last of ``count`` trials."""
    while process.poll() is None:
        if f"[{count}/{N_TRIALS}]" in (folder / "study.log").read_text():
            return
        time.sleep(0.05)
    pytest.fail((folder / "study.log").read_text())


def wait_for_another_trial(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the log tells of a trial that it did not tell of, or the process ends."""
    log, told = folder / "study.log", re.compile(rf"\[\d+/{N_TRIALS}\]")
    before = len(told.findall(log.read_text()))
    while process.poll() is None and len(told.findall(log.read_text())) == before:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(folder).wait(timeout=240) == 0, (folder / "study.log").read_text()
    return table(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_killed_at_random_moments_ends_with_the_table_of_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: list[tuple[object, ...]]
) -> None:
    moments, num_kills = random.Random(0), 0
    while True:
        process = start(tmp_path)
        # Now and then while it starts; otherwise within the trial after one that it finished, so
        # that it gets on however slow the machine is.
        if num_kills % 3 != 2:
            wait_for_another_trial(tmp_path, process)
        try:
            process.wait(timeout=moments.uniform(0.0, 2.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            num_kills += 1
            continue
        assert process.returncode == 0, (tmp_path / "study.log").read_text()
        break
    assert num_kills >= 2
    assert not [r for r in records(tmp_path) if r.state == "RUNNING"]
    assert sum(r.counts for r in records(tmp_path)) == N_TRIALS
    assert table(tmp_path) == uninterrupted


@pytest.mark.slow
def test_a_killed_study_goes_on_at_once_and_leaves_nothing_running(
    tmp_path: Path, uninterrupted: list[tuple[object, ...]]
) -> None:
    process = start(tmp_path)
    wait_for_trials(tmp_path, 4, process)
    process.kill()
    process.wait()
    assert start(tmp_path).wait(timeout=240) == 0, (tmp_path / "study.log").read_text()
    assert {r.state for r in records(tmp_path)} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert table(tmp_path) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_study_says_how_to_go_on_and_leaves_its_trial_interrupted(
    tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    process = start(tmp_path)
    wait_for_trials(tmp_path, 3, process)
    process.send_signal(signum)
    process.send_signal(signum)
    assert process.wait(timeout=60) == code
    log = (tmp_path / "study.log").read_text()
    assert "Go on with: python -m studies run --name study" in log
    assert "Traceback" not in log
    assert not [r for r in records(tmp_path) if r.state == "RUNNING"]
    assert all(r.is_interrupted for r in records(tmp_path) if r.state == "FAIL")
