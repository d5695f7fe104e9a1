"""From arrays to an explanation: it adds up, and what was forecast is not found again."""

from dataclasses import replace

import numpy as np
import pytest
from planted import drawn, evidence, forecast_for, logits, seen

from studies.calibration import find_temperature, probabilities
from studies.forecast import Predicted, forecast
from studies.points_lost import explain
from studies.scores import METRICS

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
        temperature = find_temperature(val_NC, given.val_labels_V)
        values.append(METRICS[metric](given.test_labels_N, probabilities(test_NC, temperature)))
    assert found.test == pytest.approx(np.mean(values), abs=1e-9)
    for step in found.steps:
        assert step.change.low <= step.change.value <= step.change.high


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", -1), ("loss", 1)])
def test_optimism_is_the_forecasts(metric, sign):
    found = explained(metric=metric)
    step = found.step("optimism")
    assert step.change.value == pytest.approx(sign * 0.03) and step.is_loss
    assert step.change.low == pytest.approx(found.forecast.low - found.forecast.naive)


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


def test_temperature_is_a_step_of_a_loss_alone():
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


def test_calibration_error_is_told_of_both_sets():
    found = explained(shift=2.0)
    assert found.ece_test.low > found.ece_validation.high


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
