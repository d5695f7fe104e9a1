"""A study that runs in two processes never feels a dashboard that is looked at all the time."""

import os
import subprocess
import sys
import time

import pytest
from bundles import SPACE
from dashboards import ask, running

from studies.database.storage import load_study, open_existing


@pytest.mark.slow
@pytest.mark.parametrize("read_only", [False, True])
def test_two_workers_never_meet_a_lock_while_it_is_polled(tmp_path, read_only):
    database = tmp_path / "studies.db"
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    command = (
        "run --name s --data phantom:train=60,test=20,size=32 --weights random --epochs 6 "
        f"--trials 40 --no-confirm --no-report --space {tmp_path / 'space.toml'} "
        f"--cache-dir {tmp_path / 'cache'} --storage {database}"
    ).split()
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    workers = []
    for log in logs:
        with log.open("w") as stderr:
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "studies", *command],
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            )
    answers = []
    try:
        end = time.monotonic() + 60
        while "trial 0" not in "".join(log.read_text() for log in logs):
            assert time.monotonic() < end, [log.read_text() for log in logs]
            time.sleep(0.1)
        with running(database, read_only=read_only) as server:
            paths = ("dashboard", "api/studies", "api/studies/1", "csv/1")
            while any(worker.poll() is None for worker in workers):
                answers += [(path, ask(server, path)[0]) for path in paths]
                time.sleep(1)
    finally:
        for worker in workers:
            worker.kill()
    said = "".join(log.read_text() for log in logs)
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert "lock" not in said.lower()
    assert len(answers) >= 12 and {status for _, status in answers} == {200}
    trials = load_study(open_existing(str(database)), "s").trials
    assert sum(trial.state.is_finished() for trial in trials) >= 40
