"""One parameter given anew on the command line: ``learning_rate@fine_tuning=1e-6..1e-3``.

Knows how such a text is written and where it goes in a space. Whether the space still keeps its
laws is ``checks.check``'s to say.
"""

from collections.abc import Iterable
from typing import get_args

from search_spaces.checks import check
from search_spaces.fields import FIELDS, STRATEGIES, StrategyName, Value
from search_spaces.space import Baseline, Parameter, SearchSpace, SpaceError

FORM = "NAME=LOW..HIGH, NAME=A,B,C or NAME=VALUE, with NAME@STRATEGY for one strategy alone"


def with_overrides(space: SearchSpace, texts: Iterable[str]) -> SearchSpace:
    """The space with the parameters that ``texts`` describe in the place of its own.

    A baseline takes a value that is then the only one; one that lies outside is left out.

    Raises:
        SpaceError: the space breaks a law, or a text does, is not of the form, names no field.
    """
    check(space)
    for text in texts:
        try:
            parameter = _parse(text, space)
            space = _replaced(space, parameter)
            if len(parameter.choices or ()) == 1:
                space = _with_fixed(space, parameter)
            check(space.model_copy(update={"baselines": ()}))
        except SpaceError as error:
            raise SpaceError(f"--set {text}: {str(error).rstrip('.')}.") from None
    kept = tuple(b for b in space.baselines if _lies_within(space, b))
    return space.model_copy(update={"baselines": kept})


def _with_fixed(space: SearchSpace, parameter: Parameter) -> SearchSpace:
    """Let baselines no longer state what has one value only."""
    without = tuple(
        Baseline(
            strategy=baseline.strategy,
            depth_share=None if parameter.name == "num_unfrozen_layers" else baseline.depth_share,
            **{k: v for k, v in (baseline.model_extra or {}).items() if k != parameter.name},
        )
        if parameter.strategy in (None, baseline.strategy)
        else baseline
        for baseline in space.baselines
    )
    return space.model_copy(update={"baselines": without})


def _lies_within(space: SearchSpace, baseline: Baseline) -> bool:
    try:
        space.baseline_configuration(baseline, space.backbones[0])
    except SpaceError:
        return False
    return True


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
    whose = _strategy(name, strategy)
    if ".." not in value:
        choices = tuple(_value(name, part) for part in value.split(","))
        return Parameter(name=name, strategy=whose, choices=choices)
    low, high = (_value(name, part) if part else None for part in value.split("..", 1))
    if isinstance(low, str) or isinstance(high, str):
        raise SpaceError(f"values of {name} are names: write them as {name}=A,B")
    return Parameter(
        name=name, strategy=whose, low=low, high=high, log=_is_log(space, name, whose)
    )


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
