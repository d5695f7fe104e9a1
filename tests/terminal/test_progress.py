"""Progress: a line a trial where there is no terminal, a live screen where there is one."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from studies.database.trials import TrialRecord
from studies.terminal.progress import LineProgress, LiveProgress, describe, start_progress

FIELDS = {
    "backbone": "resnet18",
    "strategy": "fine_tuning",
    "learning_rate": 0.000123456,
    "batch_size": 16,
}


def record(number, strategy="fine_tuning", accuracy=0.75, state="COMPLETE", **changes):
    fields = {
        "number": number,
        "state": state,
        "value": accuracy,
        "worker": "host:1:ab",
        "logical_number": number,
        "keyed_params": {**FIELDS, "strategy": strategy},
        "values": {},
        "config": {},
        "history": [{"epoch": 1, "val": {"accuracy": accuracy, "loss": 0.5}}],
        "best_epoch": 1,
        "seconds": 30.0,
        "timing": {},
        "peak_memory_bytes": 1,
        "micro_batch_size": None,
        "batch_norm_trains": None,
        "cache": {},
        "num_trainable_parameters": 1,
        "reason": None,
        "duplicate_of": None,
        "predictions": None,
        "started": None,
        "ended": None,
    }
    return TrialRecord(**{**fields, **changes})


def epoch(number):
    val = {"accuracy": 0.625, "loss": 0.4321, "auroc": 0.875, "f1": 0.5}
    return SimpleNamespace(epoch=number, train={"loss": 0.1234}, val=val)


def test_a_configuration_fits_into_a_short_line():
    assert describe(FIELDS) == "resnet18 fine_tuning, learning_rate 0.000123, batch_size 16"


OUTCOMES = {
    "complete": (record(0), "complete accuracy 0.7500 in 30.0 s"),
    "pruned": (
        record(0, state="PRUNED", reason="worse than the median"),
        "pruned (worse than the median)",
    ),
    "failed": (
        record(0, state="FAIL", accuracy=None, reason="out of memory"),
        "fail (out of memory)",
    ),
    "duplicate": (record(3, duplicate_of=1), "same as trial 1"),
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_without_a_terminal_every_trial_is_one_line_on_stderr(capsys, kind):
    trial, said = OUTCOMES[kind]
    progress = LineProgress()
    progress.study("s", "accuracy", 12, [])
    progress.trial_started(0, FIELDS)
    progress.epoch(epoch(1))
    progress.trial_finished(trial, [record(7), trial])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err and describe(FIELDS) in err
    assert err.startswith("[1/12]" if kind == "duplicate" else "[2/12]")


def test_messages_are_printed_as_they_are(capsys):
    LineProgress().message("path [bold]x[/bold] " + "long " * 40)
    assert capsys.readouterr().err == "path [bold]x[/bold] " + "long " * 40 + "\n"


@pytest.fixture
def screen():
    progress = LiveProgress()
    progress.study(
        "chest",
        "accuracy",
        12,
        [
            record(0, accuracy=0.7),
            record(1, accuracy=0.8125),
            record(2, "feature_extraction", accuracy=0.6875),
            record(3, state="PRUNED", accuracy=0.5),
            record(4, state="FAIL", accuracy=None, reason="out of memory"),
        ],
    )
    return progress


def shown(progress):
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(progress._screen())
    return console.export_text()


def test_the_screen_shows_counts_and_the_time_left(screen):
    text = shown(screen)
    assert "chest: 5 of 12 trials (1 pruned, 1 failed)" in text
    assert "about 3:30 min left" in text.replace("\n", " ")


def test_the_screen_shows_the_best_of_each_strategy(screen):
    text = shown(screen)
    assert "best feature_extraction: accuracy 0.6875, trial 2" in text
    assert "best fine_tuning: accuracy 0.8125, trial 1" in text


def test_the_screen_shows_the_running_configuration_and_its_epochs(screen):
    screen.trial_started(5, FIELDS)
    screen.epoch(epoch(1))
    text = shown(screen)
    assert f"running 5: {describe(FIELDS)}" in text
    assert all(number in text for number in ("0.1234", "0.4321", "0.6250", "0.8750"))


def test_the_running_trial_leaves_the_screen_when_it_is_finished(screen):
    screen.message = lambda text: None
    screen.trial_started(5, FIELDS)
    screen.trial_finished(record(5), [record(5)])
    assert "running" not in shown(screen)


def test_long_work_is_shown_until_it_is_done(screen):
    screen.work("decoding", 3, 9)
    assert "decoding: 3 of 9" in shown(screen)
    screen.work("decoding", 9, 9)
    assert "decoding" not in shown(screen)


def test_nothing_is_shown_before_there_is_a_study():
    assert shown(LiveProgress()).strip() == ""


def test_the_live_screen_is_opened_and_closed_and_writes_to_stderr_alone(screen, capsys):
    with screen:
        assert screen._live.is_started
        screen.message("half way")
    assert not screen._live.is_started
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, LiveProgress), (False, LineProgress)])
def test_a_terminal_gets_the_screen_and_everything_else_gets_lines(monkeypatch, is_terminal, kind):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    with start_progress() as progress:
        assert type(progress) is kind


def test_a_configuration_is_told_without_the_recipes_that_are_off():
    text = describe({**FIELDS, "mixup": 0.0, "head_init": "probe", "dropout": 0.2, "num_views": 4})
    assert text == (
        "resnet18 fine_tuning, learning_rate 0.000123, batch_size 16, head_init probe, num_views 4"
    )
