"""Splits in two: stratified, seeded, keeping together what belongs together.

Whose picture it is says a group in its file name: a patient, an animal, a slide; images of one are
no independent evidence of each other. Knows labels and names; nothing of pixels.
"""

import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transfer.data.sources.items import Items, SplitName

Splits = dict[SplitName, Items]


def find_groups(splits: Splits, group_pattern: str | None) -> tuple[Splits, int | None]:
    """The splits with groups found by the pattern, and how many files it matched.

    The group is the pattern's first group, else the whole match. A file that does not match is a
    group of its own.

    Raises:
        ValueError: no regular expression, or one that matches no file.
    """
    if group_pattern is None:
        return splits, None
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        raise ValueError(
            f"Group pattern {group_pattern!r} is no regular expression ({error}); "
            r"an example: ^(person\d+)_"
        ) from None
    found = {
        split: [_match(pattern, name) for name in items.names] for split, items in splits.items()
    }
    num_matched = sum(group is not None for groups in found.values() for group in groups)
    if num_matched == 0:
        example = next(iter(splits.values())).names[0]
        raise ValueError(
            f"Group pattern {group_pattern!r} matches the name of no file (the first is "
            f"{example!r}); the pattern is searched in the file's name, not in its folder."
        )
    grouped: Splits = {}
    for split, items in splits.items():
        # No match begins with a slash, so that a file of its own is in no other's group.
        groups = (m or f"/{name}" for m, name in zip(found[split], items.names, strict=True))
        grouped[split] = replace(items, groups=tuple(groups))
    return grouped, num_matched


def _match(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(re.split(r"[/\\]", name)[-1])
    if match is None:
        return None
    return (match[1] if pattern.groups else match[0]) or None


def together(digests: Sequence[str], groups: Sequence[str] | None) -> NDArray[np.int64]:
    """For each of N images a number, (N,): equal where images must be in the same split.

    Images stay together that are of one group or have the same pixels, directly or by others.
    """
    relations: list[Sequence[Hashable]] = [digests, *([groups] if groups is not None else [])]
    rows, columns, num_nodes = [], [], len(digests)
    for relation in relations:
        number: dict[Hashable, int] = {}
        for i, value in enumerate(relation):
            rows.append(i)
            columns.append(number.setdefault(value, num_nodes + len(number)))
        num_nodes += len(number)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(num_nodes, num_nodes))
    _, component_of_node = connected_components(graph, directed=False)
    return first_seen(component_of_node[: len(digests)])


def group_codes(groups: Sequence[str] | None) -> NDArray[np.int64] | None:
    """A number for each image, (N,), equal where images are of one group; None without groups."""
    if groups is None:
        return None
    return np.unique(np.array(groups, dtype=str), return_inverse=True)[1].astype(np.int64)


def first_seen(values_N: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number values by their first appearance, (N,), so that their own names don't matter."""
    _, first, inverse = np.unique(values_N, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def partition_lines(lines: Sequence[str], groups: Sequence[str] | None) -> list[str]:
    """A line for each part of the partition into groups; none where there are no groups.

    ``lines`` tell what each image is. The parts' own names and their order don't matter.
    """
    if groups is None:
        return []
    parts: dict[str, list[str]] = defaultdict(list)
    for line, group in zip(lines, groups, strict=True):
        parts[group].append(line)
    return sorted(
        hashlib.sha256("\n".join(sorted(part)).encode()).hexdigest() for part in parts.values()
    )


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
