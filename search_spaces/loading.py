"""Read a search space from a TOML file or a preset; errors name the file, the key and the law."""

import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.checks import check
from search_spaces.fields import FIELDS, STRATEGIES, StrategyName
from search_spaces.space import Baseline, Parameter, SearchSpace, SpaceError

_RESERVED = ("name", "baselines", "suggested")
_SUGGESTED = ("trials", "epochs", "image_size")


def preset_names() -> tuple[str, ...]:
    """Names of the spaces that are shipped."""
    names = (entry.name for entry in files("search_spaces.presets").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_space(path: str | Path, depths: Mapping[str, int]) -> SearchSpace:
    """Load and check the preset or TOML file ``path``.

    Args:
        path: a preset's name, or a file.
        depths: number of blocks of every backbone that may be named.

    Raises:
        SpaceError: no such preset or file, malformed TOML (with the line), or a broken law.
    """
    text = _read(str(path))
    try:
        return _parse(tomllib.loads(text), depths)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{path}: not valid TOML: {error}.") from None
    except SpaceError as error:
        raise SpaceError(f"{path}: {str(error).rstrip('.')}.") from None


def _read(path: str) -> str:
    if path in preset_names():
        return (files("search_spaces.presets") / f"{path}.toml").read_text(encoding="utf-8")
    if not Path(path).is_file():
        raise SpaceError(
            f"Unknown space '{path}'; choose from {', '.join(preset_names())} or give a TOML file."
        )
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SpaceError(f"{path}: not a text file in UTF-8.") from None


def _parse(document: dict[str, Any], depths: Mapping[str, int]) -> SearchSpace:
    for key in document:
        if key not in (*FIELDS, *_RESERVED):
            raise SpaceError(
                f"unknown key '{key}'; choose from {', '.join((*_RESERVED, *FIELDS))}"
            )
    for key in ("name", "backbone", "strategy"):
        if key not in document:
            raise SpaceError(f"key '{key}' is missing")
    suggested = document.get("suggested", {})
    for key, value in suggested.items() if isinstance(suggested, dict) else ():
        if key not in _SUGGESTED or type(value) is not int or value < 1:
            raise SpaceError(
                f"[suggested] holds counts of {', '.join(_SUGGESTED)}, but got {key}={value!r}"
            )
    try:
        space = SearchSpace(
            name=document["name"],
            depths=dict(depths),
            parameters=tuple(_parameters(document)),
            baselines=tuple(Baseline(**entry) for entry in document.get("baselines", ())),
            suggested=document.get("suggested", {}),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpaceError(f"'{where}': {first['msg']}") from None
    except TypeError:
        raise SpaceError("baselines are written as [[baselines]], one table each") from None
    for key, value in space.suggested.items():
        if key not in _SUGGESTED or value < 1:
            law = f"holds {', '.join(_SUGGESTED)}, each >= 1"
            raise SpaceError(f"[suggested] {law}, but got {key}={value}")
    check(space)
    return space


def _parameters(document: Mapping[str, Any]) -> Iterator[Parameter]:
    for name in FIELDS:
        if name not in document:
            continue
        table = document[name]
        if not isinstance(table, dict):
            raise SpaceError(f"[{name}] must be a table with choices, or low and high")
        by_strategy = [strategy for strategy in STRATEGIES if strategy in table]
        if not by_strategy:
            yield _parameter(name, None, table)
        for strategy in by_strategy:
            if set(table) - set(STRATEGIES):
                raise SpaceError(f"[{name}] has both a range for each strategy and one for all")
            yield _parameter(name, strategy, table[strategy])


def _parameter(name: str, strategy: StrategyName | None, table: object) -> Parameter:
    title = name if strategy is None else f"{name}.{strategy}"
    if not isinstance(table, dict):
        raise SpaceError(f"[{title}] must be a table with choices, or low and high")
    try:
        return Parameter(name=name, strategy=strategy, **table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        raise SpaceError(f"[{title}] '{key}': {first['msg']}") from None
    except TypeError:
        raise SpaceError(f"[{title}] takes choices, or low, high and log") from None
