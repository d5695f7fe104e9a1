"""Which configuration comes next: probes, recipes, retries, the sampler of the strategy in turn.

A suggestion depends on the study's seed, the *logical* number of the trial and the trials that are
finished, so that a study that was interrupted goes on exactly as if it had not been. It never
depends on the total: a study that is extended is the one that was longer from the start.

Each strategy is searched by a sampler of its own, in coordinates of its own; its model is built
anew from the records for every suggestion, so that it is the same whenever it is asked again.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from search_spaces import Parameter, SearchSpace
from search_spaces.fields import Value
from studies.database.trials import TrialRecord, count_states, write_owner
from studies.results.turns import next_strategy

# How often the sampler is asked again for a configuration that was tried before.
MAX_DRAWS = 16
# So many configurations of a strategy are listed to find one that was not tried.
MAX_LISTED = 10_000


def suggest_configuration(
    space: SearchSpace,
    strategy: str,
    records: Sequence[TrialRecord],
    *,
    sampler: str,
    seed: int,
    metric: str,
) -> dict[str, Any]:
    """A configuration of ``strategy`` by database key that no trial has had yet.

    TPE sees the strategy's own trials alone: of all trials the best tenth would be the leading
    strategy's, and the other one's parameters would be drawn at random. Running trials count as
    bad ones (constant liar), so that several workers don't crowd together.

    Args:
        sampler: ``tpe`` or ``random``.
        metric: the study's; what chooses is stored with each trial.

    Raises:
        ValueError: every configuration has been tried.
    """
    mine = [r for r in records if r.strategy == strategy]
    tried = tried_configurations(mine)
    own = space.narrowed(strategies=(strategy,))
    size = own.size()
    if size is not None and size <= len(tried):
        raise ValueError(f"Every configuration of {strategy} has been tried.")
    model = _Model(space, strategy)
    study = model.study(mine if sampler == "tpe" else [], sampler, seed, metric)
    draws = 0
    while True:
        configuration = model.configuration(study.ask(model.distributions).params)
        if frozen(configuration) not in tried:
            return configuration
        draws += 1
        if draws == MAX_DRAWS and size is not None and size <= MAX_LISTED:
            untried = [c for c in own.configurations() if frozen(c) not in tried]
            return untried[np.random.default_rng(seed).integers(len(untried))]
        if draws == MAX_DRAWS:
            # TPE has settled on one spot of a space that is too large to be listed.
            study = model.study([], "random", seed, metric)


def num_untried(space: SearchSpace, strategy: str, records: Iterable[TrialRecord]) -> int | None:
    """How many configurations of a strategy no trial had yet; None where a range is continuous."""
    size = space.narrowed(strategies=(strategy,)).size()
    if size is None:
        return None
    return size - len(tried_configurations(r for r in records if r.strategy == strategy))


def tried_configurations(records: Iterable[TrialRecord]) -> set[frozenset[tuple[str, Any]]]:
    """The configurations that trials had, failed ones too; an interrupted one is yet to run."""
    return {frozen(r.keyed_params) for r in records if not r.is_interrupted}


def frozen(configuration: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """A configuration as a member of a set."""
    return frozenset(configuration.items())


class _Model:
    """One strategy's parameters as TPE sees them.

    Depth is a share of the layers that may be unfrozen, so that "all of them" is the same for
    every backbone; a batch size is its logarithm; other numbers in a list are their rank. What can
    have one value only is left out.
    """

    def __init__(self, space: SearchSpace, strategy: str) -> None:
        self._space, self._strategy = space, strategy
        self._axes = [
            axis
            for axis in (
                _axis(space, strategy, p) for p in space.below(space.backbones[0], strategy)
            )
            if axis is not None
        ]
        self.distributions: dict[str, BaseDistribution] = {
            axis.key: axis.distribution for axis in self._axes
        }
        if len(space.backbones) > 1:
            self.distributions["backbone"] = CategoricalDistribution(space.backbones)

    def study(
        self,
        records: Sequence[TrialRecord],
        sampler: str,
        seed: int,
        metric: str,
    ) -> optuna.Study:
        """A study in memory that holds ``records``, in the order in which they were handed out."""
        storage = InMemoryStorage()
        storage.create_new_study([StudyDirection.MAXIMIZE], "model")
        study = optuna.Study("model", storage, sampler=_sampler(sampler, seed))
        for record in sorted(records, key=lambda r: (r.logical_number is None, r.logical_number)):
            if record.state in ("COMPLETE", "PRUNED", "RUNNING") and record.duplicate_of is None:
                params = self.coordinates(record.keyed_params)
                if params is not None:
                    study.add_trial(
                        create_trial(
                            state=TrialState[record.state],
                            value=record.score(metric) if record.state == "COMPLETE" else None,
                            params=params,
                            distributions=self.distributions,
                            intermediate_values=record.scores(metric),
                        )
                    )
        return study

    def configuration(self, coordinates: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration, by database key, that these coordinates stand for."""
        backbone = str(coordinates.get("backbone", self._space.backbones[0]))
        found: dict[str, Any] = {"backbone": backbone, "strategy": self._strategy}
        axes = {axis.key: axis for axis in self._axes}
        for parameter in self._space.below(backbone, self._strategy):
            axis = axes.get(parameter.key)
            if axis is None:
                (found[parameter.key],) = parameter.values() or ()
            else:
                found[parameter.key] = axis.value(parameter, coordinates[parameter.key])
        return found

    def coordinates(self, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
        """The reverse; None of what is no point of the model.

        A trial may have been left before it had all its parameters, or be a baseline that lies
        outside the ranges.
        """
        if not configuration.keys() >= self.distributions.keys():
            return None
        backbone = configuration.get("backbone", self._space.backbones[0])
        parameters = {p.key: p for p in self._space.below(backbone, self._strategy)}
        if not all(
            p.contains(configuration[k]) for k, p in parameters.items() if k in configuration
        ):
            return None
        found = {
            axis.key: axis.coordinate(parameters[axis.key], configuration[axis.key])
            for axis in self._axes
        }
        return {key: found.get(key, configuration[key]) for key in self.distributions}


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """One parameter as the model sees it: as it is."""

    key: str
    distribution: BaseDistribution

    def coordinate(self, parameter: Parameter, value: Value) -> Any:
        return value

    def value(self, parameter: Parameter, coordinate: Any) -> Any:
        return coordinate


class _Rank(_Axis):
    """Numbers in a list: sorted, each its place."""

    def coordinate(self, parameter: Parameter, value: Value) -> Any:
        return _sorted(parameter).index(value)

    def value(self, parameter: Parameter, coordinate: Any) -> Any:
        return _sorted(parameter)[coordinate]


class _Logarithm(_Axis):
    """Sizes in a list, by their logarithm: what lies between two of them means the nearer one."""

    def coordinate(self, parameter: Parameter, value: Value) -> Any:
        return math.log2(float(value))

    def value(self, parameter: Parameter, coordinate: Any) -> Any:
        return min(_sorted(parameter), key=lambda size: abs(math.log2(size) - coordinate))


class _Share(_Axis):
    """A number of layers as the middle of those shares of the layers that mean it."""

    def coordinate(self, parameter: Parameter, value: Value) -> Any:
        low, num_values = _bounds(parameter)
        return (int(value) - low + 0.5) / num_values

    def value(self, parameter: Parameter, coordinate: Any) -> Any:
        low, num_values = _bounds(parameter)
        return low + min(math.floor(coordinate * num_values), num_values - 1)


def _axis(space: SearchSpace, strategy: str, parameter: Parameter) -> _Axis | None:
    key = parameter.key
    by_backbone = (p for b in space.backbones for p in space.below(b, strategy) if p.key == key)
    if all(len(p.values() or (0, 0)) == 1 for p in by_backbone):
        return None
    if parameter.choices is not None:
        if any(isinstance(choice, str) for choice in parameter.choices):
            return _Axis(key=key, distribution=CategoricalDistribution(parameter.choices))
        if parameter.name == "batch_size":
            return _Logarithm(key=key, distribution=FloatDistribution(*_logarithms(parameter)))
        return _Rank(key=key, distribution=IntDistribution(0, len(parameter.choices) - 1))
    if parameter.name == "num_unfrozen_layers":
        return _Share(key=key, distribution=FloatDistribution(0.0, 1.0))
    assert parameter.low is not None and parameter.high is not None
    if parameter.is_integer:
        log = parameter.log or parameter.name == "batch_size"
        low, high = int(parameter.low), int(parameter.high)
        return _Axis(key=key, distribution=IntDistribution(low, high, log=log))
    distribution = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return _Axis(key=key, distribution=distribution)


def _sorted(parameter: Parameter) -> list[Any]:
    assert parameter.choices is not None
    return sorted(parameter.choices, key=float)


def _logarithms(parameter: Parameter) -> tuple[float, float]:
    """From below the smallest size to above the largest, so that each has room on both sides."""
    places = [math.log2(size) for size in _sorted(parameter)]
    return places[0] - (places[1] - places[0]) / 2, places[-1] + (places[-1] - places[-2]) / 2


def _bounds(parameter: Parameter) -> tuple[int, int]:
    """The fewest layers, and how many numbers of layers there are."""
    assert parameter.low is not None and parameter.high is not None
    return int(parameter.low), int(parameter.high) - int(parameter.low) + 1


def _sampler(name: str, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed) if name == "random" else TPESampler(seed=seed)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
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
class SearchPlan:
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


def whose_turn(plan: SearchPlan, records: Sequence[TrialRecord]) -> str | None:
    """The strategy of the next trial; None where every configuration has been tried.

    Probes come first. A strategy whose configurations are used up leaves its turns to the other.
    """
    tried = tried_configurations(records)
    probes = plan.opening[: num_probes(plan.opening)]
    if any(frozen(probe) not in tried for probe in probes):
        return "feature_extraction"
    strategies = [s for s in plan.space.strategies if num_untried(plan.space, s, records) != 0]
    return next_strategy(plan.share, strategies, records) if strategies else None


def suggest_next(
    study: optuna.Study,
    plan: SearchPlan,
    records: Sequence[TrialRecord],
    worker: str,
    retry: TrialRecord | None = None,
) -> Suggestion:
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
    write_owner(trial, worker=worker, logical_number=number)
    fields = suggest(trial, plan.space)
    mine = [r for r in records if r.strategy == fields["strategy"]]
    earlier = [r for r in mine if r.counts and r.keyed_params == trial.params and retry is None]
    return Suggestion(
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


def _next_configuration(
    plan: SearchPlan, records: Sequence[TrialRecord], number: int
) -> dict[str, Any]:
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
    plan: SearchPlan, records: Sequence[TrialRecord], strategy: str
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


def _seed(plan: SearchPlan, number: int) -> int:
    return int(np.random.SeedSequence([plan.seed, number]).generate_state(1)[0])


def fixed_sampler(configuration: Mapping[str, Any], seed: int) -> BaseSampler:
    """Suggests this configuration, by database key; what it leaves out is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PartialFixedSampler(dict(configuration), RandomSampler(seed=seed))


def remaining(records: Sequence[TrialRecord], n_trials: int) -> tuple[int, int]:
    """How many trials of the total are not yet begun, and how many are running."""
    counts = count_states(records)
    running = counts.pop("running")
    return max(0, n_trials - sum(counts.values()) - running), running
