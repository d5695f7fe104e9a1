"""Planned images are those of the published formulas, and more where seeds differ."""

import numpy as np
import pytest
from scipy.stats import norm

from studies.statistics.metrics import METRICS
from studies.statistics.paired import difference_over_seeds
from studies.statistics.sample_size import images_needed


def test_a_smaller_margin_needs_more_images_and_seeds_alone_may_hide_it():
    few, many = (images_needed(m, image_variance=0.1).images for m in (0.05, 0.01))
    assert 0 < few < many
    hidden = images_needed(0.02, image_variance=0.1, seed_variance=4e-4, num_seeds=3)
    assert hidden.images is None and hidden.seeds > 3
    for margin, variance in ((0.0, 0.1), (0.02, -0.1), (0.02, float("inf"))):
        with pytest.raises(ValueError, match="must hold"):
            images_needed(margin, image_variance=variance)


def test_one_model_each_needs_about_mcnemars_sample_size():
    # Connor 1987, formula (2), for the disagreement psi.
    psi, margin = 0.15, 0.05
    z, power_z = norm.ppf(0.975), norm.ppf(0.8)
    connor = ((z * psi**0.5 + power_z * (psi - margin**2) ** 0.5) / margin) ** 2
    assert images_needed(margin, image_variance=psi).images == pytest.approx(connor, rel=0.04)


def test_seeds_that_differ_ask_for_more_images():
    known = {"image_variance": 0.1, "own_variance": 0.05, "num_seeds": 5}
    images = [images_needed(0.05, seed_variance=v, **known).images for v in (0.0, 5e-5, 1e-4)]
    assert images == sorted(images) and images[0] < images[2]


@pytest.mark.parametrize("power", [0.8, 0.95])
def test_with_seeds_enough_to_know_their_variance_it_is_the_normal_formula(power):
    seed_variance, margin = 6e-5, 0.05
    found = images_needed(
        margin, image_variance=0.1, seed_variance=seed_variance, num_seeds=300, power=power
    )
    total = (margin / (norm.ppf(0.975) + norm.ppf(power))) ** 2
    assert found.images == pytest.approx(0.1 / (total - seed_variance), rel=0.05)


def test_images_that_count_less_are_needed_by_more_and_only_for_the_two_that_are_added():
    known = {"image_variance": 0.1, "num_seeds": 1}
    all_count, half_count = (
        images_needed(0.05, **known, share_that_counts=share).images for share in (1.0, 0.5)
    )
    without = images_needed(0.005, **known).images
    assert all_count < half_count < 1.15 * all_count
    assert images_needed(0.005, **known, share_that_counts=0.5).images < 1.01 * without
    with pytest.raises(ValueError, match="share_that_counts <= 1"):
        images_needed(0.05, **known, share_that_counts=1.5)


def test_strategies_that_agree_on_every_image_need_those_for_the_two_that_are_added():
    assert 20 < images_needed(0.05, image_variance=0.0).images < 100


def test_balanced_classes_of_any_size_can_be_planned_for():
    """The share of images that count is 1, whatever rounding says."""
    for per_class in range(20, 120):
        labels_N = np.repeat([0, 1], per_class)
        rng = np.random.default_rng(per_class)
        first, second = (rng.dirichlet([1, 1], (2, len(labels_N))) for _ in range(2))
        found = difference_over_seeds(
            METRICS["balanced_accuracy"], labels_N, first, second, num_resamples=50
        )
        assert 0 < found.share_that_counts <= 1
