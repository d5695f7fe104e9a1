"""Studies of transfer learning on small image data sets: search, compare, explain.

The command line is ``python -m studies``; the same things from Python: ``run``, ``trials``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.records import trials
    from studies.runner import RunSummary

__all__ = ["run", "trials"]


def run(**options: Any) -> "RunSummary":
    """Run a study, or go on with one; options are those of ``python -m studies run``.

    Raises:
        ValueError: something asked for is wrong, out of reach or different from before.
        StudyFailedError: trials ran and none is complete.
    """
    from studies.progress import LineProgress
    from studies.runner import run_study
    from studies.settings import read_options
    from studies.signals import StopSignals

    with StopSignals() as signals:
        return run_study(read_options(options), LineProgress(), signals)


def __getattr__(name: str) -> Any:
    # Reading records needs pandas and Optuna: not at the import of the package.
    if name == "trials":
        from studies.records import trials

        return trials
    raise AttributeError(f"module 'studies' has no attribute '{name}'")
