"""Splits in two: stratified, seeded, keeping together what belongs together.

Knows labels and which images may not be parted; nothing of pixels or names.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transfer.data.groups import first_seen

Positions = NDArray[np.int64]

VAL_SHARE = 0.2
TEST_SHARE = 0.2
# The sealed test set belongs to the data, not to the study: no study's seed may move it.
TEST_SEED = 0


def split_off_test(
    labels_N: NDArray[np.int64], together_N: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Positions, Positions]:
    """Positions of what remains and of the test images, for data that come without splits.

    Raises:
        ValueError: a class is too small to be in train, val and test.
    """
    _require(3, "train, val and test", labels_N, together_N, classes)
    return stratified_split(labels_N, TEST_SEED, TEST_SHARE, together_N, classes)


def stratified_split(
    labels_N: NDArray[np.int64],
    seed: int,
    val_share: float = VAL_SHARE,
    together_N: NDArray[np.int64] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Positions, Positions]:
    """Positions for training and validation, each sorted; every class is in both.

    Images of one number in ``together_N`` come to the same side.

    Raises:
        ValueError: a class has fewer than two images that may be parted, or no split was found
            that has every class on both sides.
    """
    numbers_N = np.arange(len(labels_N)) if together_N is None else together_N
    names = classes or [f"number {label + 1}" for label in range(int(labels_N.max()) + 1)]
    _require(2, "train and val", labels_N, numbers_N, names)
    if len(np.unique(numbers_N)) < len(numbers_N):
        return _grouped(labels_N, seed, val_share, first_seen(numbers_N), names)
    train, val = [], []
    for label in np.unique(labels_N):
        positions = np.flatnonzero(labels_N == label)
        shuffled = np.random.default_rng([seed, int(label)]).permutation(positions)
        num_val = min(max(1, round(val_share * len(positions))), len(positions) - 1)
        val.append(shuffled[:num_val])
        train.append(shuffled[num_val:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def _require(
    at_least: int,
    splits: str,
    labels_N: NDArray[np.int64],
    together_N: NDArray[np.int64],
    classes: Sequence[str],
) -> None:
    """Refuse a class with fewer images, or fewer groups of images, than there are splits."""
    for label in np.unique(labels_N):
        of_class = labels_N == label
        num_images, num_groups = int(of_class.sum()), len(np.unique(together_N[of_class]))
        what = "training images" if at_least == 2 else "images"
        if num_images < at_least:
            raise ValueError(
                f"Every class needs at least {at_least} {what}, one each for {splits}, but class "
                f"'{classes[label]}' has {num_images}; add images or leave the class out."
            )
        if num_groups < at_least:
            raise ValueError(
                f"Every class needs {what} of at least {at_least} groups (subjects, or pictures "
                f"with other pixels), one each for {splits}, but class '{classes[label]}' has "
                f"{num_groups}; add images of others, or leave the class out."
            )


def _grouped(
    labels_N: NDArray[np.int64],
    seed: int,
    val_share: float,
    together_N: NDArray[np.int64],
    classes: Sequence[str],
) -> tuple[Positions, Positions]:
    """Split groups, stratified as well as they allow.

    Where no part of the size asked for has every class on both sides, larger ones are tried.
    """
    for num_folds in range(max(2, round(1 / val_share)), 1, -1):
        folds = [
            (train, val)
            for train, val in _folds(labels_N, seed, num_folds, together_N)
            if len(np.unique(labels_N[train])) == len(np.unique(labels_N[val]))
            and len(np.unique(labels_N[val])) == len(np.unique(labels_N))
        ]
        if folds:
            return min(folds, key=lambda fold: _imbalance(labels_N, fold[1], val_share))
    counts = [len(np.unique(together_N[labels_N == label])) for label in np.unique(labels_N)]
    fewest = int(np.unique(labels_N)[int(np.argmin(counts))])
    raise ValueError(
        "Every class must be in every split, but no split was found that keeps groups (subjects, "
        f"same pixels) whole and has every class on both sides; class '{classes[fewest]}' has "
        f"the fewest groups, {min(counts)}: add images of others, or bring splits of your own."
    )


def _folds(
    labels_N: NDArray[np.int64], seed: int, num_folds: int, together_N: NDArray[np.int64]
) -> list[tuple[Positions, Positions]]:
    # Not at the top: without groups nobody waits for it.
    from sklearn.model_selection import StratifiedGroupKFold

    if num_folds > min(np.bincount(labels_N).max(), len(np.unique(together_N))):
        return []  # The splitter would refuse.
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of classes smaller than the number of folds; what matters is checked above.
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros(len(labels_N)), labels_N, together_N))


def _imbalance(labels_N: NDArray[np.int64], val: Positions, share: float) -> float:
    """How far the shares of the classes are from the share asked for, summed up."""
    totals = np.bincount(labels_N)
    in_val = np.bincount(labels_N[val], minlength=len(totals))
    return float(np.abs(in_val - share * totals)[totals > 0].sum())
