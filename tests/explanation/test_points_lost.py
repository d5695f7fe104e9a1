"""From arrays to an explanation: it adds up, and what was forecast is not found again."""

from dataclasses import replace

import numpy as np
import pytest
from planted import drawn, evidence, forecast_for, logits, seen

from studies.explanation.explain import explain
from studies.explanation.explanation import sentences
from studies.statistics.calibration import find_calibration, probabilities
from studies.statistics.forecast import Predicted, forecast
from studies.statistics.metrics import METRICS

CLASSES = ("NORMAL", "OPACITY")


def explained(seed=0, metric="accuracy", epochs=0.02, trials=0.01, num_resamples=10, **planted):
    found = evidence(seed, **planted)
    given = forecast_for(found, metric, epochs, trials)
    return explain(
        found, metric=metric, classes=CLASSES, forecast=given, num_resamples=num_resamples
    )


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "auroc", "f1", "loss"])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_validation_and_all_steps_add_up_to_the_test_result(metric, shift):
    data = {"shift": shift, "val_share": 0.4, "test_share": 0.6}
    found, given = explained(metric=metric, **data), evidence(0, **data)
    total = found.forecast.naive + sum(step.change.value for step in found.steps)
    assert total == pytest.approx(found.test, abs=1e-9)
    values = []
    for val_NC, test_NC in zip(given.val_logits_SVC, given.test_logits_SNC, strict=True):
        p_NC = probabilities(test_NC, 1.0)
        if metric == "loss":
            p_NC = find_calibration(val_NC, given.val_labels_V).probabilities(test_NC)
        values.append(METRICS[metric](given.test_labels_N, p_NC))
    assert found.test == pytest.approx(np.mean(values), abs=1e-9)
    for step in found.steps:
        assert step.change.low <= step.change.value <= step.change.high


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", -1), ("loss", 1)])
def test_optimism_is_the_forecasts(metric, sign):
    found = explained(metric=metric)
    step = found.step("optimism")
    assert step.change.value == pytest.approx(sign * 0.03) and step.is_loss


def test_optimism_is_as_unsure_as_the_validation_images_make_it():
    """The forecast's interval has the chance of the test images in it; that is the rest's."""
    wide, narrow = (
        explain(
            evidence(0),
            metric="accuracy",
            classes=CLASSES,
            forecast=forecast_for(evidence(0), epochs=0.05, half=half),
            num_resamples=2,
        ).step("optimism")
        for half in (0.3, 0.01)
    )
    assert wide.change == narrow.change
    # One model of 100 images that is right nine times in ten: 6 points; of two seeds less.
    assert 0.02 < wide.change.high - wide.change.value < 0.08
    many = explained(num_val=900, epochs=0.05, trials=0.0).step("optimism").change
    assert many.high - many.value < 0.5 * (wide.change.high - wide.change.value)
    assert many.high < 0


def test_what_optimism_took_off_is_not_counted_again_as_shift():
    """Where all images are of another kind and no result differs, shift gives optimism back."""
    found = evidence(0)
    elsewhere = replace(
        found,
        test_labels_N=np.tile(found.val_labels_V, 2),
        test_features_ND=np.tile(found.val_features_VD, (2, 1)) + 9.0,
        test_logits_SNC=np.tile(found.val_logits_SVC, (1, 2, 1)),
    )
    given = forecast_for(found, epochs=0.05)
    told = explain(elsewhere, metric="accuracy", classes=CLASSES, forecast=given, num_resamples=2)
    assert told.matched < 0.05
    changes = [told.step(cause).change.value for cause in ("optimism", "shift", "rest")]
    assert changes == pytest.approx([-0.05, 0.05, 0.0], abs=0.005)


