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
from studies.handout import Handout, fixed_sampler, suggest
from studies.objective import Objective
from studies.records import CANDIDATE, SEED, TrialRecord, read_trials, write_claim
from studies.workers import fail_orphans, hand_out_lock
from studies.workplace import Workplace

POLL_SECONDS = 0.5
MOST = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A training to be done: ``configuration`` by database key, of trial ``candidate``."""

    candidate: int
    configuration: Mapping[str, Any]
    seed: int

    def is_of(self, record: TrialRecord) -> bool:
        """Whether ``record`` is this training."""
        params = record.params
        return (params.get(CANDIDATE), params.get(SEED)) == (self.candidate, self.seed)


def run_repeats(
    workplace: Workplace,
    study: optuna.Study,
    repeats: Sequence[Repeat],
    objective: Callable[[int], Objective],
) -> list[TrialRecord]:
    """Run those that are not done yet, together with other processes that do the same.

    Args:
        objective: the one that trains with a seed.

    Returns:
        All trials of ``study``.

    Raises:
        Interrupted: a signal came; what is finished is stored.
    """
    storage, progress = workplace.storage, workplace.progress
    metric = workplace.prepared.settings.metric
    records = read_trials(study)
    others = [r for r in records if r.counts and not any(repeat.is_of(r) for repeat in repeats)]
    progress.study(study.study_name, metric, len(repeats) + len(others), records)
    while True:
        workplace.signals.check()
        with hand_out_lock(storage):
            records = read_trials(study, records)
            if fail_orphans(storage, study, records, workplace.worker):
                records = read_trials(study, records)
            taken = [r for r in records if r.counts or r.state == "RUNNING"]
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
        records = read_trials(study, records)
        done = next(r for r in records if r.number == handout.trial.number)
        progress.trial_finished(done, records)
        workplace.publisher.publish_if_due()


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
