"""How foreign errors and names become part of a one-line message."""

import difflib
import textwrap
from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """Return an error's kind and text in one line of 160 characters at most."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")


def printable(text: str) -> str:
    """Return the text with what a terminal can't show escaped: newlines, half characters."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ` Did you mean a, b?` with the names most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3)
    return f" Did you mean {', '.join(close)}?" if close else ""
