"""Read a search space from a TOML file or a preset; errors name the file, the key and the law."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.checks import check
from search_spaces.fields import FIELDS, STRATEGIES, StrategyName
from search_spaces.space import Baseline, Parameter, SearchSpace, SpaceError

_RESERVED = ("name", "baselines", "suggested")
_SUGGESTED = ("trials", "epochs", "image_size", "top")
# tomllib keeps no line numbers: enough of TOML to find the line of a table or key again.
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def preset_names() -> tuple[str, ...]:
    """Names of the spaces that are shipped."""
    names = (entry.name for entry in files("search_spaces.presets").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_space(path: str | Path, depths: Mapping[str, int]) -> SearchSpace:
    """Load and check the preset or TOML file ``path``.

    Args:
        path: a preset's name, or a file.
        depths: number of blocks of every backbone that may be named. It may know more names than
            it lists: what the space chooses is looked up.

    Raises:
        SpaceError: no such preset or file, malformed TOML, or a broken law; with file and line.
    """
    text = _read(str(path))
    try:
        return _parse(tomllib.loads(text), depths)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{path}: not valid TOML: {error}.") from None
    except SpaceError as error:
        line = _line(text, error.at)
        place = path if line is None else f"{path}:{line}"
        raise SpaceError(f"{place}: {str(error).rstrip('.')}.") from None


def _line(text: str, at: tuple[str, ...]) -> int | None:
    """The line of the key or table ``at``, else of the innermost table around it."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    num_elements: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _keys(header[2])
            if header[1] == "[[":
                table = (*table, str(num_elements[header[2]]))
                num_elements[header[2]] += 1
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_keys(key[1])), number)
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at)


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip(" \"'") for part in dotted.split("."))


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
            known = ", ".join((*_RESERVED, *FIELDS))
            raise SpaceError(f"unknown key '{key}'; choose from {known}", (key,))
    for key in ("name", "backbone", "strategy"):
        if key not in document:
            raise SpaceError(f"key '{key}' is missing")
    if not isinstance(document["name"], str):
        raise SpaceError(f"'name' must be a text, but got {document['name']!r}", ("name",))
    parameters = tuple(_parameters(document))
    space = SearchSpace(
        name=document["name"],
        depths=_known_depths(parameters, depths),
        parameters=parameters,
        baselines=tuple(_baselines(document.get("baselines", []))),
        suggested=_suggested(document.get("suggested", {})),
    )
    check(space)
    return space


def _known_depths(parameters: Iterable[Parameter], depths: Mapping[str, int]) -> dict[str, int]:
    """The depths that are listed, and those of the backbones that the space chooses."""
    chosen = next(p.choices or () for p in parameters if p.name == "backbone")
    known = dict(depths)
    for name in map(str, chosen):
        try:
            known[name] = depths[name]
        except KeyError:
            continue  # The check of the space says so.
        except ValueError as error:  # Unknown or refused, with the reason.
            raise SpaceError(str(error), ("backbone", "choices")) from None
    return known


def _suggested(table: object) -> dict[str, int]:
    if not isinstance(table, dict):
        raise SpaceError(f"suggested must be a table, but got {table!r}", ("suggested",))
    for key, value in table.items():
        if key not in _SUGGESTED or type(value) is not int or value < 1:
            raise SpaceError(
                f"[suggested] holds counts of {', '.join(_SUGGESTED)}, but got {key}={value!r}",
                ("suggested", key),
            )
    return table


def _baselines(entries: object) -> Iterator[Baseline]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SpaceError("baselines are written as [[baselines]], one table each", ("baselines",))
    for index, entry in enumerate(entries):
        try:
            yield Baseline(**entry)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            at = ("baselines", str(index), key)
            raise SpaceError(f"[[baselines]] '{key}': {first['msg']}", at) from None


def _parameters(document: Mapping[str, Any]) -> Iterator[Parameter]:
    for name in FIELDS:
        if name not in document:
            continue
        table = document[name]
        if not isinstance(table, dict):
            raise SpaceError(f"[{name}] must be a table with choices, or low and high", (name,))
        by_strategy = [strategy for strategy in STRATEGIES if strategy in table]
        if not by_strategy:
            yield _parameter(name, None, table)
        for strategy in by_strategy:
            if set(table) - set(STRATEGIES):
                message = f"[{name}] has both a range for each strategy and one for all"
                raise SpaceError(message, (name,))
            yield _parameter(name, strategy, table[strategy])


def _parameter(name: str, strategy: StrategyName | None, table: object) -> Parameter:
    at = (name,) if strategy is None else (name, strategy)
    title = ".".join(at)
    if not isinstance(table, dict):
        raise SpaceError(f"[{title}] must be a table with choices, or low and high", at)
    try:
        return Parameter(name=name, strategy=strategy, **table)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise SpaceError(f"[{title}] '{key}': {first['msg']}", (*at, key)) from None
    except TypeError:
        raise SpaceError(f"[{title}] takes choices, or low, high and log", at) from None
