"""The run to export: what a study's database has of the model that confirming has chosen.

Knows records and artifacts; not what becomes of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from studies.database.artifacts import artifact_bytes, read_predictions
from studies.database.beside import beside
from studies.database.storage import StudyStorage, load_study
from studies.database.study import StudyRecord, read_study
from studies.database.trials import SEED, TrialRecord, read_trials
from studies.errors import UserError
from studies.results.choice import (
    CONFIRM,
    Candidate,
    Confirmed,
    confirm_command,
    read_confirmed,
    read_repeats,
    refuse_unfinished,
)
from studies.statistics.calibration import Labels
from transfer.config import Strategy, TransferConfig


@dataclass(frozen=True, kw_only=True)
class ChosenRun:
    """What the database has of the model to export."""

    study: StudyRecord
    records: Sequence[TrialRecord]
    confirm: optuna.Study
    confirmed: Confirmed
    candidate: Candidate
    run: TrialRecord

    @property
    def config(self) -> TransferConfig:
        return TransferConfig(**self.run.config)


def find_chosen_run(storage: StudyStorage, name: str, strategy: str | None) -> ChosenRun:
    """The run to export.

    Raises:
        UserError: there is no such study, confirming has not been asked for or isn't finished,
            the strategy is unknown or has no confirmed configuration, or its first seed failed.
    """
    study = load_study(storage, name)
    record = read_study(study)
    if record is None:
        raise UserError(f"Study '{name}' was not made by transfer-studies, or hardly begun.")
    if strategy is not None and strategy not in tuple(Strategy):
        raise UserError(f"Unknown strategy '{strategy}'; choose from {', '.join(Strategy)}.")
    command = confirm_command(name, storage)
    records = read_trials(study)
    confirm = beside(storage, name, CONFIRM, record.search_id)
    metric = str(record.settings["metric"])
    confirmed = None if confirm is None else read_confirmed(confirm, records, metric)
    if confirm is None or confirmed is None:
        raise UserError(f"Study '{name}' is not confirmed: run `{command}` first.")
    runs = read_repeats(confirm, records)
    refuse_unfinished(confirm, runs, records, metric, command)
    candidate = confirmed.best if strategy is None else confirmed.chosen.get(strategy)
    if candidate is None:
        of = "" if strategy is None else f" of {strategy}"
        way_out = f"run `{command}`, which trains again what failed" if runs else "run more trials"
        raise UserError(
            f"No configuration{of} of study '{name}' has a complete training over seeds; "
            f"{way_out}."
        )
    seed = confirmed.seeds[0]
    run = _run_of(candidate, seed)
    if run is None:
        reasons = candidate.failures.get(seed, ["it is missing"])
        others = [c.strategy for c in confirmed.chosen.values() if _run_of(c, seed)]
        instead = f", or export the other strategy with --strategy {others[0]}" if others else ""
        raise UserError(
            f"The training of trial {candidate.number} with seed {seed} failed ({reasons[-1]}), "
            "and no other seed may take its place: it was declared beforehand. Run "
            f"`{command}` to train it again with that seed{instead}."
        )
    return ChosenRun(
        study=record,
        records=records,
        confirm=confirm,
        confirmed=confirmed,
        candidate=candidate,
        run=run,
    )


def _run_of(candidate: Candidate, seed: int) -> TrialRecord | None:
    return next((run for run in candidate.runs if run.params[SEED] == seed), None)


def read_trained(storage: StudyStorage, run: TrialRecord) -> dict[str, Tensor]:
    """The trained part of a run's best epoch.

    Raises:
        UserError: it is missing.
    """
    what = f"weights of trial {run.number} of the confirmed ones"
    return safetensors.torch.load(artifact_bytes(storage, run.weights, what))


def best_predictions(
    storage: StudyStorage, run: TrialRecord
) -> tuple[NDArray[np.float32], Labels]:
    """Logits (N, C) of the validation images at the best epoch, and their labels (N,).

    Raises:
        UserError: they are missing.
    """
    assert run.best_epoch is not None
    stored = read_predictions(storage, run)
    return stored.logits_ENC[run.best_epoch - 1], stored.labels_N
