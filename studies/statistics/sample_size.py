"""How many test images, and seeds, it takes to see a difference: the plan of `paired`'s test.

Pure functions of variances; knows nothing of studies, predictions or metrics.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm
from scipy.stats import t as student_t

MOST_IMAGES = 10_000_000
MOST_SEEDS = 1000
SHOWN = 20  # Points of each strategy's chi-squared; with 100, planned images differ by 1 %.


@dataclass(frozen=True, kw_only=True)
class ImagesNeeded:
    """Test images that show a margin with the seeds at hand, None where no number does.

    ``seeds`` (of each strategy) with ``images_with_seeds`` show it too: the fewest seeds that
    need at most twice the images that would do without any spread of seeds.
    """

    images: int | None
    seeds: int
    images_with_seeds: int


def images_needed(
    margin: float,
    *,
    image_variance: float,
    own_variance: float = 0.0,
    seed_variance: float = 0.0,
    num_seeds: int = 1,
    share_that_counts: float = 1.0,
    power: float = 0.8,
    confidence: float = 0.95,
) -> ImagesNeeded:
    """Test images on which a true difference of ``margin`` is called one with this power.

    It plans the test of ``difference_over_seeds`` from what was measured there, not from the
    difference observed. With one model each, accuracy and ``image_variance`` = ``disagreement``
    it is ``(z + z')**2 * disagreement / margin**2`` and some ten images for the two that the
    test adds, close to McNemar's sample size. The seeds' part does not shrink with images: where
    it alone hides the margin, no number of images is enough. The test has to estimate that part
    from few seeds; its power is the mean over what they may show. Planned for 80 %, a difference
    of 5 points was found in 78 to 84 % of 600 pairs (S = 1, 2, 3, 5, spreads of 0 to 2 points). A
    seed variance measured with three seeds is rough, and so is what follows from it.

    Sources: R. J. Connor, "Sample size for testing differences in proportions for the
    paired-sample design", Biometrics 43 (1987), 207-211; sums of squares of normal seeds are
    chi-squared.

    Args:
        margin: in the metric's unit.
        image_variance: of the paired difference of one image: ``Difference.image_variance``.
        own_variance: the part of it that seeds don't share: ``Difference.own_variance``.
        seed_variance: of the difference of the means over ``num_seeds``.
        share_that_counts: of images: ``Difference.share_that_counts``.

    Raises:
        ValueError: ``0 < margin``, ``0 < power < 1``, ``0 <= own_variance <= image_variance``,
            ``0 <= seed_variance``, ``1 <= num_seeds`` or ``0 < share_that_counts <= 1`` doesn't
            hold, or the margin is too small for ten million images or a thousand seeds.
    """
    for law, holds, got in (
        ("margin > 0", margin > 0, margin),
        ("0 < power < 1", 0 < power < 1, power),
        ("image_variance >= 0", 0 <= image_variance < float("inf"), image_variance),
        ("own_variance >= 0", 0 <= own_variance < float("inf"), own_variance),
        ("own_variance <= image_variance", own_variance <= image_variance, own_variance),
        ("seed_variance >= 0", 0 <= seed_variance < float("inf"), seed_variance),
        ("num_seeds >= 1", num_seeds >= 1, num_seeds),
        ("0 < share_that_counts <= 1", 0 < share_that_counts <= 1, share_that_counts),
    ):
        if not holds:
            raise ValueError(f"`{law}` must hold, but got {got}.")

    def needed(seeds: int, *, alike: bool = False) -> int | None:
        share = num_seeds / seeds
        own, of_seeds = own_variance * share, 0.0 if alike else seed_variance * share
        of_image = image_variance - own_variance + own
        spread = _Spread(
            of_image=of_image,
            own=own,
            of_seeds=of_seeds,
            num_seeds=seeds,
            counts=share_that_counts,
        )
        return _smallest(lambda n: _power(margin, spread, n, confidence) >= power, MOST_IMAGES)

    without = needed(num_seeds, alike=True)
    if without is None:
        raise ValueError(
            f"`margin` must be one that {MOST_IMAGES:,} images can show, but got {margin}."
        )
    few = 2 * without

    def few_images(seeds: int) -> bool:
        images = needed(seeds)
        return images is not None and images <= few

    seeds = num_seeds if few_images(num_seeds) else _smallest(few_images, MOST_SEEDS)
    if seeds is None:
        raise ValueError(
            f"`margin` must be one that {MOST_SEEDS:,} seeds can show, but got {margin} at a seed "
            f"variance of {seed_variance:.3g}."
        )
    with_seeds = needed(seeds)
    assert with_seeds is not None
    return ImagesNeeded(images=needed(num_seeds), seeds=seeds, images_with_seeds=with_seeds)


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """Variances of a difference: of an image, its part not shared by seeds, of the seeds."""

    of_image: float
    own: float
    of_seeds: float
    num_seeds: int
    counts: float  # the share of images


def _power(margin: float, spread: _Spread, num_images: int, confidence: float) -> float:
    """How often ``difference_over_seeds`` would call this margin a difference."""
    of_images, own = spread.of_image / num_images, spread.own / num_images
    true = max(of_images + spread.of_seeds, 1e-300)
    of_images += 2 / (spread.counts * num_images) ** 2  # The test counts two images more.
    if spread.num_seeds == 1:
        half = norm.ppf((1 + confidence) / 2) * of_images**0.5
        return float(norm.sf((half - margin) / true**0.5))
    # What the seeds of each strategy may show, at equally likely points. Both are taken to have
    # half of the seeds' variance each.
    shares = (np.arange(SHOWN) + 0.5) / SHOWN
    shown = chi2.ppf(shares, spread.num_seeds - 1) / (spread.num_seeds - 1)
    raw = (spread.of_seeds + own) / 2 * shown
    seen = of_images + np.maximum(0.0, raw[:, None] + raw - own)
    weighed = np.maximum((raw[:, None] ** 2 + raw**2) / (spread.num_seeds - 1), 1e-300)
    half = student_t.ppf((1 + confidence) / 2, np.maximum(1.0, seen**2 / weighed)) * seen**0.5
    return float(norm.sf((half - margin) / true**0.5).mean())


def _smallest(holds: Callable[[int], bool], most: int) -> int | None:
    """The smallest count of at most ``most`` from which on it holds, None where it never does."""
    if not holds(most):
        return None
    return 1 + bisect_left(range(1, most + 1), True, key=holds)
