"""Whose picture is it: groups found in file names, and which images must stay together.

A group is a patient, an animal, a slide: images that are no independent evidence of each other.
"""

import hashlib
import re
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
