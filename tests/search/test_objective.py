"""One trial, with a fake training: how it ends, the reason it gets, and what it leaves behind."""

import json
import os
import signal
import warnings
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from studies.dashboard.pictures import trial_pictures
from studies.database.storage import open_storage
from studies.database.trials import is_own_failure, read_trials, write_owner
from studies.search import objective
from studies.search.objective import Objective
from studies.search.suggest import Suggestion
from studies.settings import StudyOptions, decide
from studies.signals import Interrupted, StopSignals
from transfer.training.micro_batches import MemoryLimits
from transfer.training.result import EpochRecord, TrainingResult, best_epoch
from transfer.training.train import DivergedError

FIELDS = {
    "backbone": "resnet18",
    "strategy": "feature_extraction",
    "learning_rate": 0.01,
    "batch_size": 16,
}
PROVENANCE = {"versions": {"torch": "2"}, "fingerprints": {"data": "abc"}}
LABELS_N = np.array([0, 1, 1, 0])
POSITIONS_N = np.array([4, 5, 6, 9])


class QuietProgress:
    def __getattr__(self, name):
        return lambda *arguments: None


def epoch(number, accuracy, calibrated_loss=0.5):
    return EpochRecord(
        epoch=number,
        train={"accuracy": 1.0, "loss": 0.1},
        val={"accuracy": accuracy, "loss": 1 - accuracy, "calibrated_loss": calibrated_loss},
        val_logits_NC=np.full((4, 2), number, dtype=np.float32),
        training_seconds=0.2,
        validation_seconds=0.1,
    )


def training(*accuracies, ends=None, micro_batch_size=16, calibrated_loss=0.5):
    """A fake ``train``: reports these accuracies, then raises ``ends`` where it is given."""

    def train(config, activations, on_epoch, limits):
        history = []
        for number, accuracy in enumerate(accuracies, start=1):
            history.append(epoch(number, accuracy, calibrated_loss))
            if on_epoch(history[-1]):
                break
        else:
            if ends is not None:
                raise ends
        return TrainingResult(
            history=tuple(history),
            best_epoch=best_epoch(history, config.criterion),
            num_trainable_parameters=1026,
            activation_seconds=0.0,
            peak_memory_bytes=5,
            micro_batch_size=micro_batch_size,
            batch_norm_trains=True,
            start_boundary=9,
            kept_bytes=2048,
            was_at_hand=False,
            trained_state={},
        )

    return train


class Bench:
    """A study in a temporary database whose trials are trained by a fake."""

    def __init__(self, folder):
        self.storage = open_storage(f"sqlite:///{folder / 'studies.db'}")
        self.study = optuna.create_study(
            storage=self.storage.database, study_name="s", direction="maximize"
        )
        self.signals, self.progress = StopSignals(), QuietProgress()

    def run(
        self,
        train,
        pruner="median",
        duplicate_of=None,
        fields=FIELDS,
        rivals=(),
        choose_by="metric",
    ):
        """Run one trial; returns its record."""
        trial = self.study.ask()
        write_owner(trial, worker="host:1:ab", logical_number=trial.number)
        trial.suggest_categorical("strategy", ["feature_extraction"])
        suggestion = Suggestion(
            trial=trial,
            logical_number=trial.number,
            fields=fields,
            peers=[r.scores("accuracy") for r in read_trials(self.study) if r.counts],
            duplicate_of=duplicate_of,
            rivals=rivals,
        )
        try:
            self.objective(train, pruner, choose_by).run(suggestion)
        finally:
            self.last = read_trials(self.study)[-1]
        return self.last

    def objective(self, train, pruner, choose_by="metric"):
        options = StudyOptions(
            epochs=6, seed=3, pruner=pruner, num_views=2, flip="none", choose_by=choose_by
        )
        val = SimpleNamespace(labels_N=LABELS_N, positions_N=POSITIONS_N, groups_N=None)
        activations = SimpleNamespace(
            data=SimpleNamespace(val=val, classes=("no", "yes")),
            seconds=0.0,
            device=torch.device("cpu"),
        )
        return Objective(
            storage=self.storage,
            study=self.study,
            settings=decide(options, name="s", stored={}, suggested={}),
            activations=activations,
            provenance=PROVENANCE,
            precision={"resnet18": "bf16"},
            progress=self.progress,
            signals=self.signals,
            pictures=trial_pictures,
            train=train,
        )

    def files(self, record):
        """Names and contents of what is stored with a trial."""
        attributes = self.study.get_trials()[record.number].system_attrs
        found = [json.loads(v) for k, v in attributes.items() if k.startswith("artifacts:")]
        folder = self.storage.files / "artifacts"
        return {a["filename"]: (folder / a["artifact_id"]).read_bytes() for a in found}

    def predictions(self, record):
        path = self.storage.files / "artifacts" / record.predictions
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_complete_trial_has_the_value_of_its_best_epoch(bench):
    record = bench.run(training(0.5, 0.9, 0.7))
    assert (record.state, record.value, record.best_epoch) == ("COMPLETE", 0.9, 2)
    assert record.values == {1: 0.5, 2: 0.9, 3: 0.7}
    assert [e["val"]["accuracy"] for e in record.history] == [0.5, 0.9, 0.7]
    assert record.num_trainable_parameters == 1026
    assert record.reason is None


