"""Candidates over seeds and controls are printed with what they mean."""

import io

import numpy as np
from rich.console import Console
from test_confirm import candidate
from test_control_rows import control, learned

from studies.results.choice import Confirmed
from studies.results.comparison import Choice, ConfirmSummary, compare_strategies
from studies.terminal.study import print_verdict, verdict_json


def verdict(*candidates, comparison=None, resplit=False):
    confirmed = Confirmed(
        metric="accuracy", seeds=[1, 2], resplit=resplit, how="best", candidates=candidates
    )
    return ConfirmSummary(
        confirmed=confirmed,
        controls=[control("majority", "none", "none", 0.75), control("knn", "net", "random", 0.8)],
        learned={c.strategy: learned(0.5, 0.0) for c in candidates},
        comparison=comparison,
    )


def with_backbone(*given, **options):
    found = candidate(*given, **options)
    object.__setattr__(found, "configuration", {"backbone": "net"})
    return found


def printed(shown):
    console = Console(width=80, file=io.StringIO())
    print_verdict(console, shown)
    return console.file.getvalue()


def test_means_and_every_seed_are_shown_and_the_choices_marked():
    text = printed(
        verdict(
            with_backbone(3, [0.9, 0.94], strategy="fine_tuning"),
            with_backbone(5, [0.8, 0.8], strategy="fine_tuning"),
            with_backbone(4, [0.95, 0.95], strategy="feature_extraction"),
        )
    )
    lines = text.splitlines()
    marked = [line.split()[1] for line in lines if line.startswith("*") and "net" in line]
    assert marked == ["3", "4"]
    assert "* chosen within its strategy (best mean accuracy)" in text
    assert "0.9200 0.0200" in text and "0.9000 0.9400" in text
    assert text.index("knn") < text.index("majority")  # The better control first.
    assert all(len(line) <= 80 for line in lines)


def test_of_a_loss_the_control_with_the_smaller_one_comes_first():
    shown = verdict(with_backbone(3, [0.3, 0.4], strategy="fine_tuning"))
    object.__setattr__(shown.confirmed, "metric", "loss")
    for control_record, loss in zip(shown.controls, (0.9, 0.4), strict=True):
        control_record.best["val"]["loss"] = loss
    text = printed(shown)
    losses = [float(line.split()[-1]) for line in text[text.index("Controls") :].splitlines()[3:5]]
    assert losses == [0.4, 0.9]


def test_what_is_missing_and_what_learned_nothing_is_said():
    text = printed(verdict(with_backbone(3, [0.75, 0.75], strategy="fine_tuning")))
    assert "Nothing is confirmed of feature extraction." in text
    assert "Alarm: nothing shows that fine-tuning has learned anything" in " ".join(text.split())
    assert "No training over seeds is complete." in printed(verdict())


def test_json_has_candidates_controls_and_alarms():
    found = verdict_json(verdict(with_backbone(3, [0.75, 0.75])))
    assert found["candidates"][0]["mean"] == 0.75 and found["best"] == 3
    assert [row["control"] for row in found["controls"]] == ["majority", "knn"]
    assert len(found["alarms"]) == 1


BOTH = (
    with_backbone(3, [0.9, 0.94], strategy="fine_tuning"),
    with_backbone(4, [0.95, 0.95], strategy="feature_extraction"),
)


def test_the_comparison_on_validation_images_is_told_and_what_it_is_worth():
    rng = np.random.default_rng(0)
    labels_N, given_SNC = np.arange(40) % 2, rng.dirichlet([1, 1], size=(2, 40))
    found = compare_strategies(
        "accuracy",
        labels_N,
        given_SNC,
        given_SNC[::-1],
        margin=0.02,
        choices=(Choice(trial=3, num_trials=7), Choice(trial=4, num_trials=5)),
        images="validation image",
        optimism=(0.013, 0.0),
    )
    shown = verdict(*BOTH, comparison=found)
    text = " ".join(printed(shown).split())
    assert "Whether the fine-tuning configuration found in 7 trials (trial 3)" in text
    assert "is undecided" in text and "40 validation images" in text
    assert "These images have chosen both, which flatters them by about 1.3 points and 0" in text
    assert "The test images decide." in text
    assert verdict_json(shown)["difference"]["verdict"] == "undecided"


def test_without_a_comparison_nothing_is_said_of_better_or_worse():
    assert verdict_json(verdict(*BOTH))["difference"] is None
    assert "configuration found in" not in printed(verdict(*BOTH))
    assert "Each seed had validation images of its own" in printed(verdict(*BOTH, resplit=True))
