"""Errors of the user, and how a validation error becomes one line."""

from pydantic import ValidationError


class UserError(ValueError):
    """The user can mend this: one line with thing, law and way out. Exit code 2."""


class StudyFailedError(RuntimeError):
    """The study ran and has no result. Exit code 1."""


def one_line(error: ValidationError, what: str) -> str:
    """The first finding of a pydantic error, as `what 'key': law, but got value`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Unknown {what} '{key}'"
    message = first["msg"].removeprefix("Value error, ")
    return f"{what} '{key}': {message[0].lower()}{message[1:]}, but got {first['input']!r}"
