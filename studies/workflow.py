"""The acts, and by what they are shown: the one place that knows both.

Python's ``studies.run`` and the command line call the same functions.
"""

from collections.abc import Callable

from studies.dashboard.pictures import trial_pictures
from studies.dashboard.publish import Publisher
from studies.evaluation.evaluate import Evaluated, EvaluateOptions, evaluate_bundle
from studies.results.comparison import ConfirmSummary
from studies.results.study import RunSummary
from studies.search.run import confirm_stored, run_study
from studies.settings import StudyOptions
from studies.signals import StopSignals
from studies.watchers import Faces, Progress

FACES = Faces(publisher=Publisher, pictures=trial_pictures)


def run(
    options: StudyOptions,
    progress: Progress,
    signals: StopSignals,
    on_named: Callable[[str], None] = lambda name: None,
) -> RunSummary:
    """``search.run.run_study``, shown in the dashboard while it runs."""
    return run_study(options, progress, signals, on_named, faces=FACES)


def confirm(
    options: StudyOptions,
    progress: Progress,
    signals: StopSignals,
    on_named: Callable[[str], None] = lambda name: None,
) -> ConfirmSummary:
    """``search.run.confirm_stored``, shown in the dashboard while it runs."""
    return confirm_stored(options, progress, signals, on_named, faces=FACES)


def evaluate(options: EvaluateOptions, progress: Progress, signals: StopSignals) -> Evaluated:
    """``evaluation.evaluate.evaluate_bundle``; the dashboard's notes say of it, too."""
    return evaluate_bundle(options, progress, signals, faces=FACES)
