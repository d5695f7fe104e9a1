"""Run what confirming asks for: the candidates' trainings over seeds, in ``NAME/confirm``.

Knows the workplace of a study; which candidates, and what follows, is `confirm`'s to know.
"""

from collections.abc import Callable, Sequence
from functools import cache

import optuna

from studies.confirm import CONFIRM, Confirmed, candidates, confirm_seeds, confirmed
from studies.errors import UserError
from studies.objective import Objective
from studies.records import TrialRecord
from studies.repeats import Repeat, run_repeats
from studies.settings import StudyOptions
from studies.storage import create_study
from studies.study_record import read_confirm, write_confirm
from studies.workplace import Workplace
from transfer.data.loading import load_data

DEFAULT_TOP, DEFAULT_SEEDS = 2, 3


def confirm_study(
    workplace: Workplace, options: StudyOptions, records: Sequence[TrialRecord]
) -> Confirmed:
    """Train the best configurations of each strategy over seeds, those that are not done yet.

    Args:
        records: the trials of the search.

    Raises:
        UserError: validation splits were drawn otherwise before, or can't be drawn anew.
        Interrupted: a signal came; what is finished is stored.
    """
    settings, storage = workplace.prepared.settings, workplace.storage
    study = create_study(storage, f"{settings.name}/{CONFIRM}", settings.metric)
    before = read_confirm(study) or {}
    resplit = bool(before.get("resplit") if options.resplit is None else options.resplit)
    _check_resplit(workplace, before, resplit)
    top = options.top or workplace.prepared.space.suggested.get("top", DEFAULT_TOP)
    seeds = confirm_seeds(settings.seed, options.seeds or before.get("num_seeds", DEFAULT_SEEDS))
    how = options.choose or before.get("choose", "best")
    chosen = candidates(records, settings.metric, top)
    stored = {"num_seeds": len(seeds), "resplit": resplit, "choose": how, "seeds": seeds}
    # Written first: the seeds are declared before any of them has given a number.
    write_confirm(study, {**stored, "candidates": [trial.number for trial in chosen]})
    repeats = [
        Repeat(candidate=trial.number, configuration=trial.keyed_params, seed=seed)
        for trial in chosen
        for seed in seeds
    ]
    done = run_repeats(workplace, study, repeats, _objectives(workplace, study, resplit))
    return Confirmed(
        metric=settings.metric,
        seeds=seeds,
        resplit=resplit,
        how=how,
        candidates=confirmed(chosen, done, seeds),
    )


def _check_resplit(workplace: Workplace, before: dict[str, object], resplit: bool) -> None:
    if before and before["resplit"] != resplit:
        was = "a validation split for each seed" if before["resplit"] else "one validation split"
        raise UserError(
            f"Study '{workplace.prepared.settings.name}' was confirmed with {was}; go on without "
            "--resplit/--no-resplit, or choose another --name."
        )
    if resplit and "val" not in workplace.prepared.data.made_splits:
        raise UserError(
            "--resplit draws the validation split anew for every seed, but these data bring one "
            "of their own; leave it out."
        )


def _objectives(
    workplace: Workplace, study: optuna.Study, resplit: bool
) -> Callable[[int], Objective]:
    """The objective of each seed: on the study's own split, or on one that the seed draws."""
    prepared = workplace.prepared

    @cache
    def objective(seed: int) -> Objective:
        activations = None
        if resplit:
            data = load_data(
                prepared.checked.source,
                image_size=prepared.settings.image_size,
                seed=seed,
                cache_dir=prepared.cache_dir,
                skip_unreadable=True,
                drop_duplicates=bool(prepared.checked.allowed.get("drop_duplicates")),
                on_progress=workplace.progress.work,
            )
            activations = workplace.activations_of(data)
        return workplace.objective(study, seed=seed, activations=activations, keep_weights=True)

    return objective
