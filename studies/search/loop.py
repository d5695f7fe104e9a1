"""One loop for the search, for confirming and for controls: take, train, store, tell.

Several processes may be at one study: what comes next is decided under a lock that all of them
take. Knows how trainings are handed out, resumed and shared; not why these configurations, nor
what follows from the results.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import optuna

from studies.database.owners import fail_orphans, hand_out_lock
from studies.database.trials import (
    CANDIDATE,
    SEED,
    TrialRecord,
    kills_device,
    read_trials,
    why_stop_repeats,
    write_owner,
)
from studies.errors import StudyFailedError
from studies.search.objective import Objective
from studies.search.suggest import Suggestion, fixed_sampler, suggest
from studies.search.worker import Worker

POLL_SECONDS = 0.5
MOST = 2**32 - 1
Records = list[TrialRecord]


@dataclass
class Stopwatch:
    """Seconds that trials take beyond what they have measured themselves."""

    seconds: float = 0.0
    _started: float = field(default_factory=perf_counter)

    def start(self) -> None:
        """A trial is about to be handed out."""
        self._started = perf_counter()

    def stop(self, seconds_of_trial: float) -> None:
        """All of it is stored, and these seconds of it are accounted for."""
        self.seconds += perf_counter() - self._started - seconds_of_trial


def run_trials(
    worker: Worker,
    study: optuna.Study,
    next_trial: Callable[[Records], Suggestion | str | None],
    *,
    objective: Callable[[Suggestion], Objective],
    why_stop: Callable[[TrialRecord, Records], str | None],
    counted: Callable[[Records], Records] = list,
    on_finished: Callable[[Suggestion, Records], None] = lambda suggestion, records: None,
    between: Stopwatch | None = None,
) -> tuple[Records, str]:
    """Run trials one after the other, together with other processes that do the same.

    Args:
        next_trial: given the trials so far, under the lock: the next one; in words why there is
            none, "" where there is nothing to say; None while others are still at theirs.
        objective: what runs a trial.
        why_stop: given the trial that has ended, and all: why no other one may run, if so.
        counted: those of the study's trials that are meant.
        on_finished: told of every trial that has ended.
        between: takes the time between trials.

    Returns:
        The trials that are meant, and why there is no further one.

    Raises:
        StudyFailedError: ``why_stop`` had something to say.
        Interrupted: a signal came; what is finished is stored.
    """
    storage, between = worker.storage, between or Stopwatch()
    every: Records = []
    while True:
        worker.signals.check()
        between.start()
        with hand_out_lock(storage):
            every = read_trials(study, every)
            if fail_orphans(storage, study, every, worker.name):
                every = read_trials(study, every)
            suggestion = next_trial(counted(every))
        if isinstance(suggestion, str):
            return counted(every), suggestion
        if suggestion is None:
            time.sleep(POLL_SECONDS)  # Others are at it.
            continue
        objective(suggestion).run(suggestion)
        every = read_trials(study, every)
        done = next(record for record in every if record.number == suggestion.trial.number)
        worker.publisher.publish_if_due()
        between.stop(done.timing.get("total", 0.0))
        records = counted(every)
        worker.progress.trial_finished(done, records)
        stop = why_stop(done, records)
        if stop is not None:
            raise StudyFailedError(stop)
        on_finished(suggestion, records)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A training to be done: ``configuration`` by database key, of trial ``candidate``."""

    candidate: int
    configuration: Mapping[str, Any]
    seed: int

    def is_of(self, record: TrialRecord) -> bool:
        """Whether ``record`` is this training: of this configuration, with this seed."""
        wanted = {**self.configuration, CANDIDATE: self.candidate, SEED: self.seed}
        return wanted.items() <= record.keyed_params.items()


def run_repeats(
    worker: Worker,
    study: optuna.Study,
    repeats: Sequence[Repeat],
    objective: Callable[[int], Objective],
    *,
    retry_failed: bool = False,
) -> Records:
    """Train given configurations with given seeds, each once, those that are not done yet.

    Args:
        objective: the one that trains with a seed.
        retry_failed: run those that have failed before this call once more, with the same seed.

    Returns:
        All trials of ``study`` that were made from the data and by the settings of ``worker``.

    Raises:
        StudyFailedError: a training has left the device unusable.
        Interrupted: a signal came; what is finished is stored.
    """
    progress = worker.progress
    records = _made_here(worker, read_trials(study))
    others = [r for r in records if r.counts and not any(repeat.is_of(r) for repeat in repeats)]
    metric = worker.prepared.settings.metric
    progress.study(study.study_name, metric, len(repeats) + len(others), records)
    # What killed its device once says nothing of the configuration; twice, it may.
    failed = [
        record
        for repeat in repeats
        for mine in [_failed(repeat, records)]
        for record in mine
        if retry_failed or (len(mine) == 1 and kills_device(record.reason or ""))
    ]
    void = {record.number for record in failed}
    for record in failed:
        progress.message(
            f"Training again what failed ({record.reason}): trial {record.number} of "
            f"{study.study_name}, with the same seed {record.params[SEED]}."
        )

    def next_trial(records: Records) -> Suggestion | str | None:
        standing = [r for r in records if r.number not in void]
        taken = [r for r in standing if r.counts or r.state == "RUNNING"]
        left = [repeat for repeat in repeats if not any(map(repeat.is_of, taken))]
        if left:
            return _hand_out(worker, study, left[0], len(taken))
        ours = [r for r in taken if any(repeat.is_of(r) for repeat in repeats)]
        return None if any(r.state == "RUNNING" for r in ours) else ""

    def stop(done: TrialRecord, records: Records) -> str | None:
        why = why_stop_repeats(done)
        return why and f"{why} Mend the cause; `confirm` then trains it again."

    found, _ = run_trials(
        worker,
        study,
        next_trial,
        objective=lambda suggestion: objective(suggestion.trial.params[SEED]),
        why_stop=stop,
        counted=lambda records: _made_here(worker, records),
    )
    return found


def _failed(repeat: Repeat, records: Sequence[TrialRecord]) -> Records:
    """The failed trainings of a repeat, if none is complete."""
    mine = [r for r in records if r.counts and repeat.is_of(r)]
    return mine if all(r.state == "FAIL" for r in mine) else []


def _made_here(worker: Worker, records: Sequence[TrialRecord]) -> Records:
    """Those that were trained on these data, from these weights and by these settings.

    Who has only just been handed a trial has stored neither.
    """
    settings = worker.prepared.settings
    made_by = {
        "epochs": settings.epochs,
        "patience": settings.patience,
        "metric": settings.metric,
        "choose_by": settings.choose_by,
    }

    def is_made_here(record: TrialRecord) -> bool:
        return not record.config or (
            made_by.items() <= record.config.items()
            and record.fingerprints in ({}, worker.fingerprints)
        )

    return [record for record in records if is_made_here(record)]


def _hand_out(worker: Worker, study: optuna.Study, repeat: Repeat, number: int) -> Suggestion:
    stored = {**repeat.configuration, CANDIDATE: repeat.candidate, SEED: repeat.seed}
    study.sampler = fixed_sampler(stored, repeat.seed)
    trial = study.ask()
    write_owner(trial, worker=worker.name, logical_number=number)
    for name in (CANDIDATE, SEED):
        trial.suggest_int(name, 0, MOST)
    fields = suggest(trial, worker.prepared.space)
    return Suggestion(
        trial=trial, logical_number=number, fields=fields, peers=(), duplicate_of=None
    )
