"""``Parameter`` and ``SearchSpace``: a space of training configurations, checked when built.

A space is a value: it can be narrowed, listed, counted and written as JSON. It never draws a
configuration: that is the sampler's work.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from search_spaces.fields import FIELDS, StrategyName, Value

Scalar = StrictStr | StrictInt | StrictFloat
DepthShare = Annotated[float, Field(gt=0, le=1)]


class SpaceError(ValueError):
    """A space breaks a law; the message names the key, the value and the law.

    ``at`` is the place in the file as table and key names, as far as it is known.
    """

    def __init__(self, message: str, at: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.at = at


class Parameter(BaseModel):
    """One searched field: a list of choices, or a range, perhaps for one strategy only.

    ``low`` and ``high`` are inclusive; ``high=None`` stands for the chosen backbone's depth.
    ``depth_share`` fixes ``num_unfrozen_layers`` to that share of the chosen backbone's depth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    strategy: StrategyName | None = None
    choices: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None
    low: StrictInt | StrictFloat | None = None
    high: StrictInt | StrictFloat | None = None
    log: StrictBool = False
    depth_share: DepthShare | None = None

    @property
    def key(self) -> str:
        """The name in the database: a range for each strategy needs a name for each."""
        if self.strategy is None or FIELDS[self.name].fine_tuning_only:
            return self.name
        return f"{self.name}@{self.strategy}"

    @property
    def table(self) -> tuple[str, ...]:
        """The table in a file that declares it."""
        return (self.name,) if self.strategy is None else (self.name, self.strategy)

    @property
    def is_integer(self) -> bool:
        return FIELDS[self.name].kind is int

    def values(self) -> tuple[Value, ...] | None:
        """All values in order, or None where the range is continuous."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        if self.low == self.high:
            return (self.low,)
        return tuple(range(int(self.low), int(self.high) + 1)) if self.is_integer else None

    def contains(self, value: Value) -> bool:
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None and self.high is not None
        return not isinstance(value, str) and self.low <= value <= self.high


class Baseline(BaseModel):
    """A recipe that is run beside what is sampled.

    ``depth_share`` says how much of the backbone is unfrozen. Where the space has a continuous
    range, a baseline may lie outside it: what others use need not be worth searching.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Scalar]

    strategy: StrategyName
    depth_share: DepthShare | None = None


