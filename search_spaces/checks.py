"""The laws of a search space. Messages name the key, the law and the value."""

import math

from search_spaces.fields import FIELDS, STRATEGIES, Field, Value
from search_spaces.space import Baseline, Parameter, SearchSpace, SpaceError


def check(space: SearchSpace) -> None:
    """Raise ``SpaceError`` where the space breaks a law that needs the backbones' depths."""
    for parameter in space.parameters:
        _check_parameter(parameter)
    for name in space.backbones:
        if name not in space.depths:
            known = ", ".join(sorted(space.depths))
            message = f"Unknown backbone '{name}'; choose from {known}."
            raise SpaceError(message, ("backbone", "choices"))
    named = {(p.name, s) for p in space.parameters for s in _strategies_of(p)}
    for strategy in space.strategies:
        _check_complete(named, strategy)
    if "fine_tuning" in space.strategies:
        _check_depth(space)
    for index, baseline in enumerate(space.baselines):
        if baseline.strategy in space.strategies:
            _check_baseline(space, baseline, index)


def _check_baseline(space: SearchSpace, baseline: Baseline, index: int) -> None:
    try:
        space.baseline_configuration(baseline, space.backbones[0])
    except SpaceError as error:
        raise SpaceError(str(error), ("baselines", str(index), *error.at)) from None


def _strategies_of(parameter: Parameter) -> tuple[str, ...]:
    return STRATEGIES if parameter.strategy is None else (parameter.strategy,)


def _check_complete(named: set[tuple[str, str]], strategy: str) -> None:
    needed = ["learning_rate", "batch_size"]
    needed += ["num_unfrozen_layers"] if strategy == "fine_tuning" else []
    for name in needed:
        if (name, strategy) not in named:
            raise SpaceError(f"[{name}] must be given for strategy {strategy}", (name,))


def _check_depth(space: SearchSpace) -> None:
    for backbone in space.backbones:
        for p in space.below(backbone, "fine_tuning"):
            if p.name != "num_unfrozen_layers":
                continue
            depth = space.depths[backbone]
            values = p.values()
            if not values or min(map(int, values)) < 1 or max(map(int, values)) > depth:
                raise SpaceError(
                    f"[num_unfrozen_layers] must lie within 1 and {backbone}'s depth {depth}",
                    p.table,
                )


def _check_parameter(parameter: Parameter) -> None:
    """Raise ``SpaceError`` where one parameter breaks a law of its field."""
    broken = _broken_law(parameter)
    if broken is not None:
        law, key = broken
        at = parameter.table if key is None else (*parameter.table, key)
        raise SpaceError(f"[{_title(parameter)}] {law}", at)


def _title(parameter: Parameter) -> str:
    decides = parameter.name in ("backbone", "strategy")
    return parameter.name if decides else parameter.key


def _broken_law(parameter: Parameter) -> tuple[str, str | None] | None:
    """The first law that does not hold, in words, and the key that breaks it."""
    field = FIELDS[parameter.name]
    if field.fine_tuning_only and parameter.strategy != "fine_tuning":
        return "belongs to fine_tuning alone: feature extraction trains no layer", None
    if parameter.name in ("backbone", "strategy") and parameter.strategy is not None:
        return "must have choices for both strategies at once", None
    kinds = (parameter.choices, parameter.low, parameter.depth_share)
    if sum(kind is not None for kind in kinds) != 1:
        return "must have either choices or low and high", None
    if parameter.low is None and (parameter.high is not None or parameter.log):
        return "high and log go with low", "log" if parameter.log else "high"
    if parameter.depth_share is not None and parameter.name != "num_unfrozen_layers":
        return "depth_share goes with num_unfrozen_layers alone", "depth_share"
    if field.kind is str and parameter.choices is None:
        return "must have choices: its values are names", "low"
    return _broken_range(parameter) or _broken_values(parameter, field)


def _broken_range(parameter: Parameter) -> tuple[str, str] | None:
    low, high = parameter.low, parameter.high
    if low is None:
        return None
    if high is None and parameter.name != "num_unfrozen_layers":
        return "has low, so it must have high", "low"
    if high is not None and low > high:
        return f"low <= high must hold, but got low={low}, high={high}", "low"
    if parameter.log and low <= 0:
        return f"low > 0 must hold with log = true, but got low={low}", "low"
    return None


def _broken_values(parameter: Parameter, field: Field) -> tuple[str, str] | None:
    values: list[tuple[str, Value | None]] = [("low", parameter.low), ("high", parameter.high)]
    values += [("choices", choice) for choice in parameter.choices or ()]
    for key, value in values:
        if value is not None and not _obeys(field, value):
            return f"values must be {field.law}, but got {value!r}", key
    if parameter.choices is not None and len(set(parameter.choices)) < len(parameter.choices):
        return "choices must differ from each other", "choices"
    return None


def _obeys(field: Field, value: Value) -> bool:
    if not isinstance(value, (int, float) if field.kind is float else field.kind):
        return False
    return (isinstance(value, str) or math.isfinite(value)) and field.holds(value)
