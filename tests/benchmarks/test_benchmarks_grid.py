"""How the grid draws its images by group, and how it chooses epochs and configurations."""

import sys

import numpy as np
import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import grid


def line(*epochs, rate=1e-3, diverged=False):
    """A line of results; an epoch is (validation accuracy, loss, held-out accuracy)."""
    return {
        "learning_rate": rate,
        "diverged": diverged,
        "majority": 0.5,
        "epochs": [
            {
                "val": {"accuracy": accuracy, "loss": loss, "calibrated_loss": loss},
                "held_out": {"accuracy": held_out},
            }
            for accuracy, loss, held_out in epochs
        ],
    }


@pytest.mark.parametrize("seed", range(5))
def test_sets_share_no_group_and_have_about_the_sizes_asked_for(seed):
    groups_N = [f"g{i // 3}" for i in range(900)]
    labels_N = np.arange(900) % 2
    parts = grid.drawn_by_group(labels_N, groups_N, (200, 50, 400), seed)
    names = [{groups_N[i] for i in part} for part in parts]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert [abs(len(p) - n) <= 3 for p, n in zip(parts, (200, 50, 400), strict=True)] == [True] * 3


def test_another_seed_draws_other_images():
    groups_N, labels_N = [str(i) for i in range(100)], np.arange(100) % 2
    first, second = (grid.drawn_by_group(labels_N, groups_N, (50,), seed)[0] for seed in (0, 1))
    assert set(first.tolist()) != set(second.tolist())


def test_an_epoch_is_chosen_by_validation_and_judged_on_held_out_images():
    found = line((0.9, 0.5, 0.80), (0.9, 0.4, 0.85), (0.8, 0.1, 0.95))
    assert grid.held_out(found, "accuracy") == 0.85
    assert grid.held_out(found, "loss") == 0.95


def test_a_training_that_diverged_is_worth_what_the_majority_is():
    assert grid.held_out(line((0.9, 0.5, 0.8), diverged=True)) == 0.5


def test_a_configuration_is_chosen_by_its_best_epoch():
    weak, strong = line((0.7, 0.6, 0.7)), line((0.6, 0.3, 0.9), (0.8, 0.5, 0.75))
    assert grid.chosen_of([weak, strong], "accuracy") == 0.75
    assert grid.chosen_of([weak, strong], "loss") == 0.9


def test_the_table_marks_rates_that_cannot_learn():
    fields = {
        "data": "d",
        "image_size": 64,
        "num_train": 200,
        "split": 0,
        "backbone": "mobilenet_v2",
        "strategy": "fine_tuning",
        "depth_share": 0.5,
        "head": "1",
    }
    lines = [
        {**line((0.9, 0.1, held_out)), **fields, "learning_rate": rate}
        for rate, held_out in ((1e-5, 0.55), (1e-3, 0.9), (1e-2, 0.85))
    ]
    table = "\n".join(grid.rate_tables(lines))
    assert "55.0%*" in table and "85.0% |" in table and "| 0.001 |" in table
