"""Controls as rows, and the alarm where a strategy has learned nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import binom

from studies.results.controls import (
    KEYS,
    Predictions,
    alarms,
    call_notes,
    control_rows,
    measure_learned,
    read_learned,
)
from studies.statistics.metrics import METRICS
from transfer.config import TITLES

CLASSES = ("NORMAL", "ILL")


def trial(accuracy, state="COMPLETE", strategy=None, **params):
    return SimpleNamespace(
        state=state,
        best={"val": {"accuracy": accuracy, "loss": 0.1}},
        keyed_params=params,
        strategy=strategy,
    )


def control(name, backbone, weights, accuracy, **changes):
    return trial(accuracy, **dict(zip(KEYS, (name, backbone, weights), strict=True)), **changes)


def recipe(accuracy):
    record = trial(accuracy, candidate=0, backbone="resnet18")
    record.strategy = "fine_tuning"
    return record


def test_controls_are_rows_and_recipes_stand_with_the_mean_over_seeds():
    rows = control_rows(
        [
            control("majority", "none", "none", 0.5),
            control("knn", "resnet18", "random", 0.6),
            control("knn", "resnet50", "random", 0.7, state="FAIL"),
            recipe(0.8),
            recipe(0.9),
        ]
    )
    assert [(r["control"], r["backbone"], r["weights"]) for r in rows] == [
        ("majority", None, None),
        ("knn", "resnet18", "random"),
        ("default_recipe (fine_tuning)", "resnet18", "as searched"),
    ]
    assert rows[-1]["val"]["accuracy"] == pytest.approx(0.85)


def drawn(seed, prevalence, distance, *, num_images=400, num_seeds=3, slope=1.0):
    """Labels and what seeds say of them, calibrated where ``slope`` is 1.

    The classes are two normal distributions ``distance`` apart; seeds differ a little.
    """
    rng = np.random.default_rng(seed)
    labels_N = (rng.random(num_images) < prevalence).astype(np.int64)
    labels_N[:2] = 0, 1
    scores_N = rng.normal(size=num_images) + distance * labels_N
    evidence_N = distance * scores_N - distance**2 / 2
    noise_SN = 0.2 * rng.normal(size=(num_seeds, num_images))
    p_SN = expit(slope * (logit(prevalence) + evidence_N + noise_SN))
    return Predictions(labels_N, np.stack([1 - p_SN, p_SN], axis=2))


def learned(prevalence, distance, seed=0, **options):
    shares_C = np.array([1 - prevalence, prevalence])
    sets = [drawn(seed, prevalence, distance, **options)]
    return measure_learned(sets, CLASSES, shares_C, num_resamples=200)


AUROCS = {1.53: 0.86, 1.99: 0.92}


@pytest.mark.parametrize("distance", AUROCS)
@pytest.mark.parametrize("prevalence", [0.05, 0.1, 0.2])
def test_a_calibrated_model_of_a_rare_class_raises_no_alarm(prevalence, distance):
    """Its accuracy is hardly above the majority's: by that, 46 to 97 % of them raised one."""
    num_alarms = sum(not learned(prevalence, distance, seed).is_shown for seed in range(25))
    assert num_alarms <= 1


@pytest.mark.parametrize("prevalence", [0.1, 0.5])
def test_what_does_not_depend_on_the_image_raises_the_alarm(prevalence):
    num_alarms = sum(not learned(prevalence, 0.0, seed).is_shown for seed in range(25))
    assert num_alarms >= 22


def test_an_overconfident_model_that_ranks_well_raises_no_alarm():
    found = learned(0.2, 1.53, slope=8.0)
    assert found.gains[0].low > 0 and found.aurocs[0].low > 0.7
    assert found.is_shown


def test_the_alarm_says_what_does_not_show_it():
    found = {"fine_tuning": learned(0.5, 0.0)}
    (line,) = alarms(found, TITLES)
    assert line.startswith("Alarm: nothing shows that fine-tuning has learned anything: on 400")
    assert "AUROC to be above 0.5 (0." in line
    assert alarms({"fine_tuning": learned(0.5, 1.5)}, TITLES) == []
    assert call_notes(found, TITLES) == []


