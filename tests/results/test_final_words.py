"""The words of a final test evaluation follow its numbers."""

from datetime import UTC, datetime
from io import StringIO

import pytest
from bundles import bundle_config
from rich.console import Console

from studies.bundle.card import card_paragraphs
from studies.database.ledger import Opening
from studies.results.evaluation import (
    forecast_result,
    forecast_sentence,
    interval_text,
    opening_lines,
    overlap,
    refusal,
    verdict_lines,
)
from studies.terminal.evaluation import print_evaluation

PREDICTED = {
    "value": 0.9,
    "low": 0.8,
    "high": 0.95,
    "naive": 0.93,
    "epoch_optimism": 0.02,
    "trial_optimism": 0.01,
    "num_test": 40,
    "num_trials": 7,
}


def interval(value, half=0.05):
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value - half, "high": value + half}


def result(**changes):
    metrics = {"accuracy": interval(0.85), "auroc": interval(None), "loss": interval(0.5)}
    strategy = {"metrics": metrics, "seeds": [1, 2], "num_failed": 0, "trial": 4}
    return {
        "metric": "accuracy",
        "n": 40,
        "counts": {"sick": 20, "[bold]well": 20},
        "metrics": metrics,
        "confusion": {"counts": [[15, 5], [1, 19]]},
        "at_threshold": {
            "threshold": 0.3,
            "metrics": {"accuracy": interval(0.8), "balanced_accuracy": interval(0.79)},
        },
        "as_forecast": interval(0.85),
        "by_strategy": {"fine_tuning": strategy, "feature_extraction": strategy},
        "controls": [
            {"control": "majority", "backbone": None, "weights": None, "metrics": metrics}
        ],
        "difference": {
            **interval(0.02),
            "p": 0.3,
            "sentence": "Fine-tuning is what it is.",
        },
    } | changes


def opening(number=1, outcome=None, reason=None):
    return Opening(
        id=number,
        number=number,
        test_fingerprint="a" * 64,
        opened=datetime(2026, 1, number, 12, 30, tzinfo=UTC),
        study="s",
        bundle="c0ffee" + "0" * 58,
        reason=reason,
        predicted=PREDICTED,
        result=outcome,
    )


def screen(outcome, every=None):
    console = Console(file=StringIO(), width=80)
    print_evaluation(console, opening(outcome=outcome), every or [opening(outcome=outcome)])
    return console.file.getvalue()


def test_a_forecast_is_told_with_what_was_taken_off():
    told = forecast_sentence("accuracy", PREDICTED)
    for part in ("0.9000 [0.8000, 0.9500]", "40 test images", "0.9300 over seeds", "-0.0200"):
        assert part in told
    assert "of the best of 7 trials" in told
    assert "+0.0200" in forecast_sentence("loss", PREDICTED)
    assert "+0.0000 for that" in forecast_sentence("auroc", PREDICTED | {"trial_optimism": 0.0})
    assert "of 1 trial)" in forecast_sentence("loss", PREDICTED | {"num_trials": 1})


def test_what_is_not_defined_is_a_dash():
    assert interval_text(interval(None)) == "-"
    assert interval_text(interval(0.5), 2) == "0.50 [0.45, 0.55]"


def test_a_refusal_names_the_opening_and_the_way_out():
    told = refusal("s", [opening(outcome=result())])
    assert "opened once already, last on 2026-01-01 12:30 UTC" in told
    assert "c0ffee000000 (accuracy 0.8500 [0.8000, 0.9000])" in told
    assert '--again --reason "..."' in told
    told = refusal("s", [opening(), opening(2)])
    assert "opened 2 times already, last on 2026-01-02" in told and "without an end" in told


def test_the_screen_has_every_part_within_eighty_columns():
    told = screen(result())
    for part in (
        "40 test images",
        "85.0 [80.0, 90.0]",  # per cent
        "0.50 [0.45, 0.55]",  # nats
        "lies within the forecast",
        "Called [bold]well from 0.3 on",
        "majority",
        "Fine-tuning is what it is.",
        "opened once",
    ):
        assert part in told, part
    assert max(map(len, told.splitlines())) <= 80


def measures(slope, error):
    return {
        "slope": None if slope is None else interval(slope),
        "intercepts": None if slope is None else {"[bold]well" * 4: interval(-0.2)},
        "loss": interval(0.5),
        "brier": interval(0.125),
        "ece": {"value": 0.1, "expected": 0.1 - error, "excess": error, "p": 0.04},
    }


def test_calibration_is_told_before_and_after_it_without_an_interval_of_its_error():
    told = screen(
        result(calibration={"before": measures(0.4, 0.05), "after": measures(0.9, 0.01)})
    )
    for part in (
        "0.400 [0.350, 0.450]",
        "-0.200 [-0.250, -0.150]",
        "0.125 [0.075, 0.175]",
        "+0.050 (p = 0.04)",
        "+0.010 (p = 0.04)",
    ):
        assert part in told, part
    assert max(map(len, told.splitlines())) <= 80
    undefined = measures(None, 0.0)
    told = screen(result(calibration={"before": undefined, "after": undefined}))
    assert "intercept" in told and "slope" in told


