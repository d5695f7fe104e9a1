"""Create or resume a study and run its trials to their total. Knows only the order of things."""

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

import optuna

from studies.data_card import store_card
from studies.database.artifacts import best_epoch
from studies.database.ledger import openings, seal_sentence
from studies.database.owners import hand_out_lock
from studies.database.storage import (
    StudyStorage,
    check_place,
    create_study,
    has_database,
    latest_study,
    load_study,
    open_existing,
    open_storage,
    study_names,
)
from studies.database.study import (
    StudyRecord,
    add_decoding_seconds,
    add_seconds_between_trials,
    is_foreign,
    read_study,
    write_identity,
    write_places,
    write_totals,
)
from studies.database.trials import (
    WAY_OUT,
    TrialRecord,
    count_states,
    read_trials,
    to_retry,
    why_stop,
)
from studies.errors import StudyFailedError, UserError
from studies.results.comparison import ConfirmSummary, compare_on_validation, interim_verdict
from studies.results.controls import read_learned
from studies.results.study import RunSummary
from studies.search.confirm import check_resplit, confirm_study, declare_margin, remember_asked
from studies.search.controls import run_controls
from studies.search.loop import Stopwatch, run_trials
from studies.search.setup import Prepared, find_source, prepare, study_name
from studies.search.suggest import (
    SearchPlan,
    Suggestion,
    num_probes,
    remaining,
    suggest_next,
    whose_turn,
)
from studies.search.worker import Worker, open_worker
from studies.settings import StudyOptions
from studies.signals import StopSignals
from studies.statistics.clusters import images_words
from studies.watchers import NOWHERE, Faces, Progress


def run_study(
    options: StudyOptions,
    progress: Progress,
    signals: StopSignals,
    on_named: Callable[[str], None] = lambda name: None,
    faces: Faces = NOWHERE,
) -> RunSummary:
    """Run the study that ``options`` describe, or go on with it.

    Args:
        faces: how it is shown while it runs.
        on_named: told the study's name as soon as it is known, for the message after Ctrl-C.

    Raises:
        UserError, ValueError: something asked for is wrong, out of reach or different from before.
        StudyFailedError: trials ran and none is complete.
        Interrupted: a signal came; what is finished is stored.
    """
    started = perf_counter()
    prepared, storage, study = _opened(options, progress, signals, on_named)
    first_new = len(read_trials(study))
    with open_worker(storage, prepared, progress, signals, faces) as worker:
        between = Stopwatch()
        try:
            note = _work(worker, study, between, retry_failed=options.retry_failed)
        finally:
            add_seconds_between_trials(study, between.seconds)
        records = read_trials(study)
        if count_states(records)["complete"] == 0:
            raise StudyFailedError(_no_result(prepared.settings.name, records))
        verdict = None
        if options.confirm:
            verdict = _confirm(worker, options, records, retry_failed=options.retry_failed)
        record = read_study(study)
        assert record is not None
    return RunSummary(
        name=prepared.settings.name,
        storage=storage,
        study=record,
        records=records,
        num_new=len([r for r in records if r.counts and r.number >= first_new]),
        seconds=perf_counter() - started,
        note=note,
        seal=seal_sentence(openings(storage, record.identity["data"]["test_fingerprint"])),
        verdict=verdict,
        options=options,
    )


def confirm_stored(
    options: StudyOptions,
    progress: Progress,
    signals: StopSignals,
    on_named: Callable[[str], None] = lambda name: None,
    faces: Faces = NOWHERE,
) -> ConfirmSummary:
    """Confirm the best of a study that is there; without a name of the only or the latest one.

    A training over seeds that has failed is done once more, with its seed.

    Raises:
        UserError, ValueError: there is none, or something is different from before.
        StudyFailedError: no trial of it is complete.
        Interrupted: a signal came; what is finished is stored.
    """
    name = options.name or latest_study(open_existing(options.storage))
    options = options.model_copy(update={"name": name})
    if _stored(options, name) is None:
        raise UserError(f"Study '{name}' was not made by transfer-studies, or hardly begun.")
    prepared, storage, study = _opened(options, progress, signals, on_named)
    records = read_trials(study)
    if count_states(records)["complete"] == 0:
        raise StudyFailedError(_no_result(name, records))
    with open_worker(storage, prepared, progress, signals, faces) as worker:
        return _confirm(worker, options, records, retry_failed=True)


def _confirm(
    worker: Worker,
    options: StudyOptions,
    records: Sequence[TrialRecord],
    *,
    retry_failed: bool = False,
) -> ConfirmSummary:
    confirmed = confirm_study(worker, options, records, retry_failed=retry_failed)
    # By all seeds: with one of the recipes' nobody would know what seeds do to the difference.
    controls = run_controls(worker, confirmed.seeds, retry_failed=retry_failed)
    return ConfirmSummary(
        confirmed=confirmed,
        controls=controls,
        learned=read_learned(worker.storage, confirmed, worker.prepared.data.counts),
        comparison=compare_on_validation(worker.storage, confirmed, records),
    )


