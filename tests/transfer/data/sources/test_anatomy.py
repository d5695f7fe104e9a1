"""One picture of a phantom: what a knob changes and what it doesn't."""

import numpy as np
import pytest
from numpy.random import default_rng

from transfer.data.sources.anatomy import KINDS, draw_image

NORMAL, OPACITY = KINDS[0], KINDS[1]
SIZE = 48


def drawn(kind=OPACITY, contrast=1.0, shift=0.0, seed=0):
    return draw_image(default_rng(seed), kind, SIZE, contrast, shift).astype(float)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_draws_the_same_number_of_random_numbers(kind):
    mine, normal = default_rng(3), default_rng(3)
    draw_image(mine, kind, SIZE, 1.0, 0.0)
    draw_image(normal, NORMAL, SIZE, 1.0, 0.0)
    assert mine.random() == normal.random()


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.name)
def test_without_contrast_a_picture_is_the_normal_one_of_the_same_body(kind):
    assert np.array_equal(drawn(kind, contrast=0.0), drawn(NORMAL))
    assert not np.array_equal(drawn(kind), drawn(NORMAL))


def test_more_contrast_moves_a_picture_further_from_the_normal_one():
    distances = [
        np.mean([np.abs(drawn(contrast=c, seed=s) - drawn(NORMAL, seed=s)) for s in range(8)])
        for c in (0.25, 0.5, 1.0, 2.0)
    ]
    assert distances == sorted(distances)


def test_more_shift_makes_pictures_brighter_and_less_sharp():
    def brightness_and_detail(shift):
        pictures = [drawn(NORMAL, shift=shift, seed=seed) for seed in range(8)]
        return np.mean(pictures), np.mean([np.abs(np.diff(p, axis=1)).mean() for p in pictures])

    (dark, sharp), (bright, soft) = brightness_and_detail(0.0), brightness_and_detail(1.5)
    assert bright > dark
    assert soft < sharp
