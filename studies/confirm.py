"""Confirm: the best configurations of each strategy again, over seeds nobody has chosen by.

The best of many trials looks better than it is, and one seed is no evidence. Here the choice is
made: on the mean of the validation metric over seeds that were fixed before any of them ran. The
trainings are trials of the Optuna study ``NAME/confirm``, so that they can be watched, resumed and
traced, and never feed the search. Knows nothing of the test split.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna

from studies.errors import UserError
from studies.records import CANDIDATE, SEED, TrialRecord, best_trials, read_trials
from studies.storage import StudyStorage, storage_option
from studies.strategies_compared import Comparison
from studies.study_record import read_confirm
from transfer.config import Strategy, is_better

CONFIRM = "confirm"
Choose = Literal["best", "cheapest"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration of the search and its trainings over seeds, those that are complete.

    ``number`` is its trial in the search.
    """

    number: int
    strategy: str
    configuration: Mapping[str, Any]
    runs: Sequence[TrialRecord]

    @property
    def values(self) -> list[float]:
        """The validation metric of every seed."""
        return [float(run.value) for run in self.runs if run.value is not None]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def standard_error(self) -> float:
        """Of the mean over seeds; infinite with one seed, as then nobody knows."""
        if len(self.values) < 2:
            return float("inf")
        return float(np.std(self.values, ddof=1) / np.sqrt(len(self.values)))

    @property
    def mean_loss(self) -> float:
        return float(np.mean([run.best["val"]["loss"] for run in self.runs if run.best]))

    def as_json(self) -> dict[str, Any]:
        error = self.standard_error
        return {
            "trial": self.number,
            "strategy": self.strategy,
            "params": dict(self.configuration),
            "seeds": [int(run.params["seed"]) for run in self.runs],
            "values": self.values,
            "mean": self.mean,
            "standard_error": error if np.isfinite(error) else None,
        }

    @property
    def mean_seconds(self) -> float:
        """What a training costs beside its activations, which another may have paid for."""
        spent = [run.timing["training"] + run.timing["validation"] for run in self.runs]
        return float(np.mean(spent))


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What confirming gave: the candidates with their runs, and the one chosen of each strategy.

    ``metric`` is the search's, on validation images; ``resplit`` says that every seed had a
    validation split of its own.
    """

    metric: str
    seeds: Sequence[int]
    resplit: bool
    how: Choose
    candidates: Sequence[Candidate]

    @property
    def chosen(self) -> dict[str, Candidate]:
        """The choice within each strategy, the better mean first."""
        of_strategy = {
            strategy: [c for c in self.candidates if c.strategy == strategy]
            for strategy in Strategy
        }
        choices = (choose(found, self.metric, self.how) for found in of_strategy.values())
        found = [choice for choice in choices if choice is not None]
        sign = 1.0 if self.metric == "loss" else -1.0
        return {c.strategy: c for c in sorted(found, key=lambda c: (sign * c.mean, c.mean_loss))}

    @property
    def best(self) -> Candidate | None:
        """The one to export unless a strategy is asked for: the choice among the choices."""
        return choose(list(self.chosen.values()), self.metric, self.how)

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "seeds": list(self.seeds),
            "resplit": self.resplit,
            "choose": self.how,
            "candidates": [candidate.as_json() for candidate in self.candidates],
            "chosen": {strategy: c.number for strategy, c in self.chosen.items()},
            "best": None if self.best is None else self.best.number,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known on validation images: the confirmed candidates, and what they must beat.

    ``controls`` are the trials of ``NAME/controls``, ``counts`` images by split and class;
    ``comparison`` is of the two strategies' choices, None where there is nothing to compare.
    """

    confirmed: Confirmed
    controls: Sequence[TrialRecord]
    counts: Mapping[str, Mapping[str, int]]
    comparison: Comparison | None = None


def confirm_seeds(study_seed: int, count: int) -> list[int]:
    """The seeds, none of them the search's: what was chosen by a seed must not be judged by it."""
    return [(study_seed + 1 + i) % 2**32 for i in range(count)]