class SearchSpace(BaseModel):
    """A checked search space over backbones of known depth (in blocks)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    depths: dict[str, int]
    parameters: tuple[Parameter, ...]
    baselines: tuple[Baseline, ...] = ()
    suggested: dict[str, int] = {}

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self._choices("backbone"))

    @property
    def strategies(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self._choices("strategy"))

    def _choices(self, name: str) -> tuple[Value, ...]:
        choices = next(p.choices for p in self.parameters if p.name == name)
        assert choices is not None
        return choices

    def top(self) -> tuple[Parameter, ...]:
        """The two parameters that decide which others there are: backbone and strategy."""
        named = {p.name: p for p in self.parameters}
        return named["backbone"], named["strategy"]

    def below(self, backbone: str, strategy: str) -> tuple[Parameter, ...]:
        """The remaining parameters for this backbone and strategy, with their bounds filled in."""
        return tuple(
            self._bounded(p, backbone)
            for p in self.parameters
            if p.name not in ("backbone", "strategy") and p.strategy in (None, strategy)
        )

    def _bounded(self, parameter: Parameter, backbone: str) -> Parameter:
        if parameter.name != "num_unfrozen_layers" or parameter.choices is not None:
            return parameter
        depth = self.depths[backbone]
        if parameter.depth_share is not None:
            layers = share_of_depth(parameter.depth_share, depth)
            return parameter.model_copy(update={"low": layers, "high": layers})
        high = depth if parameter.high is None else min(int(parameter.high), depth)
        return parameter.model_copy(update={"high": high})

    def boundaries(self, backbone: str) -> tuple[int, ...]:
        """The freeze boundaries at which a configuration may start: depth less unfrozen layers."""
        unfrozen = {0} if "feature_extraction" in self.strategies else set()
        if "fine_tuning" in self.strategies:
            for parameter in self.below(backbone, "fine_tuning"):
                if parameter.name == "num_unfrozen_layers":
                    unfrozen |= {int(value) for value in parameter.values() or ()}
        return tuple(sorted(self.depths[backbone] - layers for layers in unfrozen))

    def configurations(self) -> Iterator[dict[str, Value]]:
        """Every configuration, by database key.

        Raises:
            SpaceError: the space is not finite (``size()`` is None).
        """
        if self.size() is None:
            raise SpaceError(f"Space '{self.name}' is continuous: its points can't be listed.")
        for backbone, strategy in itertools.product(self.backbones, self.strategies):
            parameters = self.below(backbone, strategy)
            for values in itertools.product(*(p.values() or () for p in parameters)):
                keys = (p.key for p in parameters)
                yield {
                    "backbone": backbone,
                    "strategy": strategy,
                    **dict(zip(keys, values, strict=True)),
                }

    def size(self) -> int | None:
        """Number of configurations, or None where a range is continuous."""
        ranges = (
            p
            for backbone, strategy in itertools.product(self.backbones, self.strategies)
            for p in self.below(backbone, strategy)
        )
        if any(p.values() is None for p in ranges):
            return None
        return self.num_combinations()

    def num_combinations(self) -> int:
        """Number of combinations of all values that can be listed; continuous ranges count 1."""
        return sum(
            math.prod(len(p.values() or (0,)) for p in self.below(backbone, strategy))
            for backbone, strategy in itertools.product(self.backbones, self.strategies)
        )

    def narrowed(
        self,
        *,
        backbones: Iterable[str] | None = None,
        strategies: Iterable[str] | None = None,
        depths: Mapping[str, int] | None = None,
    ) -> "SearchSpace":
        """The same space over other backbones, or over some of its strategies.

        Args:
            depths: number of blocks of backbones that the space need not know yet; it may raise
                ValueError for a name that is none.

        Raises:
            SpaceError: a strategy that the space does not have. Whether the backbones are known
                is ``checks.check``'s to say.
        """
        backbones = None if backbones is None else tuple(dict.fromkeys(backbones))
        chosen = {"backbone": backbones, "strategy": strategies}
        more = {name: depths[name] for name in backbones or () if depths is not None}
        for strategy in strategies or ():
            if strategy not in self.strategies:
                raise SpaceError(
                    f"Unknown strategy '{strategy}'; choose from {', '.join(self.strategies)}."
                )
        parameters = tuple(
            p.model_copy(
                update={"choices": tuple(dict.fromkeys(chosen[p.name] or p.choices or ()))}
            )
            if p.name in chosen
            else p
            for p in self.parameters
        )
        kept = tuple(b for b in self.baselines if strategies is None or b.strategy in strategies)
        known = {**self.depths, **more}
        return self.model_copy(
            update={"parameters": parameters, "baselines": kept, "depths": known}
        )

    def baseline_configuration(self, baseline: Baseline, backbone: str) -> dict[str, Value]:
        """The baseline on one backbone, by database key; a recipe not stated is left as it is off.

        Raises:
            SpaceError: a value is missing, unknown or outside the space.
        """
        given: Mapping[str, Value] = baseline.model_extra or {}
        parameters = self.below(backbone, baseline.strategy)
        unknown = set(given) - {p.name for p in parameters}
        if unknown:
            key = min(unknown)
            raise SpaceError(f"baseline key '{key}' is not a parameter of this space", (key,))
        values: dict[str, Value] = {"backbone": backbone, "strategy": baseline.strategy}
        for parameter in parameters:
            values[parameter.key] = self._baseline_value(baseline, parameter, backbone)
        return values

    def _baseline_value(self, baseline: Baseline, parameter: Parameter, backbone: str) -> Value:
        given: Mapping[str, Value] = baseline.model_extra or {}
        only = parameter.values()
        if parameter.name == "num_unfrozen_layers" and baseline.depth_share is not None:
            value: Value = share_of_depth(baseline.depth_share, self.depths[backbone])
        elif parameter.name in given:
            value = given[parameter.name]
        elif only is not None and len(only) == 1:
            value = only[0]
        else:
            value = self._default(baseline, parameter)
        is_continuous = parameter.values() is None and not isinstance(value, str)
        if not parameter.contains(value) and not is_continuous:
            raise SpaceError(
                f"baseline value {parameter.name}={value!r} lies outside the space",
                (parameter.name,),
            )
        if not isinstance(value, str) and not FIELDS[parameter.name].holds(value):
            law = FIELDS[parameter.name].law
            raise SpaceError(
                f"baseline value {parameter.name}={value!r} must be {law}", (parameter.name,)
            )
        return value

    def stored(self, parameter: Parameter) -> Parameter:
        """The parameter with a continuous range that is wide enough for the baselines as well.

        In a database every value must lie in its range.
        """
        if parameter.values() is not None:
            return parameter
        assert parameter.low is not None and parameter.high is not None
        stated = [
            (b.model_extra or {}).get(parameter.name)
            for b in self.baselines
            if parameter.strategy in (None, b.strategy)
        ]
        values = [value for value in stated if value is not None and not isinstance(value, str)]
        bounds = {
            "low": min(parameter.low, *values) if values else parameter.low,
            "high": max(parameter.high, *values) if values else parameter.high,
        }
        return parameter.model_copy(update=bounds)

    def _default(self, baseline: Baseline, parameter: Parameter) -> Value:
        default = FIELDS[parameter.name].default
        if default is None:
            way = " (depth_share)" if parameter.name == "num_unfrozen_layers" else ""
            raise SpaceError(f"a {baseline.strategy} baseline must state {parameter.name}{way}")
        return default


def share_of_depth(depth_share: float, depth: int) -> int:
    """Number of layers that a share of the depth stands for, at least one."""
    return max(1, round(depth_share * depth))
