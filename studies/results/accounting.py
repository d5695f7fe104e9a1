"""Where a study's time and memory went: seconds by kind of work, peak memory, what was reused.

Knows records; measures nothing itself. Never imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studies.database.study import StudyRecord
from studies.database.trials import TrialRecord
from transfer.cache import show_size

# The order in which work happens. Of a trial there is no decoding: images are decoded before.
WORK = ("decoding", "activations", "training", "validation", "bookkeeping")


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """The sums over a study's trials, interrupted ones left out.

    ``seconds`` has an entry for each of ``WORK``, decoding and the bookkeeping between trials over
    all runs of the study;
    ``peak_memory_bytes`` is the highest of any trial, beyond what was held before it trained:
    anonymous memory of the process on a CPU, allocated memory on a GPU; None where it is unknown.
    ``kept_bytes`` counts the activations that trials started from,
    each once; ``num_reused`` the trials that found theirs computed, of ``num_trials``.
    """

    seconds: dict[str, float]
    peak_memory_bytes: int | None
    kept_bytes: int
    num_reused: int
    num_trials: int

    def as_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "kept_bytes": self.kept_bytes,
            "reused": self.num_reused,
            "trials": self.num_trials,
        }

    def lines(self) -> list[str]:
        """The same in words, a line each."""
        seconds = ", ".join(f"{work} {self.seconds[work]:.1f}" for work in WORK)
        peak = "unknown" if self.peak_memory_bytes is None else show_size(self.peak_memory_bytes)
        lines = [f"Seconds: {seconds}.", f"Peak memory of a trial: {peak}."]
        kept = f"{show_size(self.kept_bytes)} kept" if self.kept_bytes else "none kept"
        lines.append(
            f"Activations: {kept}; {self.num_reused} of {self.num_trials} trials found theirs "
            "computed."
        )
        return lines


def account(study: StudyRecord, records: Sequence[TrialRecord]) -> Accounting:
    """Add up what is stored with a study and its trials."""
    counted = [record for record in records if record.counts]
    peaks = [r.peak_memory_bytes for r in counted if r.peak_memory_bytes is not None]
    kept: dict[tuple[str, int], int] = {}
    for record in counted:
        if record.cache:
            # The views of one trial are those of another that has more of them.
            start = (record.params["backbone"], record.cache["start"])
            kept[start] = max(kept.get(start, 0), record.cache["bytes"])
    seconds = {work: sum(r.timing.get(work, 0.0) for r in counted) for work in WORK}
    seconds["decoding"] = study.decoding_seconds
    seconds["bookkeeping"] += study.between_trials_seconds
    return Accounting(
        seconds=seconds,
        peak_memory_bytes=max(peaks, default=None),
        kept_bytes=sum(kept.values()),
        num_reused=sum(
            bool(r.cache and r.cache["was_at_hand"] and r.cache["bytes"]) for r in counted
        ),
        num_trials=len(counted),
    )
