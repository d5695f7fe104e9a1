"""Where commands print: results on stdout, all else on stderr. Knows no command."""

import json
import sys

from rich.console import Console


def stdout() -> Console:
    """The console of results."""
    return Console(highlight=False)


def stderr(text: str) -> None:
    """Print a line, to be copied whole, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def printable(text: str) -> str:
    """The text without what a terminal may take for a command, as names of strangers may hold."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
