"""The laws of a search space. Messages name the key, the law and the value."""

import math

from search_spaces.fields import FIELDS, STRATEGIES, Field, Value
from search_spaces.space import Parameter, SearchSpace, SpaceError


def check(space: SearchSpace) -> None:
    """Raise ``SpaceError`` where the space breaks a law that needs the backbones' depths."""
    for parameter in space.parameters:
        _check_parameter(parameter)
    for name in space.backbones:
        if name not in space.depths:
            known = ", ".join(sorted(space.depths))
            raise SpaceError(f"Unknown backbone '{name}'; choose from {known}.")
    named = {(p.name, s) for p in space.parameters for s in _strategies_of(p)}
    for strategy in space.strategies:
        _check_complete(named, strategy)
    if "fine_tuning" in space.strategies:
        _check_depth(space)
    for baseline in space.baselines:
        if baseline.strategy in space.strategies:
            space.baseline_configuration(baseline, space.backbones[0])


def _strategies_of(parameter: Parameter) -> tuple[str, ...]:
    return STRATEGIES if parameter.strategy is None else (parameter.strategy,)


def _check_complete(named: set[tuple[str, str]], strategy: str) -> None:
    needed = ["learning_rate", "batch_size"]
    needed += ["num_unfrozen_layers"] if strategy == "fine_tuning" else []
    for name in needed:
        if (name, strategy) not in named:
            raise SpaceError(f"[{name}] must be given for strategy {strategy}")


def _check_depth(space: SearchSpace) -> None:
    for backbone in space.backbones:
        for p in space.below(backbone, "fine_tuning"):
            if p.name != "num_unfrozen_layers":
                continue
            depth = space.depths[backbone]
            values = p.values()
            if not values or min(map(int, values)) < 1 or max(map(int, values)) > depth:
                raise SpaceError(
                    f"[num_unfrozen_layers] must lie within 1 and {backbone}'s depth {depth}"
                )


def _check_parameter(parameter: Parameter) -> None:
    """Raise ``SpaceError`` where one parameter breaks a law of its field."""
    field, key = FIELDS[parameter.name], parameter.key
    if parameter.name == "num_unfrozen_layers" and parameter.strategy != "fine_tuning":
        raise SpaceError(
            "[num_unfrozen_layers] belongs to fine_tuning alone: feature extraction is 0"
        )
    if parameter.name in ("backbone", "strategy") and parameter.strategy is not None:
        raise SpaceError(f"[{parameter.name}] must have choices for both strategies at once")
    kinds = (parameter.choices, parameter.low, parameter.depth_share)
    if sum(kind is not None for kind in kinds) != 1:
        raise SpaceError(f"[{key}] must have either choices or low and high")
    if parameter.low is None and (parameter.high is not None or parameter.log):
        raise SpaceError(f"[{key}] high and log go with low")
    if parameter.depth_share is not None and parameter.name != "num_unfrozen_layers":
        raise SpaceError(f"[{key}] depth_share goes with num_unfrozen_layers alone")
    if field.kind is str and parameter.choices is None:
        raise SpaceError(f"[{key}] must have choices: its values are names")
    if parameter.low is not None:
        _check_range(parameter)
    for value in parameter.choices or (parameter.low, parameter.high):
        if value is not None and not _obeys(field, value):
            raise SpaceError(f"[{key}] values must be {field.law}, but got {value!r}")
    if parameter.choices is not None and len(set(parameter.choices)) < len(parameter.choices):
        raise SpaceError(f"[{key}] choices must differ from each other")


def _obeys(field: Field, value: Value) -> bool:
    if not isinstance(value, (int, float) if field.kind is float else field.kind):
        return False
    return (isinstance(value, str) or math.isfinite(value)) and field.holds(value)


def _check_range(parameter: Parameter) -> None:
    key, low, high = parameter.key, parameter.low, parameter.high
    assert low is not None
    if high is None and parameter.name != "num_unfrozen_layers":
        raise SpaceError(f"[{key}] has low, so it must have high")
    if high is not None and low > high:
        raise SpaceError(f"[{key}] low <= high must hold, but got low={low}, high={high}")
    if parameter.log and low <= 0:
        raise SpaceError(f"[{key}] low > 0 must hold with log = true, but got low={low}")