@pytest.mark.slow
def test_epochs_chosen_on_validation_images_are_optimism_and_no_shift():
    """Twenty epochs that differ by chance alone: the best looks too good, the test says so."""
    steps = {"optimism": [], "shift": [], "rest": []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        val_labels_V, val_features_VD = drawn(rng, 80)
        test_labels_N, test_features_ND = drawn(rng, 400)
        noise_SED = rng.normal(size=(2, 20, 40)) * 0.25

        def by_epoch(features_ND, noise_ED, rng=rng):
            own_EN = rng.normal(size=(20, len(features_ND)))
            return np.stack(
                [
                    logits(rng, features_ND + 0.8 * own_N[:, None], noise_D[None])[0]
                    for own_N, noise_D in zip(own_EN, noise_ED, strict=True)
                ]
            )

        val_SEVC = np.stack([by_epoch(val_features_VD, noise_ED) for noise_ED in noise_SED])
        test_SENC = np.stack([by_epoch(test_features_ND, noise_ED) for noise_ED in noise_SED])
        right_SE = (val_SEVC.argmax(axis=3) == val_labels_V).mean(axis=2)
        best_S = right_SE.argmax(axis=1)
        runs = [
            Predicted(val_labels_V, np.stack([probabilities(row, 1.0) for row in rows]))
            for rows in val_SEVC
        ]
        given = forecast(
            [], runs, METRICS["accuracy"], num_test=400, num_models=2, num_resamples=100
        )
        found = replace(
            evidence(seed),
            val_labels_V=val_labels_V,
            val_features_VD=val_features_VD,
            val_logits_SVC=val_SEVC[[0, 1], best_S],
            test_labels_N=test_labels_N,
            test_features_ND=test_features_ND,
            test_logits_SNC=test_SENC[[0, 1], best_S],
        )
        told = explain(found, metric="accuracy", classes=CLASSES, forecast=given, num_resamples=2)
        for cause, values in steps.items():
            values.append(told.step(cause).change.value)
    means = {cause: np.mean(values) for cause, values in steps.items()}
    assert means["optimism"] < -0.03
    assert abs(means["shift"]) < 0.01 and abs(means["rest"]) < 0.02


def test_calibration_is_a_step_of_a_loss_alone():
    assert "calibration" not in {step.cause for step in explained().steps}
    found = explained(metric="loss", shift=2.0)
    step = found.step("calibration")
    raw = np.mean(
        [
            METRICS["loss"](s.labels_N, p)
            for s in seen(evidence(0, shift=2.0))[1:]
            for p in s.probabilities_SNC
        ]
    )
    assert raw + step.change.value == pytest.approx(found.test)


def test_levels_are_of_all_images_and_of_each_class_beside_training_images():
    found = explained(shift=2.0, num_val=200)
    everyone, moved, other = found.levels
    assert [level.images for level in found.levels] == ["all", *CLASSES]
    assert moved.is_told_apart and everyone.is_told_apart and not other.is_told_apart
    assert moved.test.value > 0.85
    for level in found.levels:
        assert level.reference.low < 0.5 < level.reference.high


def test_how_well_probabilities_hold_is_told_of_both_sets():
    found = explained(shift=2.0, num_val=200)
    before = found.validation_before
    assert before.intercepts[0].low < 0 < before.intercepts[0].high
    assert found.test_before.intercepts[0].high < 0
    assert found.test_after.intercepts[0].high < 0


def test_small_classes_and_three_classes_are_explained():
    rng = np.random.default_rng(0)

    def three(num_images):
        labels_N = np.concatenate([np.zeros(2), np.ones(30), np.full(num_images - 32, 2)])
        features_ND = rng.normal(size=(num_images, 900)).astype(np.float16)
        logits_SNC = rng.normal(size=(2, num_images, 3)) + 3 * np.eye(3)[labels_N.astype(int)]
        return labels_N.astype(np.int64), features_ND, logits_SNC

    (train_y, train_x, _), (val_y, val_x, val), (test_y, test_x, test) = map(three, (90, 60, 70))
    found = replace(
        evidence(0),
        train_labels_M=train_y,
        train_features_MD=train_x,
        val_labels_V=val_y,
        val_features_VD=val_x,
        val_logits_SVC=val,
        test_labels_N=test_y,
        test_features_ND=test_x,
        test_logits_SNC=test,
    )
    given = forecast_for(found)
    told = explain(found, metric="auroc", classes="abc", forecast=given, num_resamples=5)
    assert told.thresholds is None and told.levels[1].test is None
    assert [path.num_val for path in told.paths] == [2, 30, 28]


def test_subjects_of_one_image_change_no_digit():
    found = evidence(0, num_val=60, num_test=80, shift=1.0)
    rng = np.random.default_rng(3)
    alone = replace(
        found,
        train_groups_M=rng.permutation(len(found.train_labels_M)),
        val_groups_V=rng.permutation(60),
        test_groups_N=rng.permutation(80),
    )
    plain, grouped = (
        explain(
            each,
            metric="accuracy",
            classes=["NORMAL", "OPACITY"],
            forecast=forecast_for(found),
            num_resamples=20,
        )
        for each in (found, alone)
    )
    assert grouped.steps == plain.steps and grouped.paths == plain.paths
    assert [(level.test, level.p, level.reference_p) for level in grouped.levels] == [
        (level.test, level.p, level.reference_p) for level in plain.levels
    ]


def test_of_fewer_than_five_subjects_of_a_class_nothing_is_told():
    found = evidence(0, num_val=60, num_test=80, shift=3.0)

    def by_subjects_of(images):
        grouped = replace(
            found,
            val_groups_V=np.arange(60) // images,
            test_groups_N=np.arange(80) // images,
        )
        return explain(
            grouped,
            metric="accuracy",
            classes=["NORMAL", "OPACITY"],
            forecast=forecast_for(found),
            num_resamples=20,
        )

    levels = {level.images: level for level in by_subjects_of(10).levels}
    assert levels["all"].p is not None and levels["NORMAL"].p is None
    few = by_subjects_of(10)
    text = " ".join(sentences(few))
    assert "Too few subjects" in text
    assert by_subjects_of(2).levels[1].p is not None
    # Nobody can tell whether such images are of another kind: so nobody says that they are not.
    assert few.leading.cause == "rest" and few.unsplit == ["NORMAL", "OPACITY"]
    assert "shift and the rest together" in text and "images of the same kind" not in text
    assert few.as_json()["matched"] is None and by_subjects_of(2).as_json()["matched"] < 1
    assert by_subjects_of(2).unsplit == []