def test_an_interval_of_ece_in_an_older_result_is_not_shown():
    older = {"accuracy": interval(0.85), "ece": interval(0.0437)}
    strategy = {"metrics": older, "seeds": [1, 2], "num_failed": 0, "trial": 4}
    told = screen(result(metrics=older, by_strategy=dict.fromkeys(["fine_tuning"], strategy)))
    assert "ece" not in told.split() and "4.4" not in told


def test_precision_is_said_to_be_that_at_these_shares_of_the_classes():
    told = " ".join(screen(result()).split())
    assert "Precision holds where classes are as frequent as in these images" in told


def test_more_classes_than_two_have_no_threshold():
    outcome = result(at_threshold={"threshold": None, "metrics": {}})
    assert "Called" not in screen(outcome)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (0.85, "The test accuracy lies within the forecast."),
        (0.7, "before calibration, 0.7000, lies outside the forecast: by a chance of 1 in 20"),
        (None, "accuracy is not defined"),
    ],
)
def test_it_says_whether_the_forecast_held(value, part):
    assert part in forecast_result(PREDICTED, result(as_forecast=interval(value)))


def test_one_strategy_alone_has_no_difference():
    alone = {"fine_tuning": {"metrics": {}, "seeds": [1]}}
    (line,) = verdict_lines(result(difference=None, by_strategy=alone))
    assert line == "No difference: nothing is confirmed of feature extraction."
    (line,) = verdict_lines(result(difference=None))
    assert "accuracy is not defined" in line


def test_every_opening_is_told_with_its_reason():
    lines = opening_lines([opening(outcome=result()), opening(2, result(), "a <b> typo")])
    assert "opened 2 times: all but the first are validation" in lines[0]
    assert lines[2].endswith("because: a <b> typo")
    assert len(opening_lines([opening(outcome=result())])) == 1


def test_the_card_says_the_same_and_escapes_it():
    every = [opening(outcome=result(), reason="a <b> typo")] * 2
    text = "\n\n".join(card_paragraphs(every, bundle_of(every[0].bundle)))
    assert "0.8500 \\[0.8000, 0.9000\\]" in text and "40 test images" in text
    assert "<b>" not in text and "a \\<b\\> typo" in text


def bundle_of(model, **study):
    config = bundle_config({"model.safetensors": model, "reproduce.sh": "3" * 64})
    return config.model_copy(update={"study": config.study.model_copy(update=study)})


def test_the_card_of_a_model_that_was_not_evaluated_says_what_is_known():
    bundle = bundle_of("5" * 64, name="another")
    assert card_paragraphs([], bundle) == []
    text = "\n".join(card_paragraphs([opening(outcome=result())], bundle))
    assert "was not evaluated on the test images, but others were" in text
    assert "begun and has no result" in card_paragraphs([opening()], bundle)[0]
    seed_of_it = bundle_of("5" * 64, name="s", trial=4)
    (first, *_) = card_paragraphs([opening(outcome=result())], seed_of_it)
    assert "mean over the seeds of its configuration was, on 2026\\-01\\-01" in first or (
        "mean over the seeds of its configuration was, on 2026-01-01" in first
    )
    assert "accuracy 0.8500" in first


def test_the_better_control_comes_first_and_what_is_not_defined_last():
    def row(name, value):
        metrics = {"accuracy": interval(value), "loss": interval(value)}
        return {"control": name, "backbone": None, "weights": None, "metrics": metrics}

    rows = [row("low", 0.2), row("none", None), row("high", 0.9)]
    places = [screen(result(controls=rows)).index(n) for n in ("high", "low", "none ")]
    assert places == sorted(places)
    of_loss = screen(result(controls=rows, metric="loss"))
    assert of_loss.index("low ") < of_loss.index("high ")


def test_trainings_that_failed_and_reasons_with_control_characters_are_told():
    failed = {"metrics": {}, "seeds": [1], "num_failed": 2, "trial": 4}
    by_strategy = {"fine_tuning": failed, "feature_extraction": failed | {"num_failed": 0}}
    lines = verdict_lines(result(by_strategy=by_strategy))
    assert lines[-1] == "2 training(s) of fine-tuning over seeds failed."
    lines = opening_lines([opening(outcome=result()), opening(2, result(), "a\x1b[31mred\nb")])
    assert "\x1b" not in lines[2] and "\n" not in lines[2]


def test_images_that_were_opened_in_another_test_set_are_told():
    told = overlap("t", {"s": 20}, 24)
    assert "Of the 24 test images of study 't'" in told and "20 with study 's'" in told
    assert '--again --reason "..."' in told


def test_every_output_says_whose_images_they_are_or_that_nobody_knows():
    for subjects, told in ((None, "40 test images, taken as independent"), (12, "of 12 subjects")):
        found = opening(outcome=result(subjects=subjects))
        console = Console(file=StringIO(), width=100)
        print_evaluation(console, found, [found])
        assert told in console.file.getvalue()
        assert told in "\n".join(card_paragraphs([found], bundle_of(found.bundle)))