def test_training_and_validation_seconds_are_summed_over_the_epochs(bench):
    timing = bench.run(training(0.5, 0.9, 0.7)).timing
    assert timing["training"] == pytest.approx(0.6)
    assert timing["validation"] == pytest.approx(0.3)
    parts = ("activations", "training", "validation", "bookkeeping")
    assert sum(timing[part] for part in parts) == pytest.approx(timing["total"])


def test_a_trial_below_the_median_is_pruned_at_the_third_epoch(bench):
    for _ in range(4):
        bench.run(training(0.9, 0.9, 0.9, 0.9))
    record = bench.run(training(0.1, 0.1, 0.1, 0.1))
    assert (record.state, record.reason) == ("PRUNED", "worse than the median at epoch 3")
    assert len(record.history) == 3


@pytest.mark.parametrize(
    ("accuracy", "calibrated_loss", "by_metric", "by_loss"),
    [(0.1, 0.1, "PRUNED", "COMPLETE"), (0.95, 0.9, "COMPLETE", "PRUNED")],
)
def test_the_pruner_sees_what_chooses(bench, accuracy, calibrated_loss, by_metric, by_loss):
    for choose_by, state in (("metric", by_metric), ("calibrated_loss", by_loss)):
        for _ in range(4):
            bench.run(training(*[0.9] * 4, calibrated_loss=0.4), choose_by=choose_by)
        asked = training(*[accuracy] * 4, calibrated_loss=calibrated_loss)
        record = bench.run(asked, choose_by=choose_by)
        assert record.state == state
        bench.study = optuna.create_study(
            storage=bench.storage.database, study_name=f"after {choose_by}", direction="maximize"
        )


def test_without_a_pruner_nothing_is_pruned(bench):
    for _ in range(4):
        bench.run(training(0.9, 0.9, 0.9, 0.9))
    assert bench.run(training(0.1, 0.1, 0.1, 0.1), pruner="none").state == "COMPLETE"


def test_a_trial_is_not_pruned_behind_its_last_epoch(bench):
    for _ in range(4):
        bench.run(training(0.1, 0.1, 0.1, 0.1, 0.1, 0.9))
    assert bench.run(training(0.1, 0.1, 0.1, 0.1, 0.1, 0.2)).state == "COMPLETE"


