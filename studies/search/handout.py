"""Which configuration comes next: probes, recipes, retries, the sampler of the strategy in turn.

A suggestion depends on the study's seed, the *logical* number of the trial and the trials that are
finished, so that a study that was interrupted goes on exactly as if it had not been. It never
depends on the total: a study that is extended is the one that was longer from the start.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler

from search_spaces import Parameter, SearchSpace
from studies.database.trials import TrialRecord, count_states, write_claim
from studies.results.turns import next_strategy
from studies.search.suggestion import (
    frozen,
    num_untried,
    suggest_configuration,
    tried_configurations,
)


@dataclass(frozen=True, kw_only=True)
class Handout:
    """A trial and its configuration by field name.

    ``peers`` are the scores, by epoch, of the trials of the same strategy so far, ``rivals`` those
    of its complete ones; ``duplicate_of`` is an earlier trial of the same
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
    """What decides the order of a study's trials.

    ``opening`` has the configurations, by database key, that are run beside the sampler's own;
    ``metric`` is the study's; ``share`` says of what each strategy has an equal part: ``trials``
    or ``seconds``.
    """

    space: SearchSpace
    opening: Sequence[dict[str, Any]]
    seed: int
    sampler: str
    metric: str = "accuracy"
    share: str = "trials"


def opening(space: SearchSpace) -> list[dict[str, Any]]:
    """The configurations that no sampler draws, by database key.

    First a probe of each backbone by the last feature-extraction recipe: an answer early. Then
    the space's other baselines, on its first backbone.
    """
    baselines = [b for b in space.baselines if b.strategy in space.strategies]
    configurations = [
        space.baseline_configuration(extraction, backbone)
        for extraction in [b for b in baselines if b.strategy == "feature_extraction"][-1:]
        for backbone in space.backbones
    ]
    for baseline in baselines:
        recipe = space.baseline_configuration(baseline, space.backbones[0])
        if recipe not in configurations:
            configurations.append(recipe)
    return configurations


def num_probes(opening: Sequence[Mapping[str, Any]]) -> int:
    """How many of the opening are probes, one of each backbone; they come first."""
    backbones: set[str] = set()
    for configuration in opening:
        backbone = configuration["backbone"]
        if configuration["strategy"] != "feature_extraction" or backbone in backbones:
            break
        backbones.add(backbone)
    return len(backbones)


def whose_turn(plan: Plan, records: Sequence[TrialRecord]) -> str | None:
    """The strategy of the next trial; None where every configuration has been tried.

    Probes come first. A strategy whose configurations are used up leaves its turns to the other.
    """
    tried = tried_configurations(records)
    probes = plan.opening[: num_probes(plan.opening)]
    if any(frozen(probe) not in tried for probe in probes):
        return "feature_extraction"
    strategies = [s for s in plan.space.strategies if num_untried(plan.space, s, records) != 0]
    return next_strategy(plan.share, strategies, records) if strategies else None


def hand_out(
    study: optuna.Study,
    plan: Plan,
    records: Sequence[TrialRecord],
    worker: str,
    retry: TrialRecord | None = None,
) -> Handout:
    """Create the next trial, signed by ``worker``, with its configuration suggested.

    To be called under the hand-out lock, with room in the total and in the space.

    Args:
        retry: a failed trial to run again, with its configuration and its logical number.
    """
    if retry is None or retry.logical_number is None:
        number = next_logical_number(records)
        configuration = _next_configuration(plan, records, number)
    else:
        number, configuration = retry.logical_number, retry.keyed_params
    study.sampler = fixed_sampler(configuration, _seed(plan, number))
    trial = study.ask()
    write_claim(trial, worker=worker, logical_number=number)
    fields = suggest(trial, plan.space)
    mine = [r for r in records if r.strategy == fields["strategy"]]
    earlier = [r for r in mine if r.counts and r.keyed_params == trial.params and retry is None]
    return Handout(
        trial=trial,
        logical_number=number,
        fields=fields,
        peers=[r.scores(plan.metric) for r in mine if r.counts or r.state == "RUNNING"],
        duplicate_of=earlier[0] if earlier else None,
        rivals=[r.score(plan.metric) for r in mine if r.state == "COMPLETE"],
    )


def next_logical_number(records: Sequence[TrialRecord]) -> int:
    """The smallest number that no trial has, those left out that were interrupted."""
    taken = {r.logical_number for r in records if not r.is_interrupted}
    return next(n for n in range(len(records) + 1) if n not in taken)


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    """Ask ``trial`` for a configuration of ``space``; returns it by field name."""
    fields: dict[str, Any] = {p.name: _suggest_one(trial, p) for p in space.top()}
    for parameter in space.below(fields["backbone"], fields["strategy"]):
        fields[parameter.name] = _suggest_one(trial, space.stored(parameter))
    return fields


def _suggest_one(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.choices is not None:
        return trial.suggest_categorical(parameter.key, parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    low, high = parameter.low, parameter.high
    if parameter.is_integer:
        return trial.suggest_int(parameter.key, int(low), int(high), log=parameter.log)
    return trial.suggest_float(parameter.key, low, high, log=parameter.log)


def _next_configuration(plan: Plan, records: Sequence[TrialRecord], number: int) -> dict[str, Any]:
    """What an interrupted trial had, else a recipe, else the sampler's; by database key."""
    tried = tried_configurations(records)
    interrupted = [r for r in records if r.is_interrupted and r.logical_number == number]
    if (
        interrupted
        and interrupted[-1].config
        and frozen(interrupted[-1].keyed_params) not in tried
    ):
        return interrupted[-1].keyed_params
    strategy = whose_turn(plan, records)
    assert strategy is not None
    recipe = _next_recipe(plan, records, strategy)
    if recipe is not None:
        return recipe
    return suggest_configuration(
        plan.space,
        strategy,
        records,
        sampler=plan.sampler,
        seed=_seed(plan, number),
        metric=plan.metric,
    )


def _next_recipe(
    plan: Plan, records: Sequence[TrialRecord], strategy: str
) -> dict[str, Any] | None:
    """The next configuration of the opening: probes at once, then every second trial a recipe.

    So a short study has recipes and trials of the sampler, and a longer one the same and more.
    """
    tried = tried_configurations(records)
    probes = plan.opening[: num_probes(plan.opening)]
    mine = [c for c in plan.opening if c["strategy"] == strategy]
    left = [c for c in mine if frozen(c) not in tried]
    begun = {r.logical_number for r in records if r.strategy == strategy and not r.is_interrupted}
    behind_probes = len(begun) - sum(c in probes for c in mine)
    if left and (left[0] in probes or behind_probes % 2 == 0):
        return left[0]
    return None


def _seed(plan: Plan, number: int) -> int:
    return int(np.random.SeedSequence([plan.seed, number]).generate_state(1)[0])


def fixed_sampler(configuration: Mapping[str, Any], seed: int) -> BaseSampler:
    """Suggests this configuration, by database key; what it leaves out is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PartialFixedSampler(dict(configuration), RandomSampler(seed=seed))


def room(records: Sequence[TrialRecord], n_trials: int) -> tuple[int, int]:
    """How many trials of the total are not yet begun, and how many are running."""
    counts = count_states(records)
    running = counts.pop("running")
    return max(0, n_trials - sum(counts.values()) - running), running
