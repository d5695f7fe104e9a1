"""What may be said of a difference: better, worse, as good as, not worse, not better, undecided.

Pure functions of an interval and of a margin, the smallest difference that would matter. The
margin is declared before anything is confirmed. Knows nothing of studies.
"""

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np

from studies.statistics.clusters import images_words
from studies.statistics.intervals import Interval
from studies.statistics.metrics import METRICS, Score
from studies.statistics.paired import Difference, Verdict
from studies.statistics.sample_size import ImagesNeeded

# Of a metric in [0, 1], and of the entropy of the class shares where the metric is a loss.
DEFAULT_MARGIN = 0.02


def verdict_of(
    interval: Interval, margin: float | None, *, larger_is_better: bool = True
) -> Verdict:
    """What the interval of a minus b says of a, given the difference that would matter.

    *better* and *worse* need an interval that excludes 0; *as good as* one inside of plus and
    minus the margin; *not worse* (by more than the margin; non-inferiority) and *not better* one
    that excludes the margin on one side. All else is *undecided*. With 95 % intervals each bound
    is a one-sided test at 2.5 %, so at a true difference of exactly the margin *as good as* and
    *not worse* are wrong in at most 2.5 %.

    Sources: D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power
    approach for assessing the equivalence of average bioavailability", Journal of Pharmacokinetics
    and Biopharmaceutics 15 (1987), 657-680; G. Piaggio et al., "Reporting of noninferiority and
    equivalence randomized trials", JAMA 308 (2012), 2594-2604.

    Args:
        margin: in the metric's unit; None where none was declared, so that 0 alone decides.
    """
    low, high = _as_gain(interval, larger_is_better)
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    if margin is None:
        return "undecided"
    if -margin < low and high < margin:
        return "as good as"
    if -margin < low:
        return "not worse"
    return "not better" if high < margin else "undecided"


def is_beyond(interval: Interval, margin: float) -> bool:
    """Whether a difference in either direction is shown to be larger than the margin."""
    return interval.low > margin or interval.high < -margin


def is_within(interval: Interval, margin: float) -> bool:
    """Whether a difference in either direction is shown to be smaller than the margin."""
    return -margin < interval.low and interval.high < margin


def default_margin(metric: Score, class_counts: Sequence[int]) -> float:
    """The margin where none is declared: 2 points, of a loss 2 % of the class shares' entropy.

    That entropy is the loss of who knows the class shares and nothing of the image, so that the
    margin is the same share of what can be learned in both units. In nats, to two digits.
    """
    if metric.bounded:
        return DEFAULT_MARGIN
    counts = np.array([count for count in class_counts if count > 0], dtype=np.float64)
    shares = counts / counts.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    return float(f"{DEFAULT_MARGIN * entropy:.2g}")


def _as_gain(interval: Interval, larger_is_better: bool) -> tuple[float, float]:
    """The bounds as what a gains over b, whatever the metric's direction."""
    if larger_is_better:
        return interval.low, interval.high
    return -interval.high, -interval.low


def verdict_sentence(
    difference: Difference,
    metric_name: str,
    *,
    first: str,
    second: str,
    margin: float | None,
    needed: ImagesNeeded | None,
    images: str = "test image",
    seeds_of_each: tuple[int, int] | None = None,
    judged: Interval | None = None,
) -> str:
    """The verdict on ``first`` against ``second`` and what it is for, as a sentence.

    Differences of metrics in [0, 1] are in points (hundredths), others in their own unit.

    Args:
        first: what strategy a is called, beginning with *the*; so is ``second`` of b.
        needed: what would show the margin; None where nothing within reach does.
        images: what they are called, in the singular.
        seeds_of_each: of a and of b, where they differ.
        judged: what the verdict goes by, where that is not the interval of the difference: on
            images that have chosen, of which no number would show the margin.
    """
    judged = difference if judged is None else judged
    metric = METRICS.get(metric_name)
    bounded = metric is None or metric.bounded
    verdict = verdict_of(
        judged, margin, larger_is_better=metric is None or metric.larger_is_better
    )
    scope = f"{_scope(difference)} ({_basis(difference, images, seeds_of_each)})"
    signed = f"a difference of {_signed(difference, metric_name, bounded)}"
    if verdict in ("better", "worse"):
        amount = f"{_size(difference, metric_name, bounded)}{_extent(judged, margin, bounded)}"
        return _sentence(f"{first} is {verdict} than {second} by {amount}, {scope}")
    if verdict == "undecided":
        said = f"whether {first} is better or worse than {second} is undecided: {signed}, {scope}"
        if margin is None or judged is not difference:
            return _sentence(said)
        need = "more than could be had"
        if needed is not None:
            need = _need(needed, difference, images)
        return _sentence(f"{said}; to show {_amount(margin, bounded)} would take {need}")
    assert margin is not None
    amount = f"{_amount(margin, bounded)} of {metric_name}"
    if verdict == "as good as":
        said = f"as good as {second} within {amount}"
    else:
        said = f"{verdict} than {second} by more than {amount}"
    return _sentence(f"{first} is {said}: {signed}, {scope}")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _scope(difference: Difference) -> str:
    """What the interval is for: never for other training images."""
    if difference.seeds_known:
        return "for further seeds on further images, trained on these training images"
    return "for these two models alone on further images, as how much seeds matter is not known"


