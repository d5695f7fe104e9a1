"""Results go to stdout, all else to stderr."""

import json

import pytest

from studies.cli.main import print_json, stderr, stdout


def test_json_is_one_line_on_stdout(capsys):
    print_json({"a": [1, None]})
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and json.loads(out) == {"a": [1, None]} and err == ""


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError):
        print_json({"a": float("nan")})


def test_a_long_line_on_stderr_stays_whole_and_its_markup_as_it_is(capsys):
    line = "[red]x[/red] " + "y" * 300
    stderr(line)
    assert capsys.readouterr() == ("", line + "\n")


def test_the_console_of_results_writes_to_stdout(capsys):
    stdout().print("here")
    assert capsys.readouterr() == ("here\n", "")
