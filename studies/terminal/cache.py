"""`cache`: what the cache folder holds and how much of the disk it takes; frees it when asked.

Knows sizes and times. Knows neither a study nor what is in an entry, and makes no folder.
"""

import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transfer.cache import cache_path, clear, default_limit, show_size, usage

WORDS = {
    "images": "decoded images",
    "facts": "hashes and sizes of images",
    "activations": "activations",
    "speed": "speed of backbones",
}


def look_at_cache(given: Path | None, *, free: bool = False) -> dict[str, Any]:
    """The cache folder, the limit of activations, and its kinds; freed before if asked.

    ``freed_bytes`` is None where nothing was to be freed; ``last_used`` is in seconds since 1970.

    Raises:
        ValueError: the folder can't be read.
    """
    folder = cache_path(given)
    freed = clear(folder) if free else None
    return {
        "folder": str(folder),
        "limit_bytes": default_limit(folder),
        "kinds": [asdict(kind) for kind in usage(folder)],
        "freed_bytes": freed,
    }


def print_cache(console: Console, found: Mapping[str, Any]) -> None:
    """Print what ``look_at_cache`` returned: a table of kinds and what can be done."""
    lines = [f"The cache is {found['folder']}"]
    if found["freed_bytes"] is not None:
        lines.append(f"Freed {show_size(found['freed_bytes'])}.")
    if found["kinds"]:
        for line in lines:
            _print(console, line)
        console.print(_table(found["kinds"]))
        lines = [_how_to_free(found)]
    else:
        lines.append("It is empty.")
    lines.append(
        f"`run` keeps at most {show_size(found['limit_bytes'])} of activations; "
        "--cache-limit says otherwise."
    )
    for line in lines:
        _print(console, line)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)  # Paths and commands: to be copied whole.


def _table(kinds: list[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("what")
    for column in ("entries", "size", "last used"):
        table.add_column(column, justify="right", no_wrap=True)
    for kind in kinds:
        table.add_row(
            Text(WORDS[kind["name"]]),
            f"{kind['num_entries']:,}",
            show_size(kind["num_bytes"]),
            _day(kind["last_used"]),
        )
    table.add_section()
    total = sum(kind["num_bytes"] for kind in kinds)
    table.add_row("all", f"{sum(kind['num_entries'] for kind in kinds):,}", show_size(total), "")
    return table


def _day(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _how_to_free(found: Mapping[str, Any]) -> str:
    if found["freed_bytes"] is not None:
        return (
            "What is left may be being written (an hour after the last sign of that it can be "
            "freed), or is another user's."
        )
    folder = shlex.quote(found["folder"])
    return f"Free it, at any time: python -m studies cache --clear --cache-dir {folder}"
