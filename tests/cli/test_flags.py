"""A flag shows its default and means the same in every command that has it."""

import inspect
from typing import get_type_hints

import pytest

from studies.cli import inspect as look
from studies.cli import search as cli
from studies.cli.options import option
from studies.settings import StudyOptions

LOOKING = (look.data, look.backbones, look.spaces, look.cache)
COMMANDS = (cli.run, cli.status, cli.dashboard, *LOOKING)


@pytest.mark.parametrize(
    ("given", "help_text"),
    [
        (("Trials in total.", 30), r"Trials in total. \[default: 30]"),
        (("Trials in total.",), "Trials in total."),
        (("Workers.", 0), r"Workers. \[default: 0]"),
    ],
)
def test_a_flag_shows_the_default_that_it_has(given, help_text):
    assert option(*given).help == help_text


def test_every_flag_of_run_is_an_option_of_a_study_or_of_the_command_line():
    parameters = {name.rstrip("_") for name in inspect.signature(cli.run).parameters}
    assert parameters - StudyOptions.model_fields.keys() == {
        "no_confirm",
        "no_report",
        "config",
        "json",
        "debug",
    }
    assert StudyOptions.model_fields.keys() - parameters == {"confirm"}


def test_a_flag_has_the_same_type_in_every_command():
    types = {}
    for command in COMMANDS:
        for name, kind in get_type_hints(command).items():
            if name not in ("return", "name", "names", "data", "source"):
                types.setdefault(name, set()).add(kind)
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}
