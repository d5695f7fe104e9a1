"""`run` ends with the report, and is none the worse where there can be none."""

import json

import pytest
from bundles import SPACE

from studies.cli.search import main
from studies.report import report as write

LINE = (
    "run --data phantom:train=40,test=10,size=32 --space space.toml --weights random --epochs 1 "
    "--trials 2 --no-confirm"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def test_the_report_is_written_and_named(home, capsys):
    assert main(LINE.split()) == 0
    assert "Report: reports/phantom/report.html" in capsys.readouterr().out
    assert (home / "reports" / "phantom" / "report.html").is_file()
    assert main([*LINE.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"]["html"] == "reports/phantom/report.html"


def test_without_one_nothing_is_written(home, capsys):
    assert main([*LINE.split(), "--no-report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] is None
    assert not (home / "reports").exists()


def test_a_report_that_fails_does_not_fail_the_study(home, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(write, "write_report", broken)
    assert main(LINE.split()) == 0
    out, err = capsys.readouterr()
    assert "No report: no ink" in err and "The two strategies at their best" in out
