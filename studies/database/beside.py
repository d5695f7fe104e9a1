"""The studies beside a search: repeats in ``NAME/confirm``, controls in ``NAME/controls``.

Each belongs to one search and has its id: a name may have been another search's before. Knows
whose they are; nothing of what is in them.
"""

from collections.abc import Callable

import optuna

from studies.database.owners import hand_out_lock
from studies.database.storage import StudyStorage, create_study, rename_studies, study_is_there
from studies.database.study import read_search, write_search


def beside(
    storage: StudyStorage, name: str, purpose: str, search_id: str | None
) -> optuna.Study | None:
    """The Optuna study ``NAME/PURPOSE`` of this search; None where there is none of it."""
    try:
        study = optuna.load_study(study_name=f"{name}/{purpose}", storage=storage.database)
    except KeyError:
        return None
    return study if read_search(study) == search_id else None


def open_beside(
    storage: StudyStorage,
    name: str,
    purpose: str,
    search_id: str | None,
    *,
    metric: str,
    say: Callable[[str], None],
) -> optuna.Study:
    """The Optuna study ``NAME/PURPOSE`` of this search, created where there is none.

    One of another search, of which only the name was left, is set aside under another name.

    Args:
        say: is told that one was set aside.
    """
    with hand_out_lock(storage):
        study = create_study(storage, f"{name}/{purpose}", metric)
        # Of a process that was killed at once there may be one that is nobody's yet.
        is_new = read_search(study) is None and not study.get_trials(deepcopy=False)
        if not is_new and read_search(study) != search_id:
            other = _free_name(storage, study.study_name)
            rename_studies(storage, {study.study_name: other})
            say(
                f"{study.study_name} is of another study that had this name: it takes no part "
                f"here, and is now called {other}."
            )
            study = create_study(storage, study.study_name, metric)
        if read_search(study) != search_id:
            write_search(study, search_id)
    return study


def _free_name(storage: StudyStorage, name: str) -> str:
    number, other = 1, f"{name} of another study"
    while study_is_there(storage, other):
        number += 1
        other = f"{name} of another study ({number})"
    return other