def _opened(
    options: StudyOptions,
    progress: Progress,
    signals: StopSignals,
    on_named: Callable[[str], None],
) -> tuple[Prepared, StudyStorage, optuna.Study]:
    """The study that is asked for, created if need be, with all it needs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with signals.interruptible():
        name, stored = _look_up(options)
        source = find_source(options, stored)
        if name is None:
            name = study_name(options, source)
            stored = _stored(options, name)
        on_named(name)
        prepared = prepare(options, source, stored, progress)
    check_resplit(options.resplit, prepared.data.made_splits)
    storage = open_storage(options.storage)
    study = _create_or_load(storage, prepared)
    declare_margin(storage, study, options.margin)
    remember_asked(study, options)
    return prepared, storage, study


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
    return _own_record(load_study(storage, name))


def _own_record(study: optuna.Study) -> StudyRecord | None:
    """The record of a study of this program; None of one that is hardly begun.

    Raises:
        UserError: the study is of another program.
    """
    if is_foreign(study):
        raise UserError(
            f"Study '{study.study_name}' was not made by transfer-studies, and is left as it is; "
            "choose another --name."
        )
    return read_study(study)


def _create_or_load(storage: StudyStorage, prepared: Prepared) -> optuna.Study:
    settings = prepared.settings
    with hand_out_lock(storage):
        study = create_study(storage, settings.name, settings.metric)
        stored = _own_record(study)
        if stored is None:
            store_card(storage, study, prepared.checked)
            write_identity(study, prepared.identity)
        elif stored.identity != prepared.identity:
            raise UserError(f"Study '{settings.name}' was created by another process just now.")
        write_places(study, prepared.places)
        write_totals(study, settings.trials, settings.timeout_seconds)
        add_decoding_seconds(study, prepared.decoding_seconds)
    return study


def _work(
    worker: Worker, study: optuna.Study, between: Stopwatch, *, retry_failed: bool
) -> str | None:
    """Run trials until the total is reached; returns why it ended earlier, if it did.

    Raises:
        StudyFailedError: trials fail for a reason that is not their configurations'.
    """
    prepared, progress, storage = worker.prepared, worker.progress, worker.storage
    settings = prepared.settings
    plan = SearchPlan(
        space=prepared.space,
        opening=prepared.identity["opening"],
        seed=settings.seed,
        sampler=settings.sampler,
        metric=settings.metric,
        share=settings.share,
    )
    # Trials from here on are this run's own: of them none is run again.
    first_new = len(study.get_trials(deepcopy=False)) if retry_failed else 0
    progress.study(settings.name, settings.metric, settings.trials, read_trials(study))
    objective = worker.objective(study)

    def next_trial(records: list[TrialRecord]) -> Suggestion | str | None:
        failed = [r for r in to_retry(records) if r.number < first_new]
        return _next(study, plan, records, prepared, worker.name, failed)

    def stop(done: TrialRecord, records: list[TrialRecord]) -> str | None:
        why = why_stop(done, records)
        return why and f"{why} {WAY_OUT}"

    def tell_after_probes(suggestion: Suggestion, records: list[TrialRecord]) -> None:
        if suggestion.logical_number != num_probes(plan.opening) - 1:
            return
        subjects, num_images = prepared.data.subjects, len(prepared.data.val)
        num_subjects = None if subjects is None else subjects["val"]
        verdict = interim_verdict(
            records,
            settings.metric,
            num_subjects or num_images,
            partial(best_epoch, storage),
            images_words(num_images, num_subjects, "validation images"),
        )
        progress.message(verdict or "No probe is complete yet.")

    _, why_ended = run_trials(
        worker,
        study,
        next_trial,
        objective=lambda suggestion: objective,
        why_stop=stop,
        on_finished=tell_after_probes,
        between=between,
    )
    return why_ended or None


def _next(
    study: optuna.Study,
    plan: SearchPlan,
    records: Sequence[TrialRecord],
    prepared: Prepared,
    worker: str,
    failed: Sequence[TrialRecord],
) -> Suggestion | str | None:
    """The next trial; why there is none ("" for the total); None while other workers are busy.

    ``failed`` are to be run again. One that counts has its place in the total already.
    """
    settings = prepared.settings
    missing, running = remaining(records, settings.trials)
    retry = next((r for r in failed if r.counts or missing), None)
    if missing == 0 and retry is None:
        return None if running else _no_room_for(failed)
    spent = sum(r.seconds or 0.0 for r in records if r.counts)
    if settings.timeout_seconds is not None and spent >= settings.timeout_seconds:
        return None if running else f"The time limit of {settings.timeout_seconds:g} s is reached."
    if retry is None and whose_turn(plan, records) is None:
        return None if running else "Every configuration of the space has been tried."
    return suggest_next(study, plan, records, worker, retry)


def _no_room_for(failed: Sequence[TrialRecord]) -> str:
    if not failed:
        return ""
    what = "configuration" if len(failed) == 1 else "configurations"
    return (
        f"The total leaves no room to run {len(failed)} failed {what} again; raise --trials by "
        f"{len(failed)}."
    )


def _no_result(name: str, records: Sequence[TrialRecord]) -> str:
    counts = count_states(records)
    reasons = [r.reason for r in records if r.counts and r.state == "FAIL" and r.reason]
    last = f"; the last reason: {reasons[-1]}" if reasons else ""
    return (
        f"No trial of study '{name}' is complete: {counts['fail']} failed, "
        f"{counts['pruned']} pruned{last}."
    )
