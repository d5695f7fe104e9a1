"""Confirm: the best configurations of each strategy again, over seeds nobody has chosen by.

The best of many trials looks better than it is, and one seed is no evidence. Here the choice is
made: on the mean of the validation metric over seeds that were fixed before any of them ran. The
trainings are trials of the Optuna study ``NAME/confirm``, so that they can be watched, resumed and
traced, and never feed the search. Knows nothing of the test split.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna

from studies.database.storage import StudyStorage, storage_option
from studies.database.study import read_confirm
from studies.database.trials import CANDIDATE, SEED, TrialRecord, best_trials, read_trials
from studies.errors import UserError
from transfer.config import Strategy

if TYPE_CHECKING:
    pass

CONFIRM = "confirm"
Choose = Literal["best", "cheapest"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration of the search and its trainings over seeds, those that are complete.

    ``number`` is its trial in the search; ``seeds`` are those that were declared; ``failures``
    says by seed why trainings failed, those that were done again included.
    """

    number: int
    strategy: str
    configuration: Mapping[str, Any]
    runs: Sequence[TrialRecord]
    seeds: Sequence[int]
    failures: Mapping[int, Sequence[str]]

    @property
    def missing(self) -> list[int]:
        """The declared seeds without a complete training."""
        complete = {run.params[SEED] for run in self.runs}
        return [seed for seed in self.seeds if seed not in complete]

    @property
    def failed(self) -> dict[int, Sequence[str]]:
        """Why trainings failed, by seed, of the seeds that have no complete one."""
        return {seed: self.failures[seed] for seed in self.missing if seed in self.failures}

    @property
    def retried(self) -> dict[int, Sequence[str]]:
        """The same of the seeds that were trained again, and are complete."""
        return {seed: why for seed, why in self.failures.items() if seed not in self.missing}

    @property
    def values(self) -> list[float]:
        """The validation metric of every seed."""
        return [float(run.value) for run in self.runs if run.value is not None]

    def scores(self, metric: str) -> dict[int, float]:
        """What each seed is chosen by, larger the better: the metric, or what replaces it."""
        return {int(run.params[SEED]): run.score(metric) for run in self.runs}

    def score(self, metric: str) -> float:
        """The mean over seeds."""
        return float(np.mean(list(self.scores(metric).values())))

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
            "failed": self.failures_json(),
            "retried": [{"seed": s, "reasons": list(why)} for s, why in self.retried.items()],
        }

    def failures_json(self) -> list[dict[str, Any]]:
        """The seeds without a complete training, and why."""
        return [{"seed": s, "reasons": list(why)} for s, why in self.failed.items()]

    @property
    def mean_seconds(self) -> float:
        """What a training costs beside its activations, which another may have paid for."""
        spent = [run.timing["training"] + run.timing["validation"] for run in self.runs]
        return float(np.mean(spent))


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What confirming gave: the candidates with their runs, and the one chosen of each strategy.

    ``metric`` is the search's, on validation images; ``resplit`` says that every seed had a
    validation split of its own. ``lost`` are candidates without a complete training. ``margin`` is
    the difference between strategies that would matter, as it was declared before; None in a study
    that is older than that.
    """

    metric: str
    seeds: Sequence[int]
    resplit: bool
    how: Choose
    candidates: Sequence[Candidate]
    lost: Sequence[Candidate] = ()
    margin: float | None = None

    @property
    def chosen(self) -> dict[str, Candidate]:
        """The choice within each strategy, the better mean first; one that lacks seeds last."""
        of_strategy = {
            strategy: [c for c in self.candidates if c.strategy == strategy]
            for strategy in Strategy
        }
        choices = (choose(found, self.metric, self.how) for found in of_strategy.values())
        found = [choice for choice in choices if choice is not None]

        def rank(candidate: Candidate) -> tuple[int, float, float]:
            return len(candidate.missing), -candidate.score(self.metric), candidate.mean_loss

        return {c.strategy: c for c in sorted(found, key=rank)}

    @property
    def best(self) -> Candidate | None:
        """The one to export unless a strategy is asked for: the choice among the choices."""
        return choose(list(self.chosen.values()), self.metric, self.how)

    @property
    def chooser(self) -> str:
        """The validation value whose mean over seeds chooses: the metric, or what replaces it."""
        by = next((run.chosen_by for c in self.candidates for run in c.runs), None)
        return by or self.metric

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "seeds": list(self.seeds),
            "resplit": self.resplit,
            "choose": self.how,
            "margin": self.margin,
            "candidates": [candidate.as_json() for candidate in self.candidates],
            "lost": [{"trial": c.number, "failed": c.failures_json()} for c in self.lost],
            "chosen": {strategy: c.number for strategy, c in self.chosen.items()},
            "best": None if self.best is None else self.best.number,
        }


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
    """The candidates that were trained at all, complete or not.

    Args:
        chosen: trials of the search.
        records: trials of ``NAME/confirm``.
    """
    found = []
    for trial in chosen:
        by_seed: dict[int, TrialRecord] = {}
        failures: dict[int, list[str]] = {}
        for record in records:
            if not record.counts or not is_repeat_of(trial, record):
                continue
            seed = int(record.params[SEED])
            if seed not in seeds:
                continue
            if record.state == "COMPLETE":
                by_seed.setdefault(seed, record)
            else:
                failures.setdefault(seed, []).append(record.reason or "for an unknown reason")
        if by_seed or failures:
            found.append(
                Candidate(
                    number=trial.number,
                    strategy=str(trial.strategy),
                    configuration=trial.keyed_params,
                    runs=[by_seed[seed] for seed in sorted(by_seed)],
                    seeds=list(seeds),
                    failures={seed: failures[seed] for seed in sorted(failures)},
                )
            )
    return found


def is_repeat_of(trial: TrialRecord, run: TrialRecord) -> bool:
    """Whether ``run`` trained the configuration of ``trial``, on the same data and by the same
    settings, from the same weights: all but the seed.

    A run that failed at once has stored no more than its configuration.
    """
    given = {key: value for key, value in run.keyed_params.items() if key not in (CANDIDATE, SEED)}
    if run.params.get(CANDIDATE) != trial.number or given != trial.keyed_params:
        return False
    if not run.config:
        return True
    pairs = ((trial.config, run.config), (trial.fingerprints, run.fingerprints))
    # What only one has stored, the version that made the other did not know.
    return all(
        mine[key] == its[key] for mine, its in pairs for key in mine.keys() & its.keys() - {SEED}
    )


def read_repeats(confirm: optuna.Study, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials of ``NAME/confirm`` that are repeats of the search's ``trials`` as they are."""
    by_number = {trial.number: trial for trial in trials}
    runs = [(by_number.get(run.params.get(CANDIDATE, -1)), run) for run in read_trials(confirm)]
    return [run for trial, run in runs if trial is not None and is_repeat_of(trial, run)]


