"""One parameter given anew on the command line: ``learning_rate@fine_tuning=1e-6..1e-3``.

Knows how such a text is written and where it goes in a space. Whether the space still keeps its
laws is ``checks.check``'s to say.
"""

from collections.abc import Iterable
from typing import get_args

from search_spaces.checks import check
from search_spaces.fields import FIELDS, STRATEGIES, StrategyName, Value
from search_spaces.space import Baseline, Parameter, SearchSpace, SpaceError, share_of_depth

FORM = (
    "NAME=LOW..HIGH (with ,log or ,linear behind it for the scale), NAME=A,B,C or NAME=VALUE; "
    "NAME@STRATEGY for one strategy alone"
)
SCALES = {"log": True, "linear": False}


def with_overrides(space: SearchSpace, texts: Iterable[str]) -> SearchSpace:
    """The space with the parameters that ``texts`` describe in the place of its own.

    A value of a baseline that then lies outside moves to the nearest one that is allowed.

    Raises:
        SpaceError: the space breaks a law, or a text does, is not of the form, names no field.
    """
    check(space)
    for text in texts:
        try:
            parameter = _parse(text, space)
            space = _replaced(space, parameter)
            check(space.model_copy(update={"baselines": ()}))
        except SpaceError as error:
            raise SpaceError(f"--set {text}: {str(error).rstrip('.')}.") from None
        moved = tuple(_moved(space, parameter, baseline) for baseline in space.baselines)
        space = space.model_copy(update={"baselines": moved})
    return space


def _moved(space: SearchSpace, parameter: Parameter, baseline: Baseline) -> Baseline:
    """The baseline with its value of ``parameter`` moved to the nearest one that is allowed."""
    if parameter.strategy not in (None, baseline.strategy):
        return baseline
    backbone, name = space.backbones[0], parameter.name
    bounded = next(p for p in space.below(backbone, baseline.strategy) if p.name == name)
    given = dict(baseline.model_extra or {})
    value = given.get(name, FIELDS[name].default)
    if name == "num_unfrozen_layers" and baseline.depth_share is not None:
        value = share_of_depth(baseline.depth_share, space.depths[backbone])
    if value is None or bounded.contains(value):
        return baseline
    given[name] = _nearest(bounded, value)
    share = None if name == "num_unfrozen_layers" else baseline.depth_share
    return Baseline(strategy=baseline.strategy, depth_share=share, **given)


def _nearest(parameter: Parameter, value: Value) -> Value:
    if isinstance(value, str):
        return (parameter.choices or (value,))[0]
    low, high = parameter.low, parameter.high
    if low is not None and high is not None:
        return min(max(value, low), high)
    numbers = [choice for choice in parameter.choices or () if not isinstance(choice, str)]
    return min(numbers, key=lambda choice: abs(choice - value))


def _parse(text: str, space: SearchSpace) -> Parameter:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key or not value:
        raise SpaceError(f"it is written as {FORM}")
    name, at, strategy = key.partition("@")
    if name in ("backbone", "strategy"):
        flag = {"backbone": "--backbones", "strategy": "--strategies"}[name]
        raise SpaceError(f"{name} is chosen with {flag}")
    if name not in FIELDS:
        raise SpaceError(f"unknown parameter '{name}'; choose from {', '.join(list(FIELDS)[2:])}")
    if at and strategy not in STRATEGIES:
        raise SpaceError(f"unknown strategy '{strategy}'; choose from {', '.join(STRATEGIES)}")
    if at and strategy not in space.strategies:
        raise SpaceError(f"strategy '{strategy}' is not searched")
    whose = _strategy(name, strategy)
    if ".." not in value:
        choices = tuple(_value(name, part) for part in value.split(","))
        return Parameter(name=name, strategy=whose, choices=choices)
    bounds, comma, scale = value.partition(",")
    if comma and scale.strip() not in SCALES:
        raise SpaceError(f"it is written as {FORM}")
    low, high = (_value(name, part) if part else None for part in bounds.split("..", 1))
    if isinstance(low, str) or isinstance(high, str):
        raise SpaceError(f"values of {name} are names: write them as {name}=A,B")
    log = SCALES[scale.strip()] if comma else _is_log(space, name, whose)
    if log and low is not None and low <= 0 and FIELDS[name].holds(low):
        raise SpaceError(
            f"{name} is searched on a logarithmic scale, where {low:g} is no bound: "
            f"write {name}={bounds},linear"
        )
    return Parameter(name=name, strategy=whose, low=low, high=high, log=log)


def _strategy(name: str, strategy: str) -> StrategyName | None:
    if not strategy:
        return "fine_tuning" if FIELDS[name].fine_tuning_only else None
    return next(known for known in get_args(StrategyName) if known == strategy)


def _value(name: str, text: str) -> Value:
    kind = FIELDS[name].kind
    try:
        return kind(text.strip())
    except ValueError:
        law = "whole numbers" if kind is int else "numbers"
        raise SpaceError(f"values of {name} are {law}, but got {text.strip()!r}") from None


def _is_log(space: SearchSpace, name: str, strategy: str | None) -> bool:
    """A range stays logarithmic where it was; a new one is linear."""
    return any(
        p.log
        for p in space.parameters
        if p.name == name and (strategy in (None, p.strategy) or not p.strategy)
    )


def _replaced(space: SearchSpace, new: Parameter) -> SearchSpace:
    """Put ``new`` in the place of what it replaces, or behind all others."""
    parameters: list[Parameter] = []
    for old in space.parameters:
        if old.name != new.name:
            parameters.append(old)
        elif new.strategy is not None:
            others = [s for s in STRATEGIES if s != new.strategy and old.strategy in (None, s)]
            parameters += [old.model_copy(update={"strategy": s}) for s in others]
    index = next(
        (i for i, p in enumerate(space.parameters) if p.name == new.name), len(parameters)
    )
    parameters.insert(index, new)
    return space.model_copy(update={"parameters": tuple(parameters)})
