"""A planted difference is found with the stated power; verdict, p and interval agree.

How often twins are called different, and what is said at the margin, is `test_simulated_studies`'.
Shapes: S seeds, N images, C classes.
"""

import sys

import numpy as np
import pytest
from paths import ROOT
from scipy.stats import binom, binomtest

from studies.statistics.sample_size import images_needed
from studies.statistics.verdict_words import verdict_of

sys.path.insert(0, str(ROOT / "benchmarks"))

from simulated_studies import Pair, models, simulated_pair


def differences(num_pairs, accuracies, **given):
    return [
        simulated_pair(Pair(accuracies=accuracies, **given), seed) for seed in range(num_pairs)
    ]


def num_called_different(found):
    return sum(f.verdict != "undecided" for f in found)


def test_one_model_each_would_call_twins_different_far_more_often():
    differing = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels_N, ease_N = np.arange(400) % 2, rng.normal(size=400)
        a_SNC, b_SNC = (models(rng, labels_N, ease_N, 0.88, 0.02, 1) for _ in range(2))
        a_N, b_N = (p_SNC[0].argmax(axis=1) == labels_N for p_SNC in (a_SNC, b_SNC))
        alone, either = int((a_N & ~b_N).sum()), int((a_N != b_N).sum())
        differing += binomtest(alone, either).pvalue < 0.05  # McNemar's test
    assert differing >= binom.ppf(0.001, 300, 0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_seeds", "spread", "power"),
    [(3, 0.0, 0.8), (3, 0.01, 0.8), (5, 0.02, 0.8), (5, 0.02, 0.5), (3, 0.01, 0.95)],
)
def test_a_planted_difference_is_found_with_the_planned_power(num_seeds, spread, power):
    accuracies = (0.90, 0.85)
    alike = differences(40, accuracies, spread=0.0, num_seeds=num_seeds, num_images=1000)
    needed = images_needed(
        0.05,
        image_variance=float(np.mean([f.image_variance for f in alike])),
        own_variance=float(np.mean([f.own_variance for f in alike])),
        seed_variance=2 * spread**2 / num_seeds,
        num_seeds=num_seeds,
        power=power,
    )
    found = differences(
        250, accuracies, spread=spread, num_seeds=num_seeds, num_images=needed.images
    )
    better = sum(f.verdict == "better" for f in found)
    assert binom.ppf(0.001, 250, power) <= better <= binom.ppf(0.999, 250, power)


def test_where_seeds_hide_the_margin_the_seeds_asked_for_show_it():
    known = {"image_variance": 0.06, "own_variance": 0.04, "num_seeds": 3}
    hidden = images_needed(0.05, seed_variance=2 * 0.03**2 / 3, **known)
    assert hidden.images is None
    found = differences(
        200,
        (0.90, 0.85),
        spread=0.03,
        num_seeds=hidden.seeds,
        num_images=hidden.images_with_seeds,
    )
    assert num_called_different(found) >= binom.ppf(0.001, 200, 0.8)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_interval_covers_the_true_difference(num_seeds):
    spread = 0.02 if num_seeds > 1 else 0.0
    found = differences(300, (0.92, 0.88), spread=spread, num_seeds=num_seeds)
    covered = sum(f.low <= 0.04 <= f.high for f in found)
    assert covered >= binom.ppf(0.001, 300, 0.95)


def test_the_verdict_p_and_interval_agree():
    for found in differences(60, (0.92, 0.88), spread=0.02, num_seeds=3):
        excludes = found.low > 0 or found.high < 0
        assert excludes == (found.p < 0.05) == (found.verdict != "undecided")


def test_strategies_that_are_equal_are_called_as_good_with_images_enough():
    found = differences(100, (0.88, 0.88), spread=0.0, num_seeds=3, num_images=2000)
    assert sum(verdict_of(each, 0.03) == "as good as" for each in found) >= 90