def choose(found: Sequence[Candidate], metric: str, how: Choose = "best") -> Candidate | None:
    """The candidate with the best mean score; ties go to the lower loss, then the earlier trial.

    The score is the metric, or what replaces it where the study chooses by something else.

    Only those with all their seeds compete: the mean of the seeds that did not fail would favour
    what fails. Where none has them all, those that lack the fewest do.

    ``cheapest``: the one that trains fastest of those that are worse by at most one standard error
    of the paired difference over the seeds that both have (after the rule of L. Breiman et al.,
    "Classification and Regression Trees", 1984, section 3.4.3). Paired, as what moves a seed's
    trainings all alike says nothing of the difference between them.
    """
    if not found:
        return None
    fewest = min(len(c.missing) for c in found)
    found = [c for c in found if len(c.missing) == fewest]
    best = min(found, key=lambda c: (-c.score(metric), c.mean_loss, c.number))
    if how == "best":
        return best
    within = [c for c in found if c is best or _is_as_good(c, best, metric)]
    return min(within, key=lambda c: (c.mean_seconds, c.number))


def _is_as_good(candidate: Candidate, best: Candidate, metric: str) -> bool:
    """Whether it is worse by one standard error of the paired difference at most."""
    values, of_best = candidate.scores(metric), best.scores(metric)
    seeds = sorted(values.keys() & of_best.keys())
    if not seeds:
        return False
    worse_S = np.array([of_best[seed] - values[seed] for seed in seeds])
    # Of one seed the error is unknown, not infinite: only equals are within it.
    error = float(worse_S.std(ddof=1)) / len(seeds) ** 0.5 if len(seeds) > 1 else 0.0
    return float(worse_S.mean()) <= error + 1e-12


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
    trained = confirmed(chosen, read_trials(study), stored["seeds"])
    return Confirmed(
        metric=metric,
        seeds=stored["seeds"],
        resplit=stored["resplit"],
        how=stored["choose"],
        candidates=[candidate for candidate in trained if candidate.runs],
        lost=[candidate for candidate in trained if not candidate.runs],
        margin=stored.get("margin"),
    )


def seed_remarks(found: Confirmed, strategies: Mapping[str, str]) -> list[str]:
    """What is to be said of trainings over seeds that failed, a sentence each.

    Args:
        strategies: what they are called.
    """
    lines = []
    for strategy, choice in found.chosen.items():
        if choice.missing:
            lines.append(
                f"No configuration of {strategies[strategy]} has a complete training with "
                f"each of its seeds: trial {choice.number}, which lacks the fewest, is no choice "
                "to rely on."
            )
    for candidate in [*found.candidates, *found.lost]:
        for seed, reasons in candidate.failures.items():
            times = {1: "once", 2: "twice"}.get(len(reasons), f"{len(reasons)} times")
            line = f"Trial {candidate.number}: seed {seed} failed {times} ({reasons[-1]})"
            if seed in candidate.missing:
                lines.append(f"{line}; `confirm` trains it again, with the same seed.")
            else:
                lines.append(f"{line} and was trained again.")
    return lines


def refuse_unfinished(
    confirm: optuna.Study,
    runs: Sequence[TrialRecord],
    records: Sequence[TrialRecord],
    metric: str,
    command: str,
) -> None:
    """A choice among what is finished so far would not be the one that was declared.

    Args:
        records: the trials of the search.

    Raises:
        UserError: trainings over seeds are missing, or trials that would be candidates have been
            added since.
    """
    stored = read_confirm(confirm)
    if stored is not None:
        now = {trial.number for trial in candidates(records, metric, stored["top"])}
        added = sorted(now - set(stored["candidates"]))
        if added:
            which = f"trial{'s' if len(added) > 1 else ''} {', '.join(map(str, added))}"
            raise UserError(
                f"Since the study was confirmed, {which} came among the best of the search: run "
                f"`{command}` first."
            )
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
