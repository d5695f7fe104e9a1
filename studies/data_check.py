"""What a study does about findings of the data check: refuse, tell, and store what was allowed.

Knows findings, flags and records, also in words for every later output. What is found is
`transfer.data.check.check`'s to know. Never imports torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.errors import UserError
from transfer.data.check.check import check, unreadable_files
from transfer.data.check.findings import Finding
from transfer.data.decoding import Interpolation, Resize
from transfer.data.loading import ImageData, load_data
from transfer.data.opening import LostClassError
from transfer.data.sources.items import OnProgress, Source
from transfer.messages import printable


def allowed_lines(record: Mapping[str, Any]) -> list[str]:
    """What was allowed, and what was left out for it, a sentence each; none for clean data."""
    return [*(f"Went on with {text}." for text in record["allowed"]), *left_out_lines(record)]


def left_out_lines(record: Mapping[str, Any]) -> list[str]:
    """How many images are left out of which split, and why, a sentence each."""
    lines = []
    for why, counts in record["left_out"].items():
        if counts:
            told = " and ".join(f"{count:,} of {split}" for split, count in counts.items())
            changed = "; the test set is not the one that was brought" if "test" in counts else ""
            lines.append(f"Left out as {why}: {told}{changed}.")
    return lines


# The flags by which a study goes on in spite of an error.
ALLOWANCES = ("allow_leakage", "skip_unreadable", "drop_duplicates")
MOST_SHOWN = 10


def flag(allowance: str) -> str:
    """The flag of an allowance."""
    return f"--{allowance.replace('_', '-')}"


class DataRefusedError(UserError):
    """The data have errors that no flag allows; ``as_json`` has all that was found."""

    def __init__(self, text: str, as_json: Mapping[str, Any]) -> None:
        super().__init__(f"The data are refused. {text}")
        self.as_json = as_json


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Data, what was found in them, and which of ``ALLOWANCES`` were given."""

    source: Source
    data: ImageData
    findings: Sequence[Finding]
    allowed: Mapping[str, bool]

    @property
    def errors(self) -> list[Finding]:
        """The errors that no flag allows."""
        return [f for f in self.findings if f.level == "error" and not self.allowing(f)]

    def allowing(self, finding: Finding) -> list[str]:
        """The flags that were given and allow this finding."""
        given = [flag(name) for name in ALLOWANCES if self.allowed.get(name)]
        return [name for name in finding.allowed_by if name in given]

    def refuse(self) -> None:
        """Raise DataRefusedError where there are such errors."""
        if self.errors:
            told = "; ".join(f"{error.text}: {error.remedy}" for error in self.errors)
            raise DataRefusedError(f"{told}.", self.as_json())

    def record(self) -> dict[str, Any]:
        """What is stored with a study and stands in every later output.

        ``allowed`` has a sentence for each error that the study went on with, ``left_out`` how
        many images were left out of each split and why.
        """
        return {
            "flags": {name: bool(self.allowed.get(name)) for name in ALLOWANCES},
            "allowed": [
                f"{', '.join(self.allowing(finding))}, as {finding.text}"
                for finding in self.findings
                if finding.level == "error"
            ],
            "warnings": [f.text for f in self.findings if f.level == "warning"],
            "left_out": {
                "unreadable": _counts(self.data.unreadable),
                "copies": _counts(self.data.dropped),
            },
            "unreadable": {split: list(names) for split, names in self.data.unreadable.items()},
        }

    def as_json(self) -> dict[str, Any]:
        """All findings with all their images; ``refused`` where an error is not allowed."""
        return {
            "source": self.source.text,
            "counts": self.data.counts,
            "refused": bool(self.errors),
            "findings": [finding_json(finding) for finding in self.findings],
            "left_out": self.record()["left_out"],
        }


def load_checked(
    source: Source,
    allowed: Mapping[str, bool],
    *,
    image_size: int,
    seed: int,
    cache_dir: Path,
    resize: Resize = "squeeze",
    interpolations: Sequence[Interpolation] = ("bilinear",),
    with_views: bool = False,
    on_progress: OnProgress,
) -> Checked:
    """Load the data, leaving out what the flags say, and check them.

    What can't be read is left out here in any case: it is an error among the findings.

    Raises:
        DataRefusedError: a class has no image left, as its files can't be read.
        ValueError: a class is too small.
    """
    try:
        data = load_data(
            source,
            image_size=image_size,
            seed=seed,
            cache_dir=cache_dir,
            resize=resize,
            interpolations=interpolations,
            with_views=with_views,
            skip_unreadable=True,
            drop_duplicates=bool(allowed.get("drop_duplicates")),
            on_progress=on_progress,
        )
    except LostClassError as error:
        (finding,) = list(unreadable_files(error.unreadable)) or (None,)
        if finding is None:
            raise
        raise DataRefusedError(
            f"{error} {finding.text}.",
            {"source": source.text, "refused": True, "findings": [finding_json(finding)]},
        ) from None
    return Checked(
        source=source, data=data, findings=check(data, source.passed_over), allowed=allowed
    )


def _counts(images: Mapping[str, Collection[str]]) -> dict[str, int]:
    return {split: len(names) for split, names in images.items()}


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding with all its images."""
    return {
        "kind": finding.kind,
        "level": finding.level,
        "text": finding.text,
        "remedy": finding.remedy,
        "allowed_by": list(finding.allowed_by),
        **finding.values,
        "images": [list(images) for images in finding.images],
    }


# How the images of a finding stand beside each other; others are one file each.
SIGNS = {
    "near_duplicates_across_splits": " ~ ",
    "near_duplicates_within_split": " ~ ",
    "groups_across_splits": ", ",
    "shared_stems": ", ",
}


def finding_lines(checked: Checked) -> list[str]:
    """Findings in words, each with at most ten of its pairs or paths."""
    lines: list[str] = []
    for finding in checked.findings:
        allowed = checked.allowing(finding)
        what = f"With {', '.join(allowed)}" if allowed else finding.level.capitalize()
        lines.append(f"{what}: {finding.text}.")
        sign = SIGNS.get(finding.kind, " = ")
        for images in finding.images[:MOST_SHOWN]:
            more = sign + "..." if len(images) > MOST_SHOWN else ""
            lines.append(f"    {sign.join(map(_name, images[:MOST_SHOWN]))}{more}")
        more_images = len(finding.images) - MOST_SHOWN
        if more_images > 0:
            lines.append(f"    and {more_images:,} more (all of them with --json)")
        if not allowed:
            lines.append(f"  -> {finding.remedy}.")
    return lines if checked.errors else lines + left_out_lines(checked.record())


def _name(image: Mapping[str, str]) -> str:
    """The name, with the split where the name doesn't begin with it, and the reason."""
    name, split = image["name"], image["split"]
    name = printable(name)
    told = name if not split or name.startswith(f"{split}/") else f"{name} ({split})"
    return f"{told}: {image['reason']}" if "reason" in image else told
