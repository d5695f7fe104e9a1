"""What makes a result hard to believe or to compare: few images, other shares, shortcuts.

A shortcut is what a network may learn in place of the finding (R. Geirhos et al., "Shortcut
learning in deep neural networks", Nature Machine Intelligence 2 (2020), 665-673). Of the test
split only counts of labels, sizes, modes and formats are looked at.

Legend: N images.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, mannwhitneyu

from transfer.data.check.findings import Finding, Splits, interval_width, named
from transfer.data.decoding import Resize
from transfer.data.facts import ImageFacts
from transfer.data.opening import CheckedSplit

# How sure a difference must be before it is told.
MAX_P = 1e-3
MOST_SIZES = 20  # more are measured by width and height alone
# Shares of a class that differ by less between two splits are not told.
MIN_SHARE_DIFFERENCE = 0.05
# One number that tells a class from the others in so many of 100 pairs is a shortcut; the splits
# of one source should be more alike than that.
MIN_CLASS_AUROC = 0.85
MIN_SPLIT_AUROC = 0.75
# What an even picture is stretched by, beside another one of the same set.
MOST_STRETCH = 1.2
# Fewer images of a class in a split, and its recall is hardly known.
RARE = 10
# The width of the 95 % interval at 90 % accuracy above which a split is small: below about 65
# images.
MOST_WIDTH = 0.15


def rare_classes(splits: Splits, classes: Sequence[str]) -> Iterator[Finding]:
    """A class with few images in a split."""
    for name, split in splits.items():
        counts = np.bincount(split.labels_N, minlength=len(classes)).tolist()
        rare = {classes[label]: count for label, count in enumerate(counts) if count < RARE}
        if rare:
            many = "1 class has" if len(rare) == 1 else f"{len(rare)} classes have"
            fewest = min(rare.values())
            yield Finding(
                kind="rare_class",
                level="warning",
                text=(
                    f"{many} fewer than {RARE} images in {name}: "
                    f"{named(f'{key} ({count})' for key, count in rare.items())}"
                ),
                remedy=(
                    "collect more, or read the recall with care: at 90 % of "
                    f"{fewest} its 95 % interval is {100 * interval_width(fewest):.0f} points wide"
                ),
                values={"split": name, "counts": rare},
            )


def _brought(splits: Splits) -> list[str]:
    """The splits beside train that were not drawn from it."""
    return [name for name in ("val", "test") if name in splits and not splits[name].is_made]


def class_balance(splits: Splits, classes: Sequence[str]) -> Iterator[Finding]:
    """Pearson's chi-squared test of each given split against train."""
    train = np.bincount(splits["train"].labels_N, minlength=len(classes))
    for name in _brought(splits):
        counts = np.bincount(splits[name].labels_N, minlength=len(classes))
        shares = np.array([train / train.sum(), counts / counts.sum()])
        label = int(np.argmax(np.abs(shares[0] - shares[1])))
        p = float(chi2_contingency(np.array([train, counts])).pvalue)
        if p < MAX_P and abs(shares[0, label] - shares[1, label]) >= MIN_SHARE_DIFFERENCE:
            yield Finding(
                kind="class_balance",
                level="warning",
                text=(
                    f"class '{classes[label]}' is {shares[0, label]:.1%} of train and "
                    f"{shares[1, label]:.1%} of {name}"
                ),
                remedy=(
                    "expect accuracy to differ for that alone; balanced accuracy and AUROC do not "
                    "depend on it (--metric balanced_accuracy)"
                ),
                values={
                    "class": classes[label],
                    "split": name,
                    "shares": [float(shares[0, label]), float(shares[1, label])],
                    "p": p,
                },
            )


Measure = Callable[[ImageFacts], float]
SIZES: Mapping[str, Measure] = {
    "width": lambda fact: fact.width,
    "height": lambda fact: fact.height,
    "number of pixels": lambda fact: fact.width * fact.height,
    "width / height": lambda fact: fact.width / fact.height,
}


def _brightness(fact: ImageFacts) -> float:
    assert fact.brightness is not None
    return fact.brightness


def _sizes(facts: Iterable[ImageFacts]) -> dict[str, Measure]:
    """Whether an image has this size, for all that occur, if they are few."""
    sizes = Counter((fact.width, fact.height) for fact in facts)
    if not 1 < len(sizes) <= MOST_SIZES:
        return {}
    return {f"size {w} x {h}": partial(_is_of_size, w, h) for w, h in sizes}


def _is_of_size(width: int, height: int, fact: ImageFacts) -> float:
    return float((fact.width, fact.height) == (width, height))


def _kinds(facts: Iterable[ImageFacts]) -> dict[str, Measure]:
    """Whether an image has this mode, or this format, for all that occur beside others."""
    measures: dict[str, Measure] = {}
    modes, formats = Counter(f.mode for f in facts), Counter(f.format for f in facts)
    for mode in modes if len(modes) > 1 else ():
        measures[f"mode {mode}"] = partial(_is, "mode", mode)
    for kind in formats if len(formats) > 1 else ():
        measures[f"format {kind}"] = partial(_is, "format", kind)
    return measures


