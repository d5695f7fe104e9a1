"""Create or resume a study and run its trials to their total. Knows only the order of things."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import optuna
from optuna.exceptions import ExperimentalWarning

from studies.comparison import interim_verdict
from studies.data_card import store_card
from studies.errors import StudyFailedError, UserError
from studies.handout import Handout, Plan, hand_out, num_probes, remaining, room
from studies.objective import Objective
from studies.preparation import Prepared, find_source, prepare, study_name
from studies.progress import Progress
from studies.records import TrialRecord, count_states, read_trials
from studies.settings import StudyOptions
from studies.signals import StopSignals
from studies.storage import (
    StudyStorage,
    check_place,
    has_database,
    load_study,
    open_storage,
    study_names,
)
from studies.study_record import (
    StudyRecord,
    add_decoding_seconds,
    add_seconds_between_trials,
    read_study,
    write_identity,
    write_later_check,
    write_totals,
)
from studies.workers import fail_orphans, hand_out_lock, owner_lock
from transfer.activations import Activations
from transfer.device import describe_device, versions

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A study at the end of `run`: ``num_new`` trials were added by this call."""

    name: str
    storage: StudyStorage
    study: StudyRecord
    records: Sequence[TrialRecord]
    num_new: int
    seconds: float
    note: str | None

    @property
    def metric(self) -> str:
        return str(self.study.settings["metric"])

    @property
    def num_val(self) -> int:
        return sum(self.study.identity["data"]["counts"]["val"].values())


def run_study(
    options: StudyOptions,
    progress: Progress,
    signals: StopSignals,
    on_named: Callable[[str], None] = lambda name: None,
) -> RunSummary:
    """Run the study that ``options`` describe, or go on with it.

    Args:
        on_named: told the study's name as soon as it is known, for the message after Ctrl-C.

    Raises:
        UserError, ValueError: something asked for is wrong, out of reach or different from before.
        StudyFailedError: trials ran and none is complete.
        Interrupted: a signal came; what is finished is stored.
    """
    started = perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with signals.interruptible():
        name, stored = _look_up(options)
        source = find_source(options, stored)
        if name is None:
            name = study_name(options, source)
            stored = _stored(options, name)
        on_named(name)
        prepared = prepare(options, source, stored, progress)
    storage = open_storage(options.storage)
    study = _create_or_load(storage, prepared)
    before = len([r for r in read_trials(study) if r.counts])
    between = _BetweenTrials()
    try:
        note = _work(storage, study, prepared, progress, signals, between)
    finally:
        add_seconds_between_trials(study, between.seconds)
    records = read_trials(study)
    record = read_study(study)
    assert record is not None
    counts = count_states(records)
    if counts["complete"] == 0:
        raise StudyFailedError(_no_result(name, records))
    return RunSummary(
        name=name,
        storage=storage,
        study=record,
        records=records,
        num_new=len([r for r in records if r.counts]) - before,
        seconds=perf_counter() - started,
        note=note,
    )


class _BetweenTrials:
    """Seconds that trials take beyond what they have measured themselves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def started(self) -> None:
        """A trial is about to be handed out."""
        self._started = perf_counter()

    def ended(self, seconds_of_trial: float) -> None:
        """All of it is stored, and these seconds of it are accounted for."""
        self.seconds += perf_counter() - self._started - seconds_of_trial


def _look_up(options: StudyOptions) -> tuple[str | None, StudyRecord | None]:
    """The study's name and record where both are known before its data are looked at."""
    if options.name is None:
        return None, None
    return options.name, _stored(options, options.name)


def _stored(options: StudyOptions, name: str) -> StudyRecord | None:
    check_place(options.storage)
    if not has_database(options.storage):
        return None  # It is created when everything else is known to be right.
    # Not read-only: a process that is creating it is waited for, a schema cut short is completed.
    storage = open_storage(options.storage)
    if name not in study_names(storage):
        return None
    return read_study(load_study(storage, name))


