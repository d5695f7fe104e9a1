"""Every way a command can end has its exit code, and every error is one line."""

import pytest
from optuna.exceptions import StorageInternalError
from typer import BadParameter, Exit

from studies.cli.main import exit_code
from studies.errors import StudyFailedError, UserError
from studies.signals import Interrupted


def ended(error=None, returns=None, argv=()):
    """The exit code of a call that raises or returns, and what was said."""
    said = []

    def call():
        if error is not None:
            raise error
        return returns

    return exit_code(call, list(argv), said.append), said


@pytest.mark.parametrize(("returns", "code"), [(None, 0), ("text", 0), (0, 0), (3, 3)])
def test_a_call_that_returns_is_silent(returns, code):
    assert ended(returns=returns) == (code, [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("No folder x."), 2, "Error: No folder x."),
        (ValueError("two\nlines"), 2, "Error: two lines"),
        (StudyFailedError("No trial is complete."), 1, "Error: No trial is complete."),
        (KeyError("x"), 1, "Error: KeyError: 'x'"),
        (
            StorageInternalError("wrapped"),
            1,
            "Error: The database failed, what is finished is stored: wrapped",
        ),
    ],
)
def test_an_error_is_one_line_and_a_code(error, code, line):
    assert ended(error) == (code, [line])


def test_the_cause_of_a_failed_database_is_what_is_said():
    error = StorageInternalError("wrapped")
    error.__cause__ = OSError("disk full")
    assert ended(error)[1] == ["Error: The database failed, what is finished is stored: disk full"]


@pytest.mark.parametrize(
    ("error", "code"), [(Exit(7), 7), (Interrupted(15), 143), (KeyboardInterrupt(), 130)]
)
def test_a_stop_is_silent(error, code):
    assert ended(error) == (code, [])


def test_a_usage_error_shows_the_value_that_was_given():
    code, (line,) = ended(
        BadParameter("not an integer", param_hint="'--trials'"), argv=["run", "--trials", "many"]
    )
    assert code == 2
    assert line.startswith("Error: Invalid value for '--trials'") and line.endswith("got 'many'.")


def test_with_debug_there_is_a_traceback(capsys):
    ended(ValueError("x"), argv=["run", "--debug"])
    assert "Traceback" in capsys.readouterr().err
    ended(ValueError("x"), argv=["run"])
    assert capsys.readouterr().err == ""
