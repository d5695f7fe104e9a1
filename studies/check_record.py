"""What a study stores of its data check, in words for every later output.

Knows the stored record alone; see `data_check` for how it comes about. Never imports torch.
"""

from collections.abc import Mapping
from typing import Any


def allowed_lines(record: Mapping[str, Any] | None) -> list[str]:
    """What was allowed, and what was left out for it, a sentence each; none for clean data."""
    if record is None:
        return []
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
