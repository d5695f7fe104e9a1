"""How a command ends: every error becomes one line and an exit code. Knows no command.

Results go to stdout, all else to stderr.
"""

import json
import re
import sys
import traceback
from collections.abc import Callable

from optuna.exceptions import StorageInternalError
from rich.console import Console
from typer.exceptions import Exit, TyperException

from studies.errors import StudyFailedError, UserError
from studies.signals import Interrupted


def stdout() -> Console:
    """The console of results."""
    return Console(highlight=False, emoji=False)


def stderr(text: str) -> None:
    """Print a line, to be copied whole, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(text, markup=False)


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def exit_code(call: Callable[[], object], argv: list[str], say: Callable[[str], None]) -> int:
    """Make the call; returns 0, 2 for the user's error, 1 for a failure, 130 for Ctrl-C.

    Args:
        argv: what the user wrote: an error about an option shows its value, and with ``--debug``
            there is a traceback.
        say: is told the line.
    """

    def failed(message: str, code: int) -> int:
        if "--debug" in argv:
            traceback.print_exc()
        line = " ".join(message.split())
        if line:
            say(f"Error: {line}")
        return code

    try:
        code = call()
        return code if isinstance(code, int) else 0
    except (Exit, Interrupted) as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        return 130
    except TyperException as error:
        return failed(_with_value(error.format_message(), argv), 2)
    except (UserError, ValueError) as error:
        return failed(str(error), 2)
    except StorageInternalError as error:
        cause = error.__cause__ or error
        return failed(f"The database failed, what is finished is stored: {cause}", 1)
    except StudyFailedError as error:
        return failed(str(error), 1)
    except Exception as error:
        return failed(f"{type(error).__name__}: {error}", 1)


def _with_value(message: str, argv: list[str]) -> str:
    """Add the value to a usage error that names only its option."""
    option = re.match(r"Invalid value for '(--[\w-]+)'", message)
    if option is None or option[1] not in argv[:-1]:
        return message
    return f"{message.rstrip('.')}, but got {argv[argv.index(option[1]) + 1]!r}."
