"""Train given configurations with given seeds, each once, as trials of a study beside the search.

Knows how such trainings are handed out, resumed and shared between processes; not why these
configurations, nor what follows from the results.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from search_spaces import SearchSpace
from studies.database.faults import kills_device, why_stop_repeats
from studies.database.owners import fail_orphans, hand_out_lock
from studies.database.trials import CANDIDATE, SEED, TrialRecord, read_trials, write_claim
from studies.errors import StudyFailedError
from studies.search.suggest import Handout, fixed_sampler, suggest
from studies.search.objective import Objective
from studies.search.worker import Workplace

POLL_SECONDS = 0.5
MOST = 2**32 - 1


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
    workplace: Workplace,
    study: optuna.Study,
    repeats: Sequence[Repeat],
    objective: Callable[[int], Objective],
    *,
    retry_failed: bool = False,
) -> list[TrialRecord]:
    """Run those that are not done yet, together with other processes that do the same.

    Args:
        objective: the one that trains with a seed.
        retry_failed: run those that have failed before this call once more, with the same seed.

    Returns:
        All trials of ``study`` that were made from the data and by the settings of ``workplace``.

    Raises:
        StudyFailedError: a training has left the device unusable.
        Interrupted: a signal came; what is finished is stored.
    """
    storage, progress = workplace.storage, workplace.progress
    metric = workplace.prepared.settings.metric
    records = _made_here(workplace, read_trials(study))
    others = [r for r in records if r.counts and not any(repeat.is_of(r) for repeat in repeats)]
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
    while True:
        workplace.signals.check()
        with hand_out_lock(storage):
            every = read_trials(study, records)
            if fail_orphans(storage, study, every, workplace.worker):
                every = read_trials(study, records)
            records = _made_here(workplace, every)
            standing = [r for r in records if r.number not in void]
            taken = [r for r in standing if r.counts or r.state == "RUNNING"]
            left = [repeat for repeat in repeats if not any(map(repeat.is_of, taken))]
            handout = None
            if left:
                handout = _hand_out(study, left[0], workplace, len(taken))
        if handout is None:
            if all(r.state != "RUNNING" for r in taken if any(p.is_of(r) for p in repeats)):
                return records
            time.sleep(POLL_SECONDS)  # Others are at it.
            continue
        objective(left[0].seed).run(handout)
        records = _made_here(workplace, read_trials(study, records))
        done = next(r for r in records if r.number == handout.trial.number)
        progress.trial_finished(done, records)
        stop = why_stop_repeats(done)
        if stop is not None:
            raise StudyFailedError(f"{stop} Mend the cause; `confirm` then trains it again.")
        workplace.publisher.publish_if_due()


def _failed(repeat: Repeat, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The failed trainings of a repeat, if none is complete."""
    mine = [r for r in records if r.counts and repeat.is_of(r)]
    return mine if all(r.state == "FAIL" for r in mine) else []


def _made_here(workplace: Workplace, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that were trained on these data, from these weights and by these settings.

    Who has only just been handed a trial has stored neither.
    """
    settings = workplace.prepared.settings
    made_by = {
        "epochs": settings.epochs,
        "patience": settings.patience,
        "metric": settings.metric,
        "choose_by": settings.choose_by,
    }

    def is_made_here(record: TrialRecord) -> bool:
        return not record.config or (
            made_by.items() <= record.config.items()
            and record.fingerprints in ({}, workplace.fingerprints)
        )

    return [record for record in records if is_made_here(record)]


def _hand_out(study: optuna.Study, repeat: Repeat, workplace: Workplace, number: int) -> Handout:
    stored = {**repeat.configuration, CANDIDATE: repeat.candidate, SEED: repeat.seed}
    study.sampler = fixed_sampler(stored, repeat.seed)
    trial = study.ask()
    write_claim(trial, worker=workplace.worker, logical_number=number)
    for name in (CANDIDATE, SEED):
        trial.suggest_int(name, 0, MOST)
    fields = suggest(trial, _space_of(workplace))
    return Handout(trial=trial, logical_number=number, fields=fields, peers=(), duplicate_of=None)


def _space_of(workplace: Workplace) -> SearchSpace:
    return workplace.prepared.space
