"""A CSV manifest: a line for each image with its path, its label, and maybe its split and group.

Reads the manifest and looks whether the files are there; opens none of them.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfer.data.decoding import decode_image
from transfer.data.sources.items import Items, Source, SplitName, in_class_order, short_name
from transfer.data.splits import find_groups

REQUIRED = ("path", "label")
OPTIONAL = ("split", "group")
SPLITS: Mapping[str, SplitName] = {"train": "train", "val": "val", "test": "test"}


class Row(NamedTuple):
    """A line of the manifest; ``group`` and ``split`` are empty where it has no such column."""

    line: int
    written: str
    path: Path
    label: str
    split: str
    group: str


def open_manifest(path: Path, group_pattern: str | None = None) -> Source:
    """The source of a manifest.

    Raises:
        ValueError: a line that can't be used, named by file and number.
    """
    lines = _lines(path)
    header = next(lines, (1, []))[1]
    _check_header(path, header)
    if "group" in header and group_pattern is not None:
        raise ValueError(
            f"{path.name} has a column group, and a group pattern ({group_pattern!r}) is given "
            "too; leave one of them out."
        )
    rows = [_row(path, header, number, values) for number, values in lines]
    _refuse_duplicates(path, rows)
    classes = in_class_order(row.label for row in rows)
    given: list[SplitName] = [split for split in SPLITS.values() if _has(rows, split)]
    if "split" in header and not {"train", "test"} <= set(given):
        raise ValueError(
            f"{path.name} must hold train and test in its column split (and may hold val), has "
            f"{', '.join(given) or 'no line'}; without the column the splits are made."
        )
    splits: dict[SplitName, Items] = {
        split: _items([row for row in rows if split in ("all", row.split)], classes)
        for split in given or ["all"]
    }
    splits, num_matched = find_groups(splits, group_pattern)
    return Source(
        text=str(path.resolve()),
        name=short_name(path.stem),
        kind="manifest",
        classes=classes,
        splits=splits,
        num_matched=num_matched,
        ignored_columns=tuple(name for name in header if name and name not in REQUIRED + OPTIONAL),
    )


def _has(rows: list[Row], split: SplitName) -> bool:
    return any(row.split == split for row in rows)


def _error(path: Path, line: int, problem: str) -> ValueError:
    return ValueError(f"{path.name} line {line}: {problem}")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that hold something, with their numbers from 1 and values without outer spaces."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _error(path, line, "is not UTF-8; save the manifest as UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, [value.strip() for value in values]
    except csv.Error as error:
        raise _error(path, reader.line_num, f"bad quoting or a bad field ({error}).") from None


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise _error(
            path,
            1,
            f"no column {' and no column '.join(missing)}; it must name path,label (and may name "
            f"split and group), separated by commas, but is {','.join(header)!r}.",
        )
    for name in REQUIRED + OPTIONAL:
        if header.count(name) > 1:
            raise _error(path, 1, f"the column {name} is there {header.count(name)} times.")


def _row(path: Path, header: list[str], line: int, values: list[str]) -> Row:
    if len(values) != len(header):
        raise _error(path, line, f"{len(values)} values, but the header has {len(header)}.")
    named = dict(zip(header, values, strict=True))
    for name in REQUIRED + OPTIONAL:
        if name in named and not named[name]:
            raise _error(path, line, f"no {name}; every line needs a value for it.")
        if not named.get(name, "").isprintable():
            raise _error(path, line, f"the {name} {named[name]!r} can't be shown.")
    split = named.get("split", "")
    if split and split not in SPLITS:
        raise _error(path, line, f"unknown split {split!r}; choose from train, val, test.")
    # Not resolved: links to one file are told apart here and found by their pixels.
    file = Path(os.path.normpath(path.parent / os.path.expanduser(named["path"])))
    if not os.path.isfile(file):
        raise _error(path, line, f"no file {named['path']!r} (looked for {file}).")
    return Row(line, named["path"], file, named["label"], split, named.get("group", ""))


def _refuse_duplicates(path: Path, rows: list[Row]) -> None:
    first: dict[Path, int] = {}
    for row in rows:
        if row.path in first:
            problem = f"{row.written!r} is in line {first[row.path]} already."
            raise _error(path, row.line, problem)
        first[row.path] = row.line


def _items(rows: list[Row], classes: tuple[str, ...]) -> Items:
    number = {name: i for i, name in enumerate(classes)}
    return Items(
        names=tuple(row.written for row in rows),
        labels_N=np.array([number[row.label] for row in rows], dtype=np.int64),
        read=lambda i: rows[i].path.read_bytes(),
        decode=decode_image,
        groups=tuple(row.group for row in rows) if all(row.group for row in rows) else None,
    )
