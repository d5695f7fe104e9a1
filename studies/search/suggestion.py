"""What a sampler suggests for one strategy, searched for itself in coordinates of its own.

Knows spaces, records and Optuna's samplers; stores nothing. The model is built anew from the
records for every suggestion, so that it is the same whenever it is asked again.
"""

import math
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
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from search_spaces import Parameter, SearchSpace
from search_spaces.fields import Value
from studies.database.trials import TrialRecord

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
