"""Which configuration comes next: opening, retry, sampler. The same whenever it is asked again.

A suggestion depends on the study's seed, the *logical* number of the trial and the trials that are
finished, so that a study that was interrupted goes on exactly as if it had not been.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler

from search_spaces import Parameter, SearchSpace
from studies.records import TrialRecord, count_states, write_claim

# So many configurations in a row that were tried before end in a draw at random.
MAX_DUPLICATES = 5


@dataclass(frozen=True, kw_only=True)
class Handout:
    """A trial and its configuration by field name.

    ``peers`` are the reported values, by epoch, of the trials of the same strategy so far,
    ``rivals`` the values of its complete ones; ``duplicate_of`` is an earlier trial of the same
    configuration.
    """

    trial: optuna.Trial
    logical_number: int
    fields: dict[str, Any]
    peers: Sequence[Mapping[int, float]]
    duplicate_of: TrialRecord | None
    rivals: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the order of a study's trials."""

    space: SearchSpace
    opening: Sequence[dict[str, Any]]
    seed: int
    sampler: str


def opening(space: SearchSpace, n_trials: int) -> list[dict[str, Any]]:
    """The configurations to run first, by database key.

    The space's baselines on its first backbone, at most a quarter of the trials, and a probe of
    each other backbone with the last feature-extraction recipe, at most a quarter again. Feature
    extraction comes first: it gives an answer early.
    """
    most = max(1, n_trials // 4)
    first, *others = space.backbones
    configurations = [space.baseline_configuration(b, first) for b in space.baselines[:most]]
    recipes = [b for b in space.baselines if b.strategy == "feature_extraction"]
    if recipes:
        probes = [space.baseline_configuration(recipes[-1], other) for other in others]
        configurations += probes[:most]
    return sorted(configurations, key=lambda c: c["strategy"] != "feature_extraction")


def num_probes(opening: Sequence[dict[str, Any]]) -> int:
    """How many trials of the opening are feature extraction, which come first."""
    return sum(c["strategy"] == "feature_extraction" for c in opening)


def remaining(space: SearchSpace, records: Sequence[TrialRecord]) -> list[dict[str, Any]] | None:
    """The configurations of a finite space that no trial had yet; None where it is continuous."""
    if space.size() is None:
        return None
    tried = [r.keyed_params for r in records if r.counts or r.state == "RUNNING"]
    return [c for c in space.configurations() if c not in tried]


def hand_out(
    study: optuna.Study, plan: Plan, records: Sequence[TrialRecord], worker: str
) -> Handout:
    """Create the next trial, signed by ``worker``, with its configuration suggested.

    To be called under the hand-out lock, with room in the total and in the space.
    """
    number = next_logical_number(records)
    study.sampler = _sampler(plan, records, number)
    trial = study.ask()
    write_claim(trial, worker=worker, logical_number=number)
    fields = suggest(trial, plan.space)
    earlier = [r for r in records if r.counts and r.keyed_params == trial.params]
    return Handout(
        trial=trial,
        logical_number=number,
        fields=fields,
        peers=[
            r.values
            for r in records
            if r.strategy == fields["strategy"] and (r.counts or r.state == "RUNNING")
        ],
        duplicate_of=earlier[0] if earlier else None,
        rivals=[
            r.value
            for r in records
            if r.strategy == fields["strategy"] and r.state == "COMPLETE" and r.value is not None
        ],
    )


def next_logical_number(records: Sequence[TrialRecord]) -> int:
    """The smallest number that no trial has, those left out that were interrupted."""
    taken = {r.logical_number for r in records if not r.is_interrupted}
    return next(n for n in range(len(records) + 1) if n not in taken)


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    """Ask ``trial`` for a configuration of ``space``; returns it by field name."""
    fields: dict[str, Any] = {p.name: _suggest_one(trial, p) for p in space.top()}
    for parameter in space.below(fields["backbone"], fields["strategy"]):
        fields[parameter.name] = _suggest_one(trial, parameter)
    return fields


def _suggest_one(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.choices is not None:
        return trial.suggest_categorical(parameter.key, parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    low, high = parameter.low, parameter.high
    if parameter.is_integer:
        return trial.suggest_int(parameter.key, int(low), int(high), log=parameter.log)
    return trial.suggest_float(parameter.key, low, high, log=parameter.log)


def _sampler(plan: Plan, records: Sequence[TrialRecord], number: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([plan.seed, number]).generate_state(1)[0])
    if number < len(plan.opening):
        return fixed_sampler(plan.opening[number], seed)
    interrupted = [r for r in records if r.is_interrupted and r.logical_number == number]
    if interrupted and interrupted[-1].config:
        return fixed_sampler(interrupted[-1].keyed_params, seed)
    before = [r for r in records if r.logical_number in range(number - MAX_DUPLICATES, number)]
    if sum(r.duplicate_of is not None for r in before) == MAX_DUPLICATES:
        untried = remaining(plan.space, records)
        if untried:
            return fixed_sampler(untried[np.random.default_rng(seed).integers(len(untried))], seed)
        return RandomSampler(seed=seed)
    return RandomSampler(seed=seed) if plan.sampler == "random" else TPESampler(seed=seed)


def fixed_sampler(configuration: dict[str, Any], seed: int) -> BaseSampler:
    """Suggests this configuration, by database key; what it leaves out is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PartialFixedSampler(configuration, RandomSampler(seed=seed))


def room(records: Sequence[TrialRecord], n_trials: int) -> tuple[int, int]:
    """How many trials of the total are not yet begun, and how many are running."""
    counts = count_states(records)
    running = counts.pop("running")
    return max(0, n_trials - sum(counts.values()) - running), running
