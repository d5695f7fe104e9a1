"""Similarity of features: 1 up to rotation and scale, about 0 for what has nothing in common."""

import numpy as np
import pytest

from transfer.similarity import MOST_IMAGES, linear_cka


def features(seed=0, num_images=60, num_features=200):
    return np.random.default_rng(seed).normal(size=(num_images, num_features))


def test_rotation_scale_and_shift_change_nothing():
    first = features()
    rotation, _ = np.linalg.qr(features(1, 200, 200))
    assert linear_cka(first, 3 * first @ rotation + 5) == pytest.approx(1)


def test_unrelated_features_are_not_alike_however_many_there_are():
    found = [linear_cka(features(seed), features(seed + 100)) for seed in range(20)]
    assert abs(np.mean(found)) < 0.05 and max(map(abs, found)) < 0.2


def test_it_falls_with_the_noise_and_does_not_depend_on_the_order_of_both():
    first, noise = features(), features(1)
    found = [linear_cka(first, first + share * noise) for share in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found, reverse=True) and found[-1] > 0.05
    assert linear_cka(noise, first) == pytest.approx(linear_cka(first, noise))


def test_of_many_images_some_are_taken():
    first = features(num_images=4 * MOST_IMAGES, num_features=3)
    assert linear_cka(first, first) == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (features(num_images=5), features(num_images=6), "but got 5 and 6"),
        (features(num_images=3), features(num_images=3), "4 or more images"),
        (np.ones((10, 4)), features(num_images=10), "that vary"),
    ],
)
def test_what_can_not_be_compared_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(first, second)
