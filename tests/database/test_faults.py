"""Failures that are no fault of the configurations: what stops a study, counts, and runs again."""

from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from studies.database.trials import (
    CANDIDATE,
    IN_A_ROW,
    INTERRUPTED,
    kills_device,
    read_trials,
    to_retry,
    why_stop,
    write_owner,
    write_reason,
)
from studies.search.suggest import fixed_sampler

FULL = "OSError: [Errno 28] No space left on device: '/tmp/{}/x.npz'"
LOST = "AcceleratorError: CUDA error: an illegal memory access was encountered"
EXTRACTION, TUNING = "feature_extraction", "fine_tuning"


class Bench:
    """A study whose trials end as they are told."""

    def __init__(self):
        self.storage = SimpleNamespace(database=InMemoryStorage())
        self.study = optuna.create_study(storage=self.storage.database, study_name="s")

    @property
    def records(self):
        return read_trials(self.study)

    def add(self, *reasons, strategy=EXTRACTION, number=None, rate=None, candidate=None):
        """Trials that fail for these reasons; None: one that is complete."""
        for reason in reasons:
            self.study.sampler = fixed_sampler({"strategy": strategy}, 0)
            trial = self.study.ask()
            logical_number = trial.number if number is None else number
            write_owner(trial, worker="host:1:ab", logical_number=logical_number)
            trial.suggest_categorical("strategy", [EXTRACTION, TUNING])
            rate = trial.number + 1.0 if rate is None or len(reasons) > 1 else rate
            trial.suggest_float("learning_rate", rate, rate)
            if candidate is not None:
                trial.suggest_int(CANDIDATE, candidate, candidate)
            if reason is None:
                self.study.tell(trial, 0.5)
            else:
                write_reason(self.storage, self.study, trial.number, reason)
                self.study.tell(trial, state=TrialState.FAIL)

    @property
    def stops(self):
        """After which trials a run would have stopped."""
        records = self.records
        return [r.number for r in records if why_stop(r, records[: r.number + 1])]

    @property
    def counted(self):
        return [r.number for r in self.records if r.counts]


@pytest.fixture
def bench():
    return Bench()


def test_three_equal_failures_in_a_row_stop_a_study_and_do_not_count(bench):
    bench.add(None, *(FULL.format(name) for name in "abc"))
    assert bench.stops == [3] and bench.counted == [0]
    said = why_stop(bench.records[3], bench.records)
    assert "3 trials of feature extraction" in said and "No space left" in said


@pytest.mark.parametrize(
    "reasons",
    [
        ["out of memory"] * 2,
        ["out of memory", "out of memory", None, "out of memory"],
        ["out of memory", "RuntimeError: a", "out of memory", "RuntimeError: a"],
        ["diverged at epoch 3"] * 4,
        ["diverged at epoch 3", "diverged at epoch 5", "diverged at epoch 1: accuracy is nan"],
        ["out of memory", "diverged at epoch 3", "out of memory", "out of memory"],
        [INTERRUPTED] * 4,
    ],
    ids=lambda reasons: ", ".join(map(str, reasons)),
)
def test_other_failures_stop_nothing_and_count(bench, reasons):
    bench.add(*reasons)
    assert bench.stops == []
    expected = [n for n, reason in enumerate(reasons) if reason != INTERRUPTED]
    assert bench.counted == expected


def test_a_row_is_one_strategys_whatever_the_other_does(bench):
    for _ in range(IN_A_ROW):
        bench.add(None)
        bench.add("out of memory", strategy=TUNING)
    assert bench.stops == [5] and bench.counted == [0, 2, 4]


def test_the_other_strategys_equal_failures_in_between_do_not_count_either(bench):
    for _ in range(IN_A_ROW):
        bench.add("out of memory")
        bench.add("out of memory", strategy=TUNING)
    assert bench.stops == [4, 5]
    assert set(bench.counted) <= {5} and 1 not in bench.counted


def test_an_interrupted_trial_does_not_part_a_row(bench):
    bench.add("out of memory", "out of memory", INTERRUPTED, "out of memory")
    assert bench.stops == [3]


def test_a_study_that_was_stopped_has_three_attempts_again(bench):
    bench.add(*["out of memory"] * 7)
    assert bench.stops == [2, 5] and bench.counted == []


@pytest.mark.parametrize(
    ("reason", "kills"),
    [
        (LOST, True),
        ("RuntimeError: CUDA error: device-side assert triggered", True),
        ("RuntimeError: CUDA error: unspecified launch failure", True),
        ("RuntimeError: CUDA error: out of memory", False),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`", False),
        ("out of memory", False),
        ("diverged at epoch 3", False),
        (FULL, False),
    ],
)
def test_one_error_that_kills_the_device_stops_at_once(bench, reason, kills):
    assert kills_device(reason) == kills
    bench.add(None, reason)
    assert bench.stops == ([1] if kills else [])
    assert bench.counted == ([0] if kills else [0, 1])


def test_every_failure_but_a_diverged_or_interrupted_one_may_run_again(bench):
    bench.add(None, "out of memory", "diverged at epoch 3", INTERRUPTED, LOST)
    assert [r.number for r in to_retry(bench.records)] == [1, 4]


def test_a_failure_that_ran_again_neither_counts_nor_runs_a_third_time(bench):
    bench.add(None, "out of memory")
    bench.add(None, number=1, rate=2.0)
    assert bench.counted == [0, 2] and to_retry(bench.records) == []


def test_a_retry_that_fails_takes_the_place_of_the_first_failure(bench):
    bench.add("out of memory")
    bench.add("RuntimeError: a", number=0, rate=1.0)
    assert bench.counted == [1]
    assert [r.number for r in to_retry(bench.records)] == [1]


def test_a_trial_of_the_same_number_and_another_configuration_is_no_retry(bench):
    bench.add("out of memory")
    bench.add(None, number=0, rate=7.0)
    assert bench.counted == [0, 1]


def test_repeats_over_seeds_are_not_judged_by_their_rows(bench):
    bench.add(*["out of memory"] * 4, candidate=3)
    assert bench.counted == [0, 1, 2, 3] and to_retry(bench.records) == []
    assert bench.stops == []


def test_records_that_were_read_before_are_marked_when_a_later_failure_makes_them_void(bench):
    bench.add("out of memory", "out of memory")
    known = bench.records
    assert [r.counts for r in known] == [True, True]
    bench.add("out of memory")
    again = read_trials(bench.study, known)
    assert [r.counts for r in again] == [False] * 3
    assert [replace(r, void=False) for r in again[:2]] == known