def _is(field: str, value: str, fact: ImageFacts) -> float:
    return float(getattr(fact, field) == value)


def shortcuts(train: CheckedSplit, classes: Sequence[str]) -> Iterator[Finding]:
    """A class that size, kind of file or brightness alone tells from the others."""
    families: Mapping[str, Mapping[str, Measure]] = {
        "size": {**SIZES, **_sizes(train.facts)},
        "kind of file": _kinds(train.facts),
        "brightness": {"brightness": _brightness},
    }
    for label, name in enumerate(classes if len(classes) > 2 else classes[1:], len(classes) == 2):
        is_class = train.labels_N == label
        for family, measures in families.items():
            best = _most_telling(train.facts, is_class, measures, MIN_CLASS_AUROC)
            if best is not None:
                what, auroc = best
                more = "higher" if auroc > 0.5 else "lower"
                auroc = max(auroc, 1 - auroc)
                yield Finding(
                    kind="shortcut",
                    level="warning",
                    text=(
                        f"class '{name}' can be told by {what} alone (AUROC {auroc:.2f} on the "
                        f"training images; {more} in it)"
                    ),
                    remedy=(
                        "a network may learn what comes with it instead of the finding: see "
                        "whether classes come from other devices, sites or export settings, and "
                        "make them alike"
                    ),
                    values={"class": name, "family": family, "by": what, "auroc": auroc},
                )


def other_splits(splits: Splits) -> Iterator[Finding]:
    """A given split whose images differ from train's; of test by size and kind of file alone."""
    train = splits["train"]
    for name in _brought(splits):
        part = splits[name]
        facts = (*train.facts, *part.facts)
        is_part = np.repeat([False, True], [len(train), len(part)])
        measures = {**SIZES, **_sizes(facts), **_kinds(facts)}
        if name == "val":
            measures["brightness"] = _brightness
        best = _most_telling(facts, is_part, measures, MIN_SPLIT_AUROC)
        if best is not None:
            what, auroc = best
            yield Finding(
                kind="split_differs",
                level="warning",
                text=(
                    f"images of {name} differ from those of train in {what} (AUROC "
                    f"{max(auroc, 1 - auroc):.2f})"
                ),
                remedy=(
                    f"what is learned may not hold on {name}: export all images alike, or read "
                    "the result as one on other images"
                ),
                values={"split": name, "by": what, "auroc": max(auroc, 1 - auroc)},
            )


def _most_telling(
    facts: Sequence[ImageFacts],
    is_one_N: NDArray[np.bool_],
    measures: Mapping[str, Measure],
    min_auroc: float,
) -> tuple[str, float] | None:
    """The measure that tells best which images are meant, with its AUROC; None below the limit.

    AUROC is Mann and Whitney's U over the number of pairs, ties counting half (Mann and Whitney,
    "On a test of whether one of two random variables is stochastically larger than the other",
    Annals of Mathematical Statistics 18 (1947), 50-60).
    """
    best, most = None, (min_auroc, False)
    for what, measure in measures.items():
        values_N = np.array([measure(fact) for fact in facts], dtype=np.float64)
        ones, others = values_N[is_one_N], values_N[~is_one_N]
        test = mannwhitneyu(ones, others)
        auroc = float(test.statistic) / (len(ones) * len(others))
        # Of two kinds of file the one that these images are, not the one that they aren't.
        telling = (max(auroc, 1 - auroc), auroc > 0.5)
        if telling > most and test.pvalue < MAX_P:
            best, most = (what, auroc), telling
    return best


def aspect_ratios(splits: Splits, resize: Resize) -> Iterator[Finding]:
    """Proportions that differ, where squeezing distorts every image in a way of its own."""
    ratios_N = np.array([f.width / f.height for split in splits.values() for f in split.facts])
    low, high = np.quantile(ratios_N, [0.05, 0.95]).tolist()
    if resize == "squeeze" and high / low > MOST_STRETCH:
        yield Finding(
            kind="aspect_ratios",
            level="warning",
            text=(
                f"width / height is {low:.2f} to {high:.2f} in the middle 90 % of the images, "
                "which are all squeezed to a square"
            ),
            remedy=(
                "keep their proportions with --resize pad, or with --resize crop where nothing "
                "that matters is at the longer ends"
            ),
            values={"low": low, "high": high, "stretch": high / low},
        )


def small_splits(splits: Splits) -> Iterator[Finding]:
    """Too few images to see a difference, with the width of the interval."""
    for name in ("val", "test"):
        width = interval_width(len(splits[name]))
        if width > MOST_WIDTH:
            yield Finding(
                kind="few_images",
                level="warning",
                text=(
                    f"{name} has {len(splits[name])} images: at 90 % accuracy its 95 % interval "
                    f"is {100 * width:.0f} points wide"
                ),
                remedy="differences below that are not seen; collect more images if you can",
                values={"split": name, "count": len(splits[name]), "width": width},
            )
