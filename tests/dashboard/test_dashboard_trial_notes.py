"""The note of a trial: what was trained, what came out, why it was pruned or failed."""

import math

import pytest
from made_up_trials import record

from studies.dashboard.notes import trial_note
from studies.statistics.intervals import wilson_interval

DEPTHS = {"resnet18": 9}
TUNED = {
    "backbone": "resnet18",
    "strategy": "fine_tuning",
    "learning_rate@fine_tuning": 3.21e-4,
    "batch_size": 16,
    "num_unfrozen_layers": 4,
}


def trial(accuracy=0.75, epochs=3, **changes):
    history = [
        {
            "epoch": number,
            "train": {"accuracy": 0.6, "loss": 0.9},
            "val": {"accuracy": accuracy, "loss": 0.5},
        }
        for number in range(1, epochs + 1)
    ]
    fields = {
        "history": history,
        "best_epoch": min(2, epochs) or None,
        "keyed_params": TUNED,
        "train_metrics": {"accuracy": 0.9, "loss": 0.2},
        "config": {"seed": 7},
        "num_trainable_parameters": 1_234_567,
        "peak_memory_bytes": 660_000_000,
        "timing": {"training": 6.0, "validation": 2.0, "activations": 0.01},
    }
    return record(5, "fine_tuning", accuracy, **{**fields, **changes})


def note(found, metric="accuracy", purpose="", subjects=None):
    return trial_note(
        found,
        metric=metric,
        num_val=400,
        depths=DEPTHS,
        purpose=purpose,
        subjects=subjects,
    )


def test_it_says_what_was_trained():
    said = note(trial())
    assert said.startswith(
        "**Fine-tuning** of resnet18: the last 4 layers of 9 and the head trained "
        "(1,234,567 parameters); learning rate 0.000321, batch size 16, seed 7."
    )


@pytest.mark.parametrize(
    ("layers", "words"),
    [(1, "the last layer of 9 and the head"), (9, "all 9 layers and the head")],
)
def test_one_layer_and_all_of_them_have_words_of_their_own(layers, words):
    assert words in note(trial(keyed_params={**TUNED, "num_unfrozen_layers": layers}))


def test_a_feature_extractor_is_frozen():
    params = {"backbone": "resnet18", "strategy": "feature_extraction", "batch_size": 16}
    said = note(trial(keyed_params=params))
    assert said.startswith("**Feature extraction** of resnet18: all layers frozen, a linear head")


def test_what_is_as_always_goes_without_saying():
    assert "dropout" not in note(trial(keyed_params={**TUNED, "dropout": 0.2}))
    assert "dropout 0.5" in note(trial(keyed_params={**TUNED, "dropout": 0.5}))


def test_it_says_what_came_out_with_interval_epoch_and_gap():
    low, high = wilson_interval(300, 400)
    said = note(trial())
    assert f"accuracy **75.0 %** [{100 * low:.1f}, {100 * high:.1f}] (400 images" in said
    assert "at epoch 2, the best of 3 by accuracy." in said
    assert "On training images 90.0 % (gap +15.0 points)." in said


def test_a_gap_that_nobody_measured_is_not_made_up():
    said = note(trial(train_metrics=None))
    assert "On training images it was not measured." in said and "gap" not in said


def test_a_loss_is_no_share_and_has_no_interval():
    said = note(trial(), metric="loss")
    assert "Validation loss **0.500** (400 images)" in said and "gap -0.300" in said


def test_it_says_what_it_took():
    said = note(trial(cache={"was_at_hand": True, "bytes": 1, "start": 5}))
    assert "Took 10.0 s (training 6.0 s, validation 2.0 s); peak memory 660.0 MB." in said
    assert "Outputs of the frozen layers were at hand." in said


def test_a_peak_that_no_system_told_is_unknown_and_a_control_has_none():
    assert "peak memory unknown." in note(trial(peak_memory_bytes=None))
    control = trial(peak_memory_bytes=None, num_trainable_parameters=None)
    assert "peak memory" not in note(control, purpose="controls")


