"""Owners: a trial whose process is gone is failed, others are left; one hand-out at a time."""

import multiprocessing
import os
import socket
import time

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import Parameter, SearchSpace
from studies.database.owners import fail_orphans, hand_out_lock, owner_lock
from studies.database.storage import open_storage
from studies.database.trials import read_trials, write_owner
from studies.search.suggest import SearchPlan, remaining, suggest_next

NUM_WORKERS = 4
N_TRIALS = 24

SPACE = SearchSpace(
    name="tiny",
    depths={"resnet18": 9},
    parameters=(
        Parameter(name="backbone", choices=("resnet18",)),
        Parameter(name="strategy", choices=("feature_extraction",)),
        Parameter(name="learning_rate", low=1e-4, high=1e-1, log=True),
        Parameter(name="batch_size", choices=(16, 32)),
    ),
)
PLAN = SearchPlan(space=SPACE, opening=[], seed=0, sampler="random")


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'studies.db'}")


@pytest.fixture
def study(storage):
    return optuna.create_study(storage=storage.database, study_name="s")


def _begin_trial(text, ready):
    """A worker with a running trial, until it is killed."""
    storage = open_storage(text)
    study = optuna.load_study(study_name="s", storage=storage.database)
    with owner_lock(storage) as worker:
        write_owner(study.ask(), worker=worker, logical_number=0)
        ready.set()
        time.sleep(600)


@pytest.fixture
def process(study, storage):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_begin_trial, args=(storage.url, ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def state_and_reason(study):
    (record,) = read_trials(study)
    return record.state, record.reason


@pytest.mark.parametrize("worker", [None, "host-that-asks:1:ab"])
def test_a_trial_is_failed_once_its_process_is_killed_and_not_before(
    study, storage, process, worker
):
    assert fail_orphans(storage, study, read_trials(study), worker) == []
    assert state_and_reason(study) == ("RUNNING", None)
    process.kill()
    process.join()
    assert fail_orphans(storage, study, read_trials(study), worker) == [0]
    assert state_and_reason(study) == ("FAIL", "interrupted")
    assert fail_orphans(storage, study, read_trials(study), worker) == []


@pytest.mark.parametrize(
    ("owner", "failed"),
    [
        (f"{socket.gethostname()}:1:dead", [0]),
        ("another-host:1:dead", []),
        (None, [0]),
    ],
    ids=["of this host and gone", "of another host", "without an owner"],
)
def test_running_trial(study, storage, owner, failed):
    trial = study.ask()
    if owner is not None:
        write_owner(trial, worker=owner, logical_number=0)
    with owner_lock(storage) as worker:
        assert fail_orphans(storage, study, read_trials(study), worker) == failed
    assert state_and_reason(study) == (("FAIL", "interrupted") if failed else ("RUNNING", None))


def test_a_worker_leaves_its_own_trial_and_that_of_another_one_alive(study, storage):
    with owner_lock(storage) as worker, owner_lock(storage) as other:
        for number, owner in enumerate((worker, other)):
            write_owner(study.ask(), worker=owner, logical_number=number)
        assert fail_orphans(storage, study, read_trials(study), worker) == []


def test_finished_trials_are_never_touched(study, storage):
    trial = study.ask()
    write_owner(trial, worker=f"{socket.gethostname()}:1:dead", logical_number=0)
    study.tell(trial, state=TrialState.PRUNED)
    assert fail_orphans(storage, study, read_trials(study), None) == []
    assert state_and_reason(study) == ("PRUNED", None)


def test_a_worker_is_named_after_host_and_process_and_leaves_no_lock_behind(storage):
    with owner_lock(storage) as worker, owner_lock(storage) as other:
        assert worker.split(":")[:2] == [socket.gethostname(), str(os.getpid())]
        assert worker != other
    assert list(storage.locks.glob(f"{socket.gethostname()}*")) == []


def _run_trials(text, barrier):
    storage = open_storage(text)
    study = optuna.load_study(study_name="s", storage=storage.database)
    with owner_lock(storage) as worker:
        barrier.wait()
        while True:
            with hand_out_lock(storage):
                records = read_trials(study)
                missing, running = remaining(records, N_TRIALS)
                suggestion = suggest_next(study, PLAN, records, worker) if missing else None
            if suggestion is not None:
                time.sleep(0.1)  # Trains, while the others have the lock.
                study.tell(suggestion.trial, 1.0)
            elif not running:
                return


def test_four_processes_hand_every_logical_number_out_exactly_once(study, storage):
    context = multiprocessing.get_context("spawn")
    arguments = (storage.url, context.Barrier(NUM_WORKERS))
    processes = [context.Process(target=_run_trials, args=arguments) for _ in range(NUM_WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * NUM_WORKERS
    records = read_trials(study)
    assert sorted(r.logical_number for r in records) == list(range(N_TRIALS))
    assert len({r.worker for r in records}) > 1