def test_a_good_model_that_calls_nearly_everything_normal_is_told_to_use_a_threshold():
    rare = learned(0.05, 1.53)
    (line,) = call_notes({"fine_tuning": rare}, TITLES)
    assert rare.most == "NORMAL" and rare.share > 0.9 and rare.recall < 0.25
    assert line.startswith("fine-tuning calls 9") and "NORMAL by the most probable class" in line
    assert "use a threshold" in line
    assert call_notes({"fine_tuning": learned(0.5, 1.53)}, TITLES) == []


def test_seeds_with_images_of_their_own_are_judged_apart():
    shares_C = np.array([0.5, 0.5])
    sets = [drawn(seed, 0.5, 1.5, num_seeds=1, num_images=80) for seed in range(3)]
    found = measure_learned(sets, CLASSES, shares_C)
    assert len(found.gains) == len(found.aurocs) == 3 and found.is_shown
    nothing = [drawn(seed, 0.5, 0.0, num_seeds=1, num_images=80) for seed in range(3)]
    found = measure_learned(nothing, CLASSES, shares_C)
    assert "with the first of 3 seeds" in alarms({"fine_tuning": found}, TITLES)[0]


def test_without_auroc_the_loss_decides():
    labels_N, given_SNC, _ = drawn(0, 0.5, 1.5)
    same_N = np.zeros(len(labels_N), np.int64)
    found = measure_learned([Predictions(same_N, given_SNC)], CLASSES, np.array([0.5, 0.5]))
    assert found.aurocs == (None,) and "not defined" in alarms({"fine_tuning": found}, TITLES)[0]


def test_copies_of_few_patients_do_not_show_what_the_patients_do_not():
    """Twenty copies of each image: by images almost anything would be shown."""
    labels_N, given_SNC, _ = drawn(3, 0.5, 0.3, num_images=20, num_seeds=1)
    copies = np.repeat(np.arange(20), 20)
    shares_C = np.array([0.5, 0.5])
    alone, grouped = (
        measure_learned(
            [Predictions(labels_N[copies], given_SNC[:, copies], groups_N)], CLASSES, shares_C
        ).aurocs[0]
        for groups_N in (None, copies)
    )
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_of_too_few_subjects_nobody_says_whether_anything_was_learned():
    """One subject a class: no interval, no alarm, and no crash behind hours of training."""
    labels_N, said_SNC, _ = drawn(0, 0.5, 1.5, num_seeds=2, num_images=40)
    found = measure_learned(
        [Predictions(labels_N, said_SNC, labels_N)], CLASSES, np.array([0.5, 0.5])
    )
    assert not found.is_known and alarms({"fine_tuning": found}, TITLES) == []
    (line,) = call_notes({"fine_tuning": found}, TITLES)
    assert line == (
        "The validation images are of too few subjects to tell whether fine-tuning has learned "
        "anything."
    )


@pytest.mark.parametrize("resplit", [False, True])
def test_whether_it_has_learned_is_judged_at_epochs_that_other_images_chose(monkeypatch, resplit):
    """Of 15 epochs of networks that know nothing the best one looks as if it knew something."""

    def read(storage, run):
        rng = np.random.default_rng(run.number)
        logits_ENC = rng.normal(size=(15, 60, 2))
        labels_N = np.arange(60) % 2
        losses = [METRICS["loss"](labels_N, softmax(each_NC, axis=1)) for each_NC in logits_ENC]
        run.best_epoch = 1 + int(np.argmin(losses))
        return SimpleNamespace(labels_N=labels_N, logits_ENC=logits_ENC, groups_N=None)

    monkeypatch.setattr("studies.results.controls.read_predictions", read)
    counts = {"train": {"NORMAL": 50, "OPACITY": 50}}
    num_alarms = 0
    for first in range(0, 60, 3):
        runs = [SimpleNamespace(number=first + i, best_epoch=1) for i in range(3)]
        for run in runs:
            read(None, run)
        confirmed = SimpleNamespace(
            chosen={"fine_tuning": SimpleNamespace(runs=runs)}, resplit=resplit
        )
        found = read_learned(None, confirmed, counts)["fine_tuning"]
        assert len(found.aurocs) == (3 if resplit else 1)
        num_alarms += not found.is_shown
    assert num_alarms >= binom.ppf(0.001, 20, 0.95)
