"""Records: what is written is read back; what counts; which trial is best; the table of trials."""

import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from studies.database.storage import open_storage
from studies.database.trials import (
    INTERRUPTED,
    RECORD_ATTRIBUTES,
    best_trials,
    count_states,
    read_trials,
    replace_value,
    trials,
    write_duplicate,
    write_owner,
    write_provenance,
    write_reason,
    write_result,
)


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'studies.db'}")


@pytest.fixture
def study(storage):
    return optuna.create_study(storage=storage.database, study_name="s", direction="maximize")


def epoch(number, accuracy, loss=0.5):
    return {
        "epoch": number,
        "train": {"accuracy": 1.0, "loss": 0.1},
        "val": {"accuracy": accuracy, "loss": loss},
        "training_seconds": 2.0,
        "validation_seconds": 1.0,
    }


def add(study, storage, state=TrialState.COMPLETE, accuracy=0.75, loss=0.5, reason=None, of=None):
    """Store one trial as the objective does; returns its number."""
    trial = study.ask()
    write_owner(trial, worker="host:1:ab", logical_number=trial.number)
    strategy = trial.suggest_categorical("strategy", ["feature_extraction", "fine_tuning"])
    trial.suggest_float(f"learning_rate@{strategy}", 1e-4, 1e-1)
    if of is not None:
        write_duplicate(trial, of)
    else:
        write_provenance(trial, {"seed": 3}, {"threads": 1})
        trial.report(accuracy, 1)
        write_result(
            trial,
            history=[epoch(1, accuracy, loss)],
            best_epoch=1,
            num_trainable_parameters=1026,
            peak_memory_bytes=662_451_000,
            micro_batch_size=8,
            batch_norm_trains=True,
            cache={"start": 9, "bytes": 2048, "was_at_hand": False},
            timing={"total": 3.5, "training": 2.0, "validation": 1.0},
            predictions="artifact",
            train_metrics={"accuracy": 0.875, "loss": 0.2},
        )
    if reason is not None:
        write_reason(storage, study, trial.number, reason)
    if state == TrialState.COMPLETE:
        study.tell(trial, accuracy)
    elif state.is_finished():
        study.tell(trial, state=state)
    return trial.number


def test_a_trial_is_read_back_as_it_was_written(study, storage):
    add(study, storage)
    (record,) = read_trials(study)
    assert (record.number, record.state, record.value) == (0, "COMPLETE", 0.75)
    assert (record.worker, record.logical_number) == ("host:1:ab", 0)
    assert (record.config, record.history) == ({"seed": 3}, [epoch(1, 0.75)])
    assert (record.best_epoch, record.best) == (1, epoch(1, 0.75))
    assert (record.seconds, record.timing["training"]) == (3.5, 2.0)
    assert (record.num_trainable_parameters, record.peak_memory_bytes) == (1026, 662_451_000)
    assert (record.micro_batch_size, record.batch_norm_trains) == (8, True)
    assert record.cache == {"start": 9, "bytes": 2048, "was_at_hand": False}
    assert (record.values, record.predictions) == ({1: 0.75}, "artifact")
    assert record.train_metrics == {"accuracy": 0.875, "loss": 0.2}
    assert record.train_val_gap == 0.125
    assert record.reason is None and record.duplicate_of is None
    assert record.started <= record.ended


def test_what_people_look_at_are_columns_of_their_own(study, storage):
    add(study, storage, reason="worse than the median at epoch 3")
    attributes = study.get_trials()[0].user_attrs
    assert {k: v for k, v in attributes.items() if k not in RECORD_ATTRIBUTES} == {
        "seconds": 3.5,
        "num_trainable_parameters": 1026,
        "train_val_gap": 0.125,
        "peak_memory_mb": 662.5,
        "reason": "worse than the median at epoch 3",
    }


def test_columns_are_rounded_and_records_are_not(study):
    trial = study.ask()
    write_result(
        trial,
        history=[],
        best_epoch=None,
        num_trainable_parameters=None,
        peak_memory_bytes=None,
        micro_batch_size=None,
        batch_norm_trains=None,
        cache={},
        timing={"total": 1.23456789},
        predictions=None,
    )
    attributes = study.get_trials()[0].user_attrs
    assert set(attributes) - set(RECORD_ATTRIBUTES) == {"seconds"}
    assert attributes["seconds"] == 1.235
    assert read_trials(study)[0].seconds == 1.23456789


def test_a_result_from_before_micro_batches_is_read_as_well(study, storage):
    trial = study.ask()
    trial.set_user_attr("result", {"history": [epoch(1, 0.75)], "best_epoch": 1})
    assert read_trials(study)[0].train_val_gap is None
    (record,) = read_trials(study)
    assert record.micro_batch_size is None and record.batch_norm_trains is None
    assert record.cache == {}