@pytest.mark.parametrize(("size", "told"), [(4, True), (16, False), (None, False)])
def test_it_says_where_memory_was_short(size, told):
    assert ("4 images at a time" in note(trial(micro_batch_size=size))) is told


def test_a_pruned_trial_says_why():
    said = note(trial(state="PRUNED", value=None, reason="worse than the median at epoch 3"))
    assert "**Pruned** after epoch 3: worse than the median at epoch 3 of the trials" in said
    assert "75.0 %" in said


def test_a_reason_of_an_earlier_version_has_todays_words():
    """Of a loss "below" would say the opposite."""
    found = trial(state="PRUNED", value=None, reason="below the median at epoch 3")
    assert "worse than the median at epoch 3" in note(found, metric="loss")


def test_a_failure_that_does_not_count_says_so():
    said = note(trial(epochs=0, state="FAIL", value=None, reason="no space left", void=True))
    assert "**Failed**: no space left. It is not counted" in said


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("out of memory", "**Failed**: out of memory. Smaller batches or images need less."),
        ("interrupted", "**Interrupted**: its process was stopped or died. It is not counted"),
        ("ValueError: no", r"**Failed**: ValueError\: no. It is counted"),
        (None, "**Failed**: nobody knows why. It is counted"),
        ("bad.", "**Failed**: bad. It is counted"),
    ],
)
def test_a_failed_trial_says_why(reason, words):
    found = trial(epochs=0, state="FAIL", value=None, reason=reason, seconds=None)
    said = note(found)
    assert words in said and "Validation" not in said and "Took" not in said


def test_a_trial_that_was_killed_before_it_had_a_configuration_says_so():
    found = trial(epochs=0, state="FAIL", keyed_params={}, reason="interrupted", seconds=None)
    said = note(found)
    assert said.startswith("It ended before it had a configuration.")
    assert "None" not in said and "another trial takes its place" in said.replace("\n", " ")


def test_a_value_that_is_none_is_not_shown():
    assert "Validation" not in note(trial(accuracy=math.nan, state="FAIL", reason="loss is nan"))


def test_a_duplicate_says_of_which_and_nothing_of_a_result():
    said = note(trial(duplicate_of=2))
    assert "This configuration is that of trial 2" in said and "Validation" not in said


def test_a_repeat_says_whose_configuration_and_which_seed():
    params = {**TUNED, "candidate": 11, "seed": 3}
    said = note(trial(keyed_params=params), purpose="confirm")
    assert "The configuration of trial 11 of the search, with another seed." in said
    assert "seed 3." in said and "candidate" not in said


def test_a_recipe_is_no_control_of_features():
    params = {**TUNED, "candidate": 0, "seed": 3}
    assert "The default recipe, without a search." in note(
        trial(keyed_params=params), purpose="controls"
    )


@pytest.mark.parametrize(
    ("control", "backbone", "weights", "words"),
    [
        ("majority", "none", "none", "**Control.** The most frequent class"),
        ("knn", "resnet18", "random", "Nearest neighbours on frozen features of resnet18"),
        ("logistic_regression", "resnet18", "imagenet", "weights imagenet (pretrained)."),
    ],
)
def test_a_control_says_what_it_is(control, backbone, weights, words):
    params = {"control": control, "features_of": backbone, "features_by": weights}
    said = note(trial(epochs=1, keyed_params=params), purpose="controls")
    assert words in said and "training 90.0 %." in said


@pytest.mark.parametrize(
    "changes",
    [
        {"keyed_params": {**TUNED, "backbone": "![x](http://a.b/c) <img src=x>"}},
        {"state": "FAIL", "reason": "![x](http://a.b/c) <img src=x>"},
    ],
)
def test_markup_from_outside_is_shown_as_it_is(changes):
    said = note(trial(**changes))
    assert r"\!\[x\](http\://a.b/c) \<img src=x\>" in said


def test_images_of_few_subjects_are_as_unsure_as_the_subjects():
    low, high = wilson_interval(75, 100)
    said = note(trial(), subjects=100)
    assert f"[{100 * low:.1f}, {100 * high:.1f}] (400 images of 100 subjects" in said
