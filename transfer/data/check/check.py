"""The data check: what may spoil a study of these images, found before its first trial.

All checks are pure functions of names, labels, groups and facts; none sees a pixel. What follows
from a finding (refuse or go on) is decided elsewhere; docs/data.md explains each.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from transfer.data.check.balance import (
    aspect_ratios,
    class_balance,
    other_splits,
    rare_classes,
    shortcuts,
    small_splits,
)
from transfer.data.check.findings import Finding, Splits, named
from transfer.data.check.leakage import (
    copies_across,
    copies_within,
    groups_across,
    near_duplicates,
)
from transfer.data.check.stems import shared_stems
from transfer.data.decoding import FORMAT_OF_SUFFIX
from transfer.data.loading import ImageData
from transfer.data.opening import joined_splits


def check(data: ImageData, passed_over: Sequence[str] = ()) -> list[Finding]:
    """All findings of a data set, errors first.

    Args:
        passed_over: files in class folders whose names don't end as an image's.
    """
    brought, kept = _as_given(data.checked), _as_given(data.kept)
    found = [
        *unreadable_files(data.unreadable),
        *copies_across(brought),
        *groups_across(kept),
        *copies_within(kept),
        *(shared_stems(kept, len(data.classes)) if data.num_groups is None else ()),
        *near_duplicates(data.kept, knows_groups=data.num_groups is not None),
        *_passed_over(passed_over),
        *_misnamed(kept),
        *rare_classes(data.kept, data.classes),
        *class_balance(kept, data.classes),
        *shortcuts(kept["train"], data.classes),
        *other_splits(kept),
        *aspect_ratios(kept, data.resize),
        *small_splits(data.kept),
    ]
    return sorted(found, key=lambda finding: finding.level)


def _as_given(splits: Splits) -> Splits:
    """The splits as they were brought: a validation set that was drawn here goes back to train."""
    if not splits["val"].is_made:
        return splits
    return {"train": joined_splits([splits["train"], splits["val"]]), "test": splits["test"]}


def unreadable_files(unreadable: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Files that can't be used, with their reasons."""
    bad = [
        (split, name, why) for split, found in unreadable.items() for name, why in found.items()
    ]
    if bad:
        reasons = Counter(why for _, _, why in bad)
        files = "file can't" if len(bad) == 1 else "files can't"
        yield Finding(
            kind="unreadable",
            level="error",
            text=f"{len(bad):,} {files} be read: {named(f'{n} ({why})' for _, n, why in bad)}",
            remedy="replace or remove them, or leave them out with --skip-unreadable",
            images=tuple(({"split": s, "name": n, "reason": why},) for s, n, why in bad),
            values={"count": len(bad), "reasons": dict(reasons)},
            allowed_by=("--skip-unreadable",),
        )


def _passed_over(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        files = "1 entry is" if len(names) == 1 else f"{len(names):,} entries are"
        yield Finding(
            kind="passed_over",
            level="warning",
            text=f"{files} passed over, not named as images or in no class: {named(names)}",
            remedy=(
                "give images the ending of their format (.png, .jpg, ...) and put them into the "
                "folder of a class; convert DICOM first"
            ),
            images=tuple(({"split": "", "name": name},) for name in names),
            values={"count": len(names)},
        )


def _misnamed(splits: Splits) -> Iterator[Finding]:
    """Names that end as another format's: read by content, but mixed formats may tell a class."""
    wrong = [
        (name, part.names[i], fact.format)
        for name, part in splits.items()
        for i, fact in enumerate(part.facts)
        if fact.format and _named_as(part.names[i]) not in (None, fact.format)
    ]
    if wrong:
        names = "name ends" if len(wrong) == 1 else "names end"
        yield Finding(
            kind="misnamed",
            level="warning",
            text=(
                f"{len(wrong):,} {names} as another format's: "
                f"{named(f'{name} (is {kind})' for _, name, kind in wrong)}"
            ),
            remedy="rename them; they are read by their content",
            images=tuple(({"split": split, "name": name},) for split, name, _ in wrong),
            values={"count": len(wrong)},
        )


def _named_as(name: str) -> str | None:
    """The format that a name's ending stands for; None where it stands for none."""
    return FORMAT_OF_SUFFIX.get(PurePosixPath(name).suffix.lower())