def test_a_value_reported_once_more_replaces_the_first(study, storage):
    trial = study.ask()
    trial.report(0.5, 1)
    trial.report(0.6, 2)
    replace_value(storage, study, trial.number, 0.25, 1)
    (record,) = read_trials(study)
    assert record.values == {1: 0.25, 2: 0.6}


def test_params_have_field_names_and_the_frozen_depth(study, storage):
    strategy = "feature_extraction"
    study.enqueue_trial({"strategy": strategy, f"learning_rate@{strategy}": 0.01})
    add(study, storage)
    (record,) = read_trials(study)
    assert record.params == {
        "strategy": "feature_extraction",
        "learning_rate": 0.01,
        "num_unfrozen_layers": 0,
    }


def test_a_trial_that_was_only_created_is_read_as_well(study):
    study.ask()
    (record,) = read_trials(study)
    assert (record.state, record.worker, record.logical_number) == ("RUNNING", None, None)
    assert record.params == {} and record.best is None and record.strategy is None


def test_finished_trials_that_are_known_are_taken_as_they_are_and_others_are_read(study, storage):
    add(study, storage)
    running = study.ask()
    known = read_trials(study)
    assert [record.state for record in known] == ["COMPLETE", "RUNNING"]
    study.tell(running, state=TrialState.FAIL)
    add(study, storage)
    records = read_trials(study, known)
    assert records == read_trials(study)
    assert records[0] is known[0] and [r.state for r in records[1:]] == ["FAIL", "COMPLETE"]


def test_waiting_trials_are_left_out(study):
    study.enqueue_trial({"strategy": "fine_tuning"})
    assert read_trials(study) == []


def test_interrupted_trials_and_duplicates_do_not_count(study, storage):
    add(study, storage)
    add(study, storage, TrialState.PRUNED)
    add(study, storage, TrialState.FAIL, reason="out of memory")
    add(study, storage, TrialState.FAIL, reason=INTERRUPTED)
    add(study, storage, of=read_trials(study)[0])
    add(study, storage, TrialState.RUNNING)
    records = read_trials(study)
    assert [r.counts for r in records] == [True, True, True, False, False, False]
    assert [r.number for r in records if r.is_interrupted] == [3]
    assert count_states(records) == {"complete": 1, "pruned": 1, "fail": 1, "running": 1}


def test_a_duplicate_repeats_what_the_earlier_trial_reported(study, storage):
    add(study, storage)
    add(study, storage, of=read_trials(study)[0])
    first, second = read_trials(study)
    assert second.duplicate_of == first.number
    assert second.values == first.values


@pytest.mark.parametrize(
    ("metric", "values_and_losses", "order"),
    [
        ("accuracy", [(0.7, 0.5), (0.9, 0.9), (0.8, 0.1)], [1, 2, 0]),
        ("accuracy", [(0.9, 0.5), (0.9, 0.4), (0.9, 0.6)], [1, 0, 2]),
        ("accuracy", [(0.9, 0.5), (0.9, 0.5)], [0, 1]),
        ("loss", [(0.7, 0.7), (0.9, 0.9), (0.2, 0.2)], [2, 0, 1]),
    ],
    ids=["higher first", "ties by validation loss", "then the earlier", "a lower loss first"],
)
def test_order_of_the_best(study, storage, metric, values_and_losses, order):
    for value, loss in values_and_losses:
        add(study, storage, accuracy=value, loss=loss)
    assert [r.number for r in best_trials(read_trials(study), metric)] == order


def test_only_complete_trials_that_are_no_duplicates_can_be_best(study, storage):
    add(study, storage, TrialState.PRUNED, accuracy=0.99)
    add(study, storage, TrialState.FAIL, accuracy=0.98, reason="out of memory")
    add(study, storage, accuracy=0.5)
    add(study, storage, of=read_trials(study)[2])
    assert [r.number for r in best_trials(read_trials(study), "accuracy")] == [2]


def test_the_table_has_a_row_a_trial_and_field_names_as_columns(study, storage):
    add(study, storage)
    add(study, storage, TrialState.FAIL, reason="out of memory")
    table = trials("s", storage.url)
    assert list(table["number"]) == [0, 1]
    assert list(table["state"]) == ["COMPLETE", "FAIL"]
    assert {"value", "strategy", "learning_rate", "seconds", "reason"} <= set(table.columns)
    assert not [column for column in table.columns if "@" in column]


def test_the_table_of_a_study_without_trials_is_empty(study, storage):
    assert len(trials("s", storage.url)) == 0


def test_to_read_records_torch_is_not_imported():
    check = (
        "import sys, studies.database.trials, studies.results.comparison; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