def candidates(records: Sequence[TrialRecord], metric: str, top: int) -> list[TrialRecord]:
    """The best ``top`` trials of each strategy in the search: each strategy's best first."""
    by_strategy: dict[str, list[TrialRecord]] = {strategy: [] for strategy in Strategy}
    for record in best_trials(records, metric):
        by_strategy[str(record.strategy)].append(record)
    return [
        found[rank] for rank in range(top) for found in by_strategy.values() if rank < len(found)
    ]


def confirmed(
    chosen: Sequence[TrialRecord], records: Sequence[TrialRecord], seeds: Sequence[int]
) -> list[Candidate]:
    """Candidates with at least one complete training.

    Args:
        chosen: trials of the search.
        records: trials of ``NAME/confirm``.
    """
    found = []
    for trial in chosen:
        runs = [
            record
            for record in records
            if record.state == "COMPLETE"
            and record.params.get("candidate") == trial.number
            and record.params.get("seed") in seeds
        ]
        if runs:
            found.append(
                Candidate(
                    number=trial.number,
                    strategy=str(trial.strategy),
                    configuration=trial.keyed_params,
                    runs=sorted(runs, key=lambda run: int(run.params["seed"])),
                )
            )
    return found


def choose(found: Sequence[Candidate], metric: str, how: Choose = "best") -> Candidate | None:
    """The candidate with the best mean; ties go to the lower loss, then to the earlier trial.

    ``cheapest``: of those within one standard error of that mean the one that trains fastest (the
    rule of L. Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3).
    """
    if not found:
        return None
    sign = 1.0 if metric == "loss" else -1.0
    best = min(found, key=lambda c: (sign * c.mean, c.mean_loss, c.number))
    if how == "best":
        return best
    # Of one seed the error is unknown, not infinite: only equals are within it.
    error = best.standard_error if np.isfinite(best.standard_error) else 0.0
    limit = best.mean + (error if metric == "loss" else -error)
    within = [c for c in found if not is_better(metric, limit, c.mean)]
    return min(within, key=lambda c: (c.mean_seconds, c.number))


def read_confirmed(
    study: optuna.Study, records: Sequence[TrialRecord], metric: str
) -> Confirmed | None:
    """What confirming has given so far; None where nobody has asked for it.

    Args:
        study: ``NAME/confirm``.
        records: the trials of the search.
    """
    stored = read_confirm(study)
    if stored is None:
        return None
    numbers = stored["candidates"]
    chosen = [record for number in numbers for record in records if record.number == number]
    return Confirmed(
        metric=metric,
        seeds=stored["seeds"],
        resplit=stored["resplit"],
        how=stored["choose"],
        candidates=confirmed(chosen, read_trials(study), stored["seeds"]),
    )


def refuse_unfinished(confirm: optuna.Study, runs: Sequence[TrialRecord], command: str) -> None:
    """A choice among what is finished so far would not be the one that was declared.

    Raises:
        UserError: trainings over seeds are missing.
    """
    done, wanted = confirm_progress(confirm, runs)
    if done < wanted:
        raise UserError(
            f"Confirming is not finished ({done} of {wanted} trainings): run `{command}` first."
        )


def confirm_progress(confirm: optuna.Study, runs: Sequence[TrialRecord]) -> tuple[int, int]:
    """How many of the trainings over seeds that were asked for are finished, and how many are."""
    stored = read_confirm(confirm) or {"candidates": (), "seeds": ()}
    finished = {(r.params.get(CANDIDATE), r.params.get(SEED)) for r in runs if r.counts}
    wanted = {(number, seed) for number in stored["candidates"] for seed in stored["seeds"]}
    return len(wanted & finished), len(wanted)


def confirm_command(name: str, storage: StudyStorage) -> str:
    """What confirms a study, or goes on with it."""
    return f"python -m studies confirm {shlex.quote(name)}{storage_option(storage)}"
