"""``--choose-by``: the calibrated loss chooses epochs, trials, candidates; the metric is told."""

import numpy as np
import pytest
from test_calibrated_loss import predictions

import studies
from search_spaces import load_space
from studies.database.storage import load_study, open_existing
from studies.database.trials import best_trials, read_trials
from studies.results.choice import CONFIRM, read_confirmed
from studies.search.suggest import _Model
from studies.statistics.calibration import uncalibrated
from studies.statistics.metrics import CALIBRATED_LOSS, METRICS
from studies.statistics.optimism import selection_optimism
from transfer.training.calibrated_loss import calibrated_loss, losses_by_temperature, smallest
from transfer.training.result import EpochRecord, best_epoch


def test_probabilities_of_a_resample_give_what_its_logits_give():
    logits_NC, labels_N = predictions(1, num_classes=3)
    said_NC = uncalibrated(logits_NC)
    whole = CALIBRATED_LOSS(labels_N, said_NC)
    assert whole == pytest.approx(calibrated_loss(logits_NC, labels_N), rel=1e-9)
    drawn = np.random.default_rng(0).integers(len(labels_N), size=len(labels_N))
    counts_BN = np.bincount(drawn, minlength=len(labels_N))[None].astype(float)
    found = CALIBRATED_LOSS.weighted(labels_N, said_NC, counts_BN)[0]
    of_drawn = losses_by_temperature(logits_NC, labels_N)[:, drawn].mean(axis=1)
    assert found == pytest.approx(smallest(of_drawn), rel=1e-9)


def record(epoch, accuracy, calibrated):
    return EpochRecord(
        epoch=epoch,
        train={},
        val={"accuracy": accuracy, "loss": 0.5, "calibrated_loss": calibrated},
        val_logits_NC=np.zeros((1, 2), np.float32),
        training_seconds=0.0,
        validation_seconds=0.0,
    )


def test_it_chooses_another_epoch_than_the_metric_does():
    history = [record(1, 0.9, 0.30), record(2, 0.8, 0.20), record(3, 0.7, 0.25)]
    assert best_epoch(history, "accuracy") == 1
    assert best_epoch(history, "calibrated_loss") == 2


def test_a_metric_that_chose_nothing_is_less_optimistic():
    labels_N, optimism = np.arange(80) % 2, []
    for seed in range(2, 6):
        rng = np.random.default_rng(seed)
        shift = 1.2 * np.eye(2)[labels_N]
        trials = list(uncalibrated(rng.normal(size=(30, 5, 80, 2)) + shift))
        by_metric, by_loss = (
            selection_optimism(
                labels_N, trials, METRICS["accuracy"], num_resamples=200, chosen_by=chosen_by
            )
            for chosen_by in (None, CALIBRATED_LOSS)
        )
        keys = [[CALIBRATED_LOSS(labels_N, said_NC) for said_NC in trial] for trial in trials]
        chosen = np.unravel_index(np.argmin(keys), np.shape(keys))
        assert (by_loss.trial, by_loss.epoch) == chosen
        assert by_loss.naive == METRICS["accuracy"](labels_N, trials[chosen[0]][chosen[1]])
        assert by_loss.naive <= by_metric.naive
        optimism.append((by_metric.optimism, by_loss.optimism))
    of_metric, of_loss = np.mean(optimism, axis=0)
    assert 0 < of_loss < 0.9 * of_metric


SPACE = """
name = "tiny"
[backbone]
choices = ["resnet18"]
[strategy]
choices = ["feature_extraction"]
[learning_rate]
low = 1e-4
high = 1e-1
log = true
[batch_size]
choices = [8]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that chooses by calibrated loss: its storage and the summary of the run."""
    home = tmp_path_factory.mktemp("choose")
    (home / "space.toml").write_text(SPACE, encoding="utf-8")
    storage = f"sqlite:///{home / 'studies.db'}"
    studies.run(
        name="s",
        data="phantom:train=60,test=20,size=32",
        space=str(home / "space.toml"),
        weights="random",
        image_size=32,
        trials=6,
        epochs=6,
        patience=6,
        pruner="none",
        choose_by="calibrated_loss",
        top=2,
        seeds=2,
        storage=storage,
        cache_dir=home / "cache",
    )
    return open_existing(storage)


def test_every_trial_tells_the_metric_of_the_epoch_with_the_smallest_calibrated_loss(done):
    trials = read_trials(load_study(done, "s"))
    assert len(trials) == 6
    differs = []
    for trial in trials:
        course = {e["epoch"]: e["val"]["calibrated_loss"] for e in trial.history}
        assert course[trial.best_epoch] == min(course.values())
        assert trial.value == trial.history[trial.best_epoch - 1]["val"]["accuracy"]
        assert trial.values == {e["epoch"]: e["val"]["accuracy"] for e in trial.history}
        assert trial.scores("accuracy") == {epoch: -loss for epoch, loss in course.items()}
        differs.append(trial.value < max(trial.values.values()))
    assert any(differs)


def test_trials_and_candidates_are_ordered_by_it(done):
    trials = read_trials(load_study(done, "s"))
    losses = [t.best["val"]["calibrated_loss"] for t in best_trials(trials, "accuracy")]
    assert losses == sorted(losses)
    found = read_confirmed(load_study(done, f"s/{CONFIRM}"), trials, "accuracy")
    assert [c.number for c in found.candidates] == [
        t.number for t in best_trials(trials, "accuracy")[:2]
    ]

    def mean_loss(candidate):
        return np.mean([run.best["val"]["calibrated_loss"] for run in candidate.runs])

    assert found.best.number == min(found.candidates, key=mean_loss).number


def test_the_sampler_sees_it_and_not_the_metric(done, tmp_path):
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    model = _Model(load_space(tmp_path / "space.toml", {"resnet18": 9}), "feature_extraction")
    trials = read_trials(load_study(done, "s"))
    seen = model.study(trials, "tpe", 0, "accuracy").trials
    assert [t.value for t in seen] == [-t.best["val"]["calibrated_loss"] for t in trials]
    assert [t.intermediate_values for t in seen] == [t.scores("accuracy") for t in trials]
    assert [t.value for t in seen] != [t.value for t in trials]
