"""Where a number of a report comes from, and links to trials."""

from studies.database.trials import TrialRecord
from studies.document.blocks import Cell
from studies.results.choice import Candidate


def trial_cell(trial: TrialRecord) -> Cell:
    """A link to a trial of the search."""
    return Cell(text=str(trial.number), href=f"#trial-{trial.number}", key=trial.number)


def source_of_trial(trial: TrialRecord, name: str) -> str:
    """Where a number of one trial comes from."""
    return f"trial {trial.number} of study {name}, seed {trial.config.get('seed')}"


def source_of_candidate(candidate: Candidate, name: str) -> str:
    """Where a number over seeds comes from."""
    numbers = ", ".join(str(run.number) for run in candidate.runs)
    seeds = ", ".join(str(run.params["seed"]) for run in candidate.runs)
    return (
        f"trials {numbers} of study {name}/confirm: the configuration of trial "
        f"{candidate.number}, seeds {seeds}"
    )
