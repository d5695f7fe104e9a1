"""Run what confirming asks for: the candidates' trainings over seeds, in ``NAME/confirm``.

Knows the worker of a study; which candidates, and what follows, is `confirm`'s to know.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import optuna

from studies.database.beside import beside, open_beside
from studies.database.storage import StudyStorage, load_study
from studies.database.study import (
    read_asked,
    read_confirm,
    read_margin,
    read_study,
    write_asked,
    write_confirm,
    write_margin,
)
from studies.database.trials import TrialRecord
from studies.errors import UserError
from studies.results.choice import CONFIRM, Confirmed, candidates, confirm_seeds, read_confirmed
from studies.search.loop import Repeat, run_repeats
from studies.search.objective import Objective
from studies.search.worker import Worker
from studies.settings import StudyOptions
from studies.statistics.metrics import METRICS
from studies.statistics.verdict_words import default_margin
from transfer.data.loading import load_data

DEFAULT_TOP, DEFAULT_SEEDS = 2, 3


def confirm_study(
    worker: Worker,
    options: StudyOptions,
    records: Sequence[TrialRecord],
    *,
    retry_failed: bool = False,
) -> Confirmed:
    """Train the best configurations of each strategy over seeds, those that are not done yet.

    Args:
        records: the trials of the search.
        retry_failed: train those that have failed once more, with the same seed.

    Raises:
        UserError: validation splits were drawn otherwise before, or can't be drawn anew.
        Interrupted: a signal came; what is finished is stored.
    """
    settings, storage = worker.prepared.settings, worker.storage
    study = open_beside(
        storage,
        settings.name,
        CONFIRM,
        worker.search_id,
        metric=settings.metric,
        say=worker.progress.message,
    )
    declared = read_confirm(study) or {}
    before = declared or read_asked(load_study(storage, settings.name))
    resplit = bool(before.get("resplit") if options.resplit is None else options.resplit)
    _check_resplit(worker, declared, resplit)
    suggested = worker.prepared.space.suggested.get("top", DEFAULT_TOP)
    top = options.top or before.get("top") or suggested
    seeds = confirm_seeds(settings.seed, options.seeds or before.get("num_seeds", DEFAULT_SEEDS))
    how = options.choose or before.get("choose", "best")
    chosen = candidates(records, settings.metric, top)
    margin = _margin(worker, declared)
    stored = {
        "top": top,
        "num_seeds": len(seeds),
        "resplit": resplit,
        "choose": how,
        "margin": margin,
        "seeds": seeds,
    }
    # Written first: seeds and margin are declared before any of them has given a number.
    write_confirm(study, {**stored, "candidates": [trial.number for trial in chosen]})
    repeats = [
        Repeat(candidate=trial.number, configuration=trial.keyed_params, seed=seed)
        for trial in chosen
        for seed in seeds
    ]
    objectives = _objectives(worker, study, resplit)
    run_repeats(worker, study, repeats, objectives, retry_failed=retry_failed)
    found = read_confirmed(study, records, settings.metric)
    assert found is not None
    return found


def remember_asked(study: optuna.Study, options: StudyOptions) -> None:
    """Store with a search how it is to be confirmed: whoever goes on need not say it again."""
    asked = {
        "top": options.top,
        "num_seeds": options.seeds,
        "choose": options.choose,
        "resplit": options.resplit,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    if given:
        write_asked(study, given)


def declare_margin(storage: StudyStorage, study: optuna.Study, margin: float | None) -> None:
    """Store the difference that would matter with a study that is not confirmed yet.

    Args:
        study: the search.
        margin: None where none was asked for.

    Raises:
        UserError: the study was confirmed with another one, or without one.
    """
    if margin is None:
        return
    name, record = study.study_name, read_study(study)
    confirm = beside(storage, name, CONFIRM, None if record is None else record.search_id)
    before = None if confirm is None else read_confirm(confirm)
    if before is not None and before.get("margin") != margin:
        was = before.get("margin")
        with_it = "no margin" if was is None else f"margin {was:g}"
        raise UserError(
            f"Study '{name}' was confirmed with {with_it}, which is declared beforehand; leave "
            f"--margin {margin:g} out, or choose another --name."
        )
    write_margin(study, margin)


def _margin(worker: Worker, before: dict[str, Any]) -> float | None:
    """The margin of a study that is confirmed now; None if it was begun when there was none."""
    if before:
        return before.get("margin")
    settings = worker.prepared.settings
    asked = read_margin(load_study(worker.storage, settings.name))
    counts = list(worker.prepared.data.counts["train"].values())
    return default_margin(METRICS[settings.metric], counts) if asked is None else asked


def _check_resplit(worker: Worker, before: dict[str, object], resplit: bool) -> None:
    if before and before["resplit"] != resplit:
        was = "a validation split for each seed" if before["resplit"] else "one validation split"
        raise UserError(
            f"Study '{worker.prepared.settings.name}' was confirmed with {was}; go on without "
            "--resplit/--no-resplit, or choose another --name."
        )


def check_resplit(resplit: bool | None, made_splits: Collection[str]) -> None:
    """Refuse what can't be drawn anew, before anything of it is stored or trained.

    Raises:
        UserError: these data bring a validation split of their own.
    """
    if resplit and "val" not in made_splits:
        raise UserError(
            "--resplit draws the validation split anew for every seed, but these data bring one "
            "of their own; leave it out."
        )


def _objectives(worker: Worker, study: optuna.Study, resplit: bool) -> Callable[[int], Objective]:
    """The objective of each seed: on the study's own split, or on one that the seed draws."""
    prepared = worker.prepared

    @cache
    def objective(seed: int) -> Objective:
        activations = None
        if resplit:
            data = load_data(
                prepared.checked.source,
                image_size=prepared.settings.image_size,
                seed=seed,
                cache_dir=prepared.cache_dir,
                resize=prepared.settings.resize,
                interpolations=tuple(prepared.data.resized),
                with_views=prepared.data.large_NHWC is not None,
                skip_unreadable=True,
                drop_duplicates=bool(prepared.checked.allowed.get("drop_duplicates")),
                on_progress=worker.progress.work,
            )
            activations = worker.activations_of(data)
        return worker.objective(study, seed=seed, activations=activations, keep_weights=True)

    return objective
