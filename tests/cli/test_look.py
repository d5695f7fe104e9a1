"""The commands that look are there, explain themselves, and hand on what was given."""

import pytest
from typer.testing import CliRunner

from studies.cli.inspect import given_values
from studies.cli.search import app


@pytest.mark.parametrize("command", ["data", "backbones", "spaces", "cache"])
def test_a_command_stands_beside_the_others_with_a_help_text(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0 and "--json" in shown.output
    assert command in CliRunner().invoke(app, ["--help"]).output


def test_what_was_not_given_is_not_handed_on_and_a_zero_is():
    given = {"a": None, "b": [], "c": False, "d": 0, "e": True, "f": "x"}
    assert given_values(**given) == {"d": 0, "e": True, "f": "x"}