def _basis(difference: Difference, images: str, seeds_of_each: tuple[int, int] | None) -> str:
    num_images, subjects = difference.num_images, difference.num_subjects
    shown = images_words(num_images, subjects, images if num_images == 1 else f"{images}s")
    if seeds_of_each is not None and seeds_of_each[0] != seeds_of_each[1]:
        return f"{shown}, {seeds_of_each[0]} against {seeds_of_each[1]} seeds"
    return f"{shown}, {_count(difference.num_seeds, 'seed')} of each"


def _size(difference: Difference, metric_name: str, bounded: bool) -> str:
    """How large the difference is, whatever its direction."""
    low, high = sorted((abs(difference.low), abs(difference.high)))
    scale, digits = (100, 1) if bounded else (1, 3)
    size = _amount(abs(difference.value), bounded, digits)
    return f"{size} of {metric_name} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def _signed(difference: Difference, metric_name: str, bounded: bool) -> str:
    scale, digits = (100, 1) if bounded else (1, 3)
    value, low, high = (
        f"{bound * scale:+.{digits}f}"
        for bound in (difference.value, difference.low, difference.high)
    )
    return f"{value}{' points' if bounded else ''} of {metric_name} [{low}, {high}]"


def _extent(difference: Interval, margin: float | None, bounded: bool) -> str:
    """What a shown difference is against the margin."""
    if margin is None:
        return ""
    if is_beyond(difference, margin):
        return f" and so by more than {_amount(margin, bounded)}"
    if is_within(difference, margin):
        return f", but by less than {_amount(margin, bounded)}"
    return ""


def optimism_sentence(optimism: tuple[float, float], bounded: bool) -> str:
    """What a verdict makes of images that have chosen both of what they compare."""
    said = "These images have chosen both"
    if max(optimism) == float("inf"):
        return f"{said}, and how much that flatters them is not known: it may be any amount."
    first, second = (_amount(value, bounded, 1 if bounded else 3) for value in optimism)
    return f"{said}, which flatters them by about {first} and {second}: the verdict allows for it."


def subjects_of(num_images: int | None, difference: Difference) -> int | None:
    """Of how many subjects so many images are, as many of each as here; None if none are known."""
    if num_images is None or difference.num_subjects is None:
        return None
    return ceil(num_images * difference.num_subjects / difference.num_images)


def _need(needed: ImagesNeeded, difference: Difference, images: str) -> str:
    def about(num_images: int) -> str:
        subjects = subjects_of(num_images, difference)
        of = "" if subjects is None else f" of {_subjects(two_digits(subjects))}"
        return f"about {_count(two_digits(num_images), images)}{of}"

    num_seeds = difference.num_seeds
    with_seeds = f"{about(needed.images_with_seeds)} and {needed.seeds} seeds of each"
    if needed.images is None:
        return f"{with_seeds}: with {_count(num_seeds, 'seed')} no number of images is enough"
    alone = about(needed.images)
    return f"{alone}, or {with_seeds}" if needed.seeds > num_seeds else alone


def _subjects(count: int) -> str:
    return _count(count, "subject")


def two_digits(count: int) -> int:
    """A planned number, rounded up to two digits: it isn't known any better than that."""
    unit = int(10 ** max(0, floor(log10(max(count, 1))) - 1))
    return ceil(count / unit) * unit


def _amount(amount: float, bounded: bool, digits: int | None = None) -> str:
    scaled = amount * 100 if bounded else amount
    text = f"{scaled:g}" if digits is None else f"{scaled:.{digits}f}"
    if not bounded:
        return text
    return f"{text} point" if text == "1" else f"{text} points"


def _count(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
