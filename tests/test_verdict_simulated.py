"""Twins are seldom called different, and a planted difference is found with the stated power.

Models are simulated by what they get right. Images have difficulties of their own, shared by all
models; a seed moves a model's accuracy by the spread. Shapes: S seeds, N images, C classes.
"""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from studies.planning import images_needed
from studies.scores import METRICS
from studies.verdict import difference_over_seeds
from studies.verdict_words import is_within, verdict_of


def models(rng, labels_N, ease_N, accuracy, spread, num_seeds):
    """Probabilities (S, N, C) of one strategy's seeds: right where an image is easy enough."""
    found = []
    for mean in np.clip(rng.normal(accuracy, spread, num_seeds), 0.55, 0.995):
        # Half of what decides is the image, half the model's own: errors of models correlate.
        latent_N = (ease_N + rng.normal(size=len(labels_N))) / 2**0.5
        is_right_N = latent_N < norm.ppf(mean)
        called_N = np.where(is_right_N, labels_N, 1 - labels_N)
        found.append(np.where(np.arange(2) == called_N[:, None], 0.9, 0.1))
    return np.stack(found)


def pair(seed, accuracies, *, spread, num_seeds, num_images=400):
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % 2
    ease_N = rng.normal(size=num_images)
    return labels_N, *(
        models(rng, labels_N, ease_N, accuracy, spread, num_seeds) for accuracy in accuracies
    )


def differences(num_pairs, accuracies, **given):
    return [
        difference_over_seeds(
            METRICS["accuracy"], *pair(seed, accuracies, **given), num_resamples=200, seed=seed
        )
        for seed in range(num_pairs)
    ]


def num_called_different(found):
    return sum(f.verdict != "undecided" for f in found)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.01, 0.02, 0.03])
def test_twins_are_called_different_in_at_most_five_in_a_hundred(spread, num_seeds):
    found = differences(300, (0.88, 0.88), spread=spread, num_seeds=num_seeds)
    assert num_called_different(found) <= binom.ppf(0.999, 300, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [80, 400, 1000])
@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.02, 0.03])
def test_twins_with_few_and_many_images(spread, num_seeds, num_images):
    found = differences(
        1000, (0.88, 0.88), spread=spread, num_seeds=num_seeds, num_images=num_images
    )
    assert num_called_different(found) <= binom.ppf(0.999, 1000, 0.05)


def test_one_model_each_would_call_twins_different_far_more_often():
    differing = 0
    for seed in range(300):
        labels_N, a_SNC, b_SNC = pair(seed, (0.88, 0.88), spread=0.02, num_seeds=1)
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


MARGIN = 0.02
# A true difference of exactly the margin, against or for the first strategy.
LOWER, HIGHER = (0.88 - MARGIN, 0.88), (0.88, 0.88 - MARGIN)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.02])
@pytest.mark.parametrize(
    ("accuracies", "wrong"),
    [
        (LOWER, ("as good as", "not worse", "better")),
        (HIGHER, ("as good as", "not better", "worse")),
    ],
)
def test_at_the_margin_equivalence_is_wrongly_said_in_at_most_two_and_a_half_in_a_hundred(
    accuracies, wrong, spread
):
    found = differences(400, accuracies, spread=spread, num_seeds=3, num_images=800)
    said = sum(verdict_of(f, MARGIN) in wrong or is_within(f, MARGIN) for f in found)
    assert said <= binom.ppf(0.999, 400, 0.025)


def test_strategies_that_are_equal_are_called_as_good_with_images_enough():
    found = differences(100, (0.88, 0.88), spread=0.0, num_seeds=3, num_images=2000)
    assert sum(verdict_of(each, 0.03) == "as good as" for each in found) >= 90