def _create_or_load(storage: StudyStorage, prepared: Prepared) -> optuna.Study:
    settings = prepared.settings
    with hand_out_lock(storage):
        study = optuna.create_study(
            storage=storage.database,
            study_name=settings.name,
            direction="minimize" if settings.metric == "loss" else "maximize",
            load_if_exists=True,
        )
        stored = read_study(study)
        if stored is None:
            _name_metric(study, settings.metric)
            store_card(storage, study, prepared.checked)
            write_identity(study, prepared.identity)
        elif stored.identity != prepared.identity:
            raise UserError(f"Study '{settings.name}' was created by another process just now.")
        elif stored.data_check is None:
            write_later_check(study, prepared.checked.record())
        write_totals(study, settings.trials, settings.timeout_seconds)
        add_decoding_seconds(study, prepared.decoding_seconds)
    return study


def _name_metric(study: optuna.Study, metric: str) -> None:
    """Let the dashboard call the value by the metric's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([metric])


def _work(
    storage: StudyStorage,
    study: optuna.Study,
    prepared: Prepared,
    progress: Progress,
    signals: StopSignals,
    between: "_BetweenTrials",
) -> str | None:
    """Run trials until the total is reached; returns why it ended earlier, if it did."""
    settings = prepared.settings
    activations = Activations(
        data=prepared.data,
        weights=prepared.weights,
        cache_dir=prepared.cache_dir,
        device=prepared.device,
        limit_bytes=prepared.cache_limit,
        boundaries={name: prepared.space.boundaries(name) for name in prepared.space.backbones},
        on_progress=progress.work,
    )
    plan = Plan(
        space=prepared.space,
        opening=prepared.identity["opening"],
        seed=settings.seed,
        sampler=settings.sampler,
    )
    probes = num_probes(plan.opening)
    num_val = len(prepared.data.val)
    progress.study(settings.name, settings.metric, settings.trials, read_trials(study))
    with owner_lock(storage) as worker:
        objective = Objective(
            storage=storage,
            study=study,
            settings=settings,
            activations=activations,
            provenance=_provenance(prepared, worker),
            precision=prepared.identity.get("precision", {}),
            progress=progress,
            signals=signals,
        )
        while True:
            signals.check()
            between.started()
            with hand_out_lock(storage):
                records = read_trials(study)
                if fail_orphans(storage, study, records, worker):
                    records = read_trials(study)
                handout = _next(study, plan, records, prepared, worker)
            if isinstance(handout, str):
                return handout or None
            if handout is None:
                time.sleep(POLL_SECONDS)
                continue
            objective.run(handout)
            records = read_trials(study)
            done = next(r for r in records if r.number == handout.trial.number)
            between.ended(done.timing.get("total", 0.0))
            progress.trial_finished(done, records)
            if handout.logical_number == probes - 1:
                verdict = interim_verdict(records, settings.metric, num_val)
                progress.message(verdict or "No probe is complete yet.")


def _next(
    study: optuna.Study,
    plan: Plan,
    records: Sequence[TrialRecord],
    prepared: Prepared,
    worker: str,
) -> Handout | str | None:
    """The next trial; why there is none ("" for the total); None while other workers are busy."""
    settings = prepared.settings
    missing, running = room(records, settings.trials)
    if missing == 0:
        return None if running else ""
    spent = sum(r.seconds or 0.0 for r in records if r.counts)
    if settings.timeout_seconds is not None and spent >= settings.timeout_seconds:
        return f"The time limit of {settings.timeout_seconds:g} s is reached."
    if remaining(plan.space, records) == []:
        return None if running else "Every configuration of the space has been tried."
    return hand_out(study, plan, records, worker)


def _provenance(prepared: Prepared, worker: str) -> dict[str, object]:
    data = prepared.data
    return {
        "versions": {**versions(), "optuna": optuna.__version__},
        "device": describe_device(prepared.device),
        "threads": prepared.identity["threads"],
        "worker": worker,
        "fingerprints": {
            "data": data.fingerprint,
            "test": data.test_fingerprint,
            "weights": prepared.identity["weights"],
        },
    }


def _no_result(name: str, records: Sequence[TrialRecord]) -> str:
    counts = count_states(records)
    reasons = [r.reason for r in records if r.counts and r.state == "FAIL" and r.reason]
    last = f"; the last reason: {reasons[-1]}" if reasons else ""
    return (
        f"No trial of study '{name}' is complete: {counts['fail']} failed, "
        f"{counts['pruned']} pruned{last}."
    )
