"""Where commands print: results on stdout, all else on stderr. Knows no command."""

import json
import sys

from rich.console import Console


def stdout() -> Console:
    """The console of results."""
    return Console(highlight=False, emoji=False)


def stderr(text: str) -> None:
    """Print a line, to be copied whole, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(text, markup=False)


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