FAILURES = [
    (DivergedError(3), "diverged at epoch 3"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2 GiB"), "out of memory"),
    (RuntimeError("no kernel\nfor this"), "RuntimeError: no kernel for this"),
    (MemoryError(), "out of memory"),
    (ValueError("x" * 1000), "ValueError: " + "x" * 488),
]


@pytest.mark.parametrize(
    ("error", "reason"), FAILURES, ids=[type(e).__name__ for e, _ in FAILURES]
)
def test_a_failure_has_its_reason_and_the_study_goes_on(bench, error, reason):
    record = bench.run(training(0.5, 0.6, ends=error))
    assert (record.state, record.value, record.reason) == ("FAIL", None, reason)
    assert [e["val"]["accuracy"] for e in record.history] == [0.5, 0.6]
    assert bench.run(training(0.5)).state == "COMPLETE"


def test_a_trial_that_fails_before_its_first_epoch_has_its_seconds_as_well(bench):
    record = bench.run(training(ends=DivergedError(1)))
    assert record.seconds > 0 and record.timing["total"] == record.seconds
    assert (record.history, record.best, record.train_val_gap) == ([], None, None)
    assert record.timing["training"] + record.timing["activations"] == record.seconds


def test_what_a_failed_trial_spent_beyond_its_epochs_is_training_and_no_bookkeeping(bench):
    record = bench.run(training(0.5, ends=DivergedError(2)))
    assert record.timing["bookkeeping"] == 0.0
    parts = ("activations", "training", "validation")
    assert sum(record.timing[part] for part in parts) == pytest.approx(record.seconds)


def test_a_trial_that_fails_before_its_first_epoch_has_a_reason_as_well(bench):
    record = bench.run(training(ends=DivergedError(1)))
    assert (record.state, record.reason, record.history) == ("FAIL", "diverged at epoch 1", [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_fails_the_trial_with_its_reason(bench, value):
    record = bench.run(training(0.5, value, 0.7))
    reason = f"diverged at epoch 2: accuracy is {value}"
    assert (record.state, record.value, record.reason) == ("FAIL", None, reason)
    assert record.values == {1: 0.5} and len(record.history) == 1
    assert is_own_failure(record)


def test_what_diverges_fails_by_its_own_fault(bench):
    assert is_own_failure(bench.run(training(0.5, ends=DivergedError(2))))


@pytest.mark.parametrize(
    ("error", "is_asked"),
    [(RuntimeError("CUDA error: device-side assert triggered"), False), (MemoryError(), True)],
)
def test_a_device_that_is_lost_is_not_asked_to_free_memory(bench, monkeypatch, error, is_asked):
    asked = []
    monkeypatch.setattr(objective, "free_memory", asked.append)
    assert bench.run(training(0.5, ends=error)).state == "FAIL"
    assert bool(asked) == is_asked


def test_an_interrupted_trial_is_failed_and_the_interruption_goes_on(bench):
    with pytest.raises(Interrupted):
        bench.run(training(0.5, ends=Interrupted(signal.SIGINT)))
    assert bench.last.is_interrupted and not bench.last.counts


def test_a_signal_while_an_epoch_is_stored_is_obeyed_behind_it(bench):
    def train(config, activations, on_epoch, limits):
        on_epoch(epoch(1, 0.5))
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on after a signal")

    with bench.signals, pytest.raises(Interrupted) as stop:
        bench.run(train)
    assert stop.value.exit_code == 143
    assert bench.last.is_interrupted
    assert bench.last.values == {1: 0.5}


def test_a_broken_database_is_not_taken_for_a_failed_training(bench):
    error = optuna.exceptions.StorageInternalError("disk I/O error")
    with pytest.raises(optuna.exceptions.StorageInternalError):
        bench.run(training(ends=error))
    # Its configuration is run again by the same command; nothing was wrong with it.
    (record,) = read_trials(bench.study)
    assert record.state == "FAIL" and record.is_interrupted and not record.counts


def test_a_trial_that_another_process_ended_is_left_to_it(bench):
    said = []
    bench.progress.message = said.append

    def train(config, activations, on_epoch, limits):
        bench.study.tell(bench.study.get_trials(deepcopy=False)[-1].number, state=TrialState.FAIL)
        return training(0.5)(config, activations, on_epoch, limits)

    record = bench.run(train)
    assert record.state == "FAIL" and record.value is None
    (line,) = said
    assert "Another process has ended trial 0 meanwhile" in line


def test_where_a_trial_comes_from_is_stored_before_it_trains(bench):
    def train(config, activations, on_epoch, limits):
        stored = bench.study.get_trials(deepcopy=False)[-1].user_attrs["provenance"]
        assert stored["versions"] == PROVENANCE["versions"]
        assert stored["config"]["learning_rate"] == FIELDS["learning_rate"]
        raise RuntimeError("seen")

    assert bench.run(train).reason == "RuntimeError: seen"


@pytest.mark.parametrize("ends", [None, DivergedError(2)], ids=["complete", "failed"])
def test_configuration_of_every_trial_is_stored(bench, ends):
    config = bench.run(training(0.5, ends=ends)).config
    assert {key: config[key] for key in FIELDS} == FIELDS
    assert (config["seed"], config["epochs"]) == (3, 6)
    assert (config["num_views"], config["flip"]) == (2, "none")


@pytest.mark.parametrize("ends", [None, DivergedError(4)], ids=["complete", "failed"])
def test_predictions_of_every_epoch_can_be_read(bench, ends):
    arrays = bench.predictions(bench.run(training(0.5, 0.6, 0.7, ends=ends)))
    assert arrays["logits_ENC"].shape == (3, 4, 2)
    assert arrays["logits_ENC"][:, 0, 0].tolist() == [1, 2, 3]
    assert arrays["labels_N"].tolist() == LABELS_N.tolist()
    assert arrays["positions_N"].tolist() == POSITIONS_N.tolist()


def test_predictions_of_a_pruned_trial_can_be_read(bench):
    for _ in range(4):
        bench.run(training(0.9, 0.9, 0.9))
    record = bench.run(training(0.1, 0.1, 0.1, 0.1))
    assert record.state == "PRUNED"
    assert bench.predictions(record)["logits_ENC"].shape == (3, 4, 2)


def never(config, activations, on_epoch, limits):
    raise AssertionError("a duplicate is not trained again")


@pytest.mark.parametrize("ends", [None, DivergedError(2)], ids=["complete", "failed"])
def test_a_duplicate_is_told_the_earlier_state_and_value_and_is_not_counted(bench, ends):
    earlier = bench.run(training(0.5, 0.8, ends=ends))
    record = bench.run(never, duplicate_of=earlier)
    assert (record.state, record.value) == (earlier.state, earlier.value)
    assert record.duplicate_of == earlier.number
    assert earlier.counts and not record.counts


def test_a_duplicate_of_a_pruned_trial_is_pruned(bench):
    for _ in range(4):
        bench.run(training(0.9, 0.9, 0.9))
    earlier = bench.run(training(0.1, 0.2, 0.3, 0.4))
    record = bench.run(never, duplicate_of=earlier)
    assert (record.state, record.value) == ("PRUNED", earlier.value)


FINE_TUNING = {**FIELDS, "strategy": "fine_tuning", "num_unfrozen_layers": 2}


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        (FINE_TUNING, "bf16"),
        (FIELDS, "fp32"),
        ({**FINE_TUNING, "backbone": "mobilenet_v2"}, "fp32"),
    ],
    ids=["fine-tuning", "feature extraction", "a backbone without an entry"],
)
def test_layers_train_in_the_precision_of_their_backbone(bench, fields, precision):
    assert bench.run(training(0.5), fields=fields).config["precision"] == precision


def test_a_training_that_started_anew_leaves_only_what_it_gave_in_the_end(bench):
    def train(config, activations, on_epoch, limits):
        for number, accuracy in enumerate((0.91, 0.92), start=1):
            on_epoch(epoch(number, accuracy))
        return training(0.5, 0.6, 0.7, micro_batch_size=8)(config, activations, on_epoch, limits)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of a value that it doesn't take.
        record = bench.run(train)
    assert record.values == {1: 0.5, 2: 0.6, 3: 0.7}
    assert [e["val"]["accuracy"] for e in record.history] == [0.5, 0.6, 0.7]
    assert (record.value, record.best_epoch) == (0.7, 3)
    assert bench.predictions(record)["logits_ENC"].shape == (3, 4, 2)


def test_the_micro_batch_of_a_trial_is_stored(bench):
    record = bench.run(training(0.5, micro_batch_size=4))
    assert (record.micro_batch_size, record.batch_norm_trains) == (4, True)


def test_what_one_trial_found_no_memory_for_the_next_one_knows(bench):
    seen = []

    def train(config, activations, on_epoch, limits):
        seen.append(limits)
        return training(0.5)(config, activations, on_epoch, limits)

    objective = bench.objective(train, "median")
    bench.objective = lambda *arguments: objective
    bench.run(train)
    bench.run(train)
    assert isinstance(seen[0], MemoryLimits) and seen[0] is seen[1]


COURSE = {"history.csv", "predictions.npz"}
PICTURES = {"learning_curve.png", "confusion_matrix.png"}


@pytest.mark.parametrize(
    "train",
    [training(0.5, 0.9), training(0.5, ends=DivergedError("loss is nan"))],
    ids=["complete", "failed after an epoch"],
)
def test_the_course_of_a_trial_is_stored(bench, train):
    files = bench.files(bench.run(train))
    assert set(files) >= COURSE
    head, first, *_ = files["history.csv"].decode().splitlines()
    assert "val_accuracy" in head and first.split(",")[head.split(",").index("epoch")] == "1"


def test_a_trial_without_an_epoch_has_no_file(bench):
    assert bench.files(bench.run(training(ends=RuntimeError("no")))) == {}


@pytest.mark.parametrize(
    ("rivals", "drawn"),
    [((), True), ((0.7, 0.9), True), ((0.9, 0.95), False)],
    ids=["the first", "as good as the best", "worse than one"],
)
def test_pictures_are_drawn_of_a_trial_that_none_of_its_strategy_is_better_than(
    bench, rivals, drawn
):
    files = bench.files(bench.run(training(0.5, 0.9, 0.7), rivals=rivals))
    assert set(files) == COURSE | (PICTURES if drawn else set())
    assert all(files[name].startswith(b"\x89PNG") for name in PICTURES & set(files))


def test_no_picture_is_drawn_of_a_trial_that_is_not_complete(bench):
    for _ in range(4):
        bench.run(training(0.8, 0.8, 0.8, 0.8))
    pruned = bench.run(training(0.1, 0.1, 0.1, 0.1))
    failed = bench.run(training(0.9, ends=DivergedError("loss is nan")))
    assert (pruned.state, failed.state) == ("PRUNED", "FAIL")
    assert set(bench.files(pruned)) == set(bench.files(failed)) == COURSE


def test_a_trial_whose_pictures_fail_is_complete_all_the_same(bench, monkeypatch):
    def fail(*arguments, **given):
        raise OSError("disk full")

    said = []
    bench.progress.message = said.append
    monkeypatch.setattr(objective, "upload_pictures", fail)
    record = bench.run(training(0.5, 0.9))
    assert (record.state, record.value) == ("COMPLETE", 0.9)
    assert said == ["No pictures of trial 0: disk full"]
