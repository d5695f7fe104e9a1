"""Tables fit into 80 columns with nothing cut off; JSON has the documented keys."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from studies.database.study import StudyRecord
from studies.database.trials import TrialRecord
from studies.results.study import RunSummary
from studies.settings import StudyOptions
from studies.terminal.study import (
    LEADERBOARD,
    leaderboard,
    next_commands,
    print_summary,
    resume_command,
    side_by_side,
    summary_json,
    trial_json,
    trials_table,
)

LONGEST = {"backbone": "efficientnet_lite0", "batch_size": 64, "num_unfrozen_layers": 17}
REASON = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x1280 and 512x2)"
METRICS = ("accuracy", "balanced_accuracy", "auroc", "f1", "loss")


def record(number, strategy="fine_tuning", value=0.8125, state="COMPLETE", **changes):
    best = {
        "epoch": 1,
        "train": {"accuracy": 0.99},
        "val": {"accuracy": 0.75, "loss": 0.5, "calibrated_loss": 0.4375},
    }
    fields = {
        "number": number,
        "state": state,
        "value": value,
        "worker": "host:1:ab",
        "logical_number": number,
        "keyed_params": {
            **LONGEST,
            "strategy": strategy,
            f"learning_rate@{strategy}": 1.2345e-5,
        },
        "values": {},
        "config": {},
        "history": [best],
        "best_epoch": 1,
        "seconds": 1234.56,
        "timing": {"training": 1.0, "validation": 1.0},
        "peak_memory_bytes": 1,
        "micro_batch_size": None,
        "batch_norm_trains": None,
        "cache": {},
        "num_trainable_parameters": 25_557_032,
        "reason": None,
        "duplicate_of": None,
        "predictions": None,
        "train_metrics": {"accuracy": 0.99},
        "started": None,
        "ended": None,
    }
    return TrialRecord(**{**fields, **changes})


RECORDS = [
    record(100),
    record(101, "feature_extraction", value=0.75),
    record(102, state="PRUNED", reason="worse than the median at epoch 3"),
    record(103, state="FAIL", value=None, seconds=None, reason=REASON),
    record(104, duplicate_of=100, seconds=None),
    record(105, state="RUNNING", value=None, keyed_params={}, seconds=None),
]


def summary(records=RECORDS, metric="accuracy", num_new=3, note=None):
    identity = {
        "settings": {"metric": metric, "epochs": 15},
        "data": {
            "counts": {"val": {"NORMAL": 200, "OPACITY": 200}},
            "check": {"allowed": [], "left_out": {}},
        },
    }
    return RunSummary(
        name="chest xray",
        storage=SimpleNamespace(shown_url="sqlite:///studies.db"),
        study=StudyRecord(identity=identity, trials=30, timeout_seconds=None),
        records=records,
        num_new=num_new,
        seconds=61.0,
        note=note,
        seal="The test images are sealed.",
    )


def text_of(print_it):
    console = Console(width=80, file=io.StringIO(), record=True)
    print_it(console)
    return console.export_text()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("table", [leaderboard, trials_table])
def test_a_table_fits_80_columns_and_nothing_is_cut_off(table, metric):
    text = text_of(lambda console: console.print(table(RECORDS, metric)))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    seconds = "1235" if table is leaderboard else "1234.6"
    for cell in ("100", "0.8125", "1.23e-05", "64", "17", seconds):
        assert cell in text
    assert "efficientnet" in text and "lite0" in text


def test_the_table_of_trials_shows_every_trial_and_its_reason_in_full():
    text = text_of(lambda console: console.print(trials_table(RECORDS, "accuracy")))
    for number in range(100, 106):
        assert str(number) in text
    for word in REASON.split():
        assert word in text
    assert "trial 104: same as trial 100" in text
    for state in ("complete", "pruned", "fail", "running"):
        assert state in text


def test_the_leaderboard_has_the_best_few_in_order():
    records = [record(i, value=i / 100) for i in range(10, 30)]
    lines = text_of(lambda c: c.print(leaderboard(records, "accuracy"))).splitlines()
    numbers = [line.split()[0] for line in lines if line.split() and line.split()[0].isdigit()]
    assert numbers == [str(n) for n in range(29, 29 - LEADERBOARD, -1)]


def test_what_chose_stands_beside_the_metric():
    config = {"choose_by": "calibrated_loss"}
    text = text_of(lambda c: c.print(leaderboard([record(1, config=config)], "accuracy")))
    assert "Best trials by calibrated loss on validation images" in text
    assert "0.8125" in text and "0.4375" in text
    assert max(map(len, text.splitlines())) <= 80 and "efficientnet_lite0 fine-tuning" in text


@pytest.mark.parametrize("metric", METRICS)
def test_the_summary_fits_80_columns(metric):
    text = text_of(lambda console: print_summary(console, summary(metric=metric)))
    tables, commands = text.split("Next:")
    assert max(map(len, tables.splitlines())) <= 80 and "…" not in text
    assert "python -m studies run --name 'chest xray' --trials N" in commands
    assert f"Best trials by {metric.replace('_', ' ')} on" in tables
    assert "70.5% to 79.0%" in tables


def test_commands_to_copy_have_no_password():
    storage = SimpleNamespace(
        url="postgresql://me:secret@host/db", shown_url="postgresql://me:***@host/db"
    )
    text = text_of(lambda c: print_summary(c, replace(summary(), storage=storage)))
    assert "'postgresql://me:***@host/db'" in text and "secret" not in text


def test_the_summary_says_what_was_added_and_why_it_ended():
    text = text_of(lambda c: print_summary(c, summary(num_new=0, note="The limit is reached.")))
    assert "4 of 30 trials (nothing to add): 2 complete, 1 pruned, 1 failed; 61 s." in (
        " ".join(text.split())
    )
    assert "The limit is reached." in text


@pytest.mark.parametrize(("strategy", "missing"), [(0, "feature extraction"), (1, "fine-tuning")])
def test_a_strategy_without_a_complete_trial_is_named(strategy, missing):
    text = text_of(lambda console: print_summary(console, summary([RECORDS[strategy]])))
    assert f"No complete trial of {missing}." in text


@pytest.mark.parametrize(
    ("storage", "command"),
    [
        ("sqlite:///studies.db", "python -m studies run --name a"),
        ("sqlite:////x y/s.db", "python -m studies run --name a --storage 'sqlite:////x y/s.db'"),
    ],
)
def test_the_command_that_goes_on_names_the_storage_where_it_must(storage, command):
    assert resume_command("a", StudyOptions(storage=storage)) == command


def test_commands_that_go_on_repeat_the_flags_that_no_study_stores():
    """Weights, seeds and the like are stored: they are not repeated."""
    given = StudyOptions(
        backbone_module=Path("my nets.py"),
        device="cpu",
        cache_dir=Path("/tmp/c"),
        cache_limit="2GB",
        weights_dir=Path("w"),
        seeds=2,
        confirm=False,
    )
    flags = "--backbone-module 'my nets.py' --device cpu --cache-dir /tmp/c --cache-limit"
    run, confirm = (resume_command("a", given, command) for command in ("run", "confirm"))
    assert run.startswith(f"python -m studies run --name a {flags}")
    assert confirm.startswith(f"python -m studies confirm --name a {flags}")
    assert run.endswith(" --no-confirm") and "--no-confirm" not in confirm
    assert "--weights-dir" not in run and "--seeds" not in run
    limit = int(run.split("--cache-limit ")[1].split()[0])
    assert StudyOptions(cache_limit=str(limit)).cache_limit == given.cache_limit
    failed = StudyOptions(retry_failed=True)
    assert resume_command("a", failed).endswith(" --retry-failed")
    assert "--retry-failed" not in resume_command("a", failed, "confirm")
    lines = next_commands("a", "sqlite:///studies.db", given).plain.splitlines()
    assert f"python -m studies confirm --name a {flags}" in lines[3]
    assert "status a" in lines[1] and "--device" not in lines[1]


def test_run_json_has_the_documented_shape():
    value = json.loads(json.dumps(summary_json(summary()), allow_nan=False))
    assert set(value) == {
        "study",
        "storage",
        "metric",
        "choose_by",
        "trials",
        "share",
        "best",
        "best_by_strategy",
        "seconds",
        "accounting",
        "data_check",
        "confirmed",
    }
    assert value["accounting"]["trials"] == 4 and value["accounting"]["peak_memory_bytes"] == 1
    assert value["trials"] == {"complete": 2, "pruned": 1, "fail": 1, "running": 1}
    assert value["best"] == {"number": 100, "value": 0.8125, "params": RECORDS[0].params}
    assert {s: b["number"] for s, b in value["best_by_strategy"].items()} == {
        "feature_extraction": 101,
        "fine_tuning": 100,
    }


def test_run_json_has_null_for_a_strategy_without_a_complete_trial():
    assert summary_json(summary(RECORDS[:1]))["best_by_strategy"]["feature_extraction"] is None


def test_status_json_has_the_documented_shape():
    value = json.loads(json.dumps(trial_json(RECORDS[3]), allow_nan=False))
    assert set(value) == {
        "number",
        "state",
        "counts",
        "value",
        "params",
        "seconds",
        "timing",
        "peak_memory_bytes",
        "cache",
        "reason",
    }
    assert (value["state"], value["value"], value["reason"]) == ("FAIL", None, REASON)


def test_the_recipe_of_the_best_trials_is_shown_where_it_is_not_plain():
    searched = record(100).keyed_params
    mixed = {**searched, "mixup": 0.2, "layer_decay": 0.75, "ema_decay": 0.0, "dropout": 0.2}
    records = [record(100, keyed_params=mixed), record(101, "feature_extraction", value=0.75)]
    text = text_of(lambda console: console.print(side_by_side(summary(records))))
    assert "mixup 0.2" in text and "layer_decay 0.75" in text and "plain" in text
    assert "ema_decay" not in text and "dropout" not in text
    assert "recipe" not in text_of(lambda console: console.print(side_by_side(summary())))


@pytest.mark.parametrize(
    ("stored", "remark"),
    [
        (
            {"micro_batch_size": 16, "batch_norm_trains": True},
            "trial 100: in micro-batches of 16: out of memory; BatchNorm saw 16 images at a time",
        ),
        (
            {"micro_batch_size": 16, "batch_norm_trains": False},
            "trial 100: in micro-batches of 16: out of memory",
        ),
        (
            {"micro_batch_size": 1, "batch_norm_trains": False, "reason": "worse than the median"},
            "trial 100: worse than the median; in micro-batches of 1: out of memory",
        ),
        (
            {"state": "FAIL", "reason": "no space left", "void": True},
            "trial 100: no space left; does not count",
        ),
        ({"micro_batch_size": 64, "batch_norm_trains": True}, None),
        ({"micro_batch_size": None, "batch_norm_trains": None}, None),
    ],
    ids=[
        "BatchNorm trains",
        "BatchNorm is frozen",
        "pruned",
        "a passing fault",
        "whole batches",
        "stored before",
    ],
)
def test_a_trial_in_micro_batches_is_remarked_on(stored, remark):
    records = [record(100, config={"batch_size": 64}, **stored)]
    text = text_of(lambda console: console.print(trials_table(records, "accuracy")))
    remarks = " ".join(text[text.find("trial 100") :].split()) if "trial 100" in text else None
    assert remarks == remark
