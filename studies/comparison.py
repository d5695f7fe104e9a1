"""Task D as data: the best trial of each strategy side by side. Knows records alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from studies.records import TrialRecord, best_trials
from studies.statistics import wilson_interval


@dataclass(frozen=True, kw_only=True)
class StrategySummary:
    """One strategy at its best. ``accuracy`` is on the validation images, with a 95 % interval."""

    strategy: str
    best: TrialRecord
    value: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    num_trials: int
    num_pruned: int
    seconds: float


def compare(
    records: Sequence[TrialRecord], metric: str, num_val: int
) -> dict[str, StrategySummary]:
    """A summary of every strategy with a complete trial; the better value first."""
    summaries: dict[str, StrategySummary] = {}
    for record in best_trials(records, metric):
        strategy = str(record.strategy)
        if strategy not in summaries:
            summaries[strategy] = _summary(strategy, record, records, num_val)
    return summaries


def _summary(
    strategy: str, best: TrialRecord, records: Sequence[TrialRecord], num_val: int
) -> StrategySummary:
    assert best.value is not None and best.best is not None
    accuracy = best.best["val"]["accuracy"]
    mine = [r for r in records if r.counts and r.strategy == strategy]
    return StrategySummary(
        strategy=strategy,
        best=best,
        value=best.value,
        accuracy=accuracy,
        accuracy_interval=wilson_interval(round(accuracy * num_val), num_val),
        num_trials=len(mine),
        num_pruned=sum(r.state == "PRUNED" for r in mine),
        seconds=sum(r.seconds or 0.0 for r in mine),
    )


def seconds_saved(records: Sequence[TrialRecord], epochs: int) -> float:
    """Time saved by pruning: epochs not run times the trial's own seconds an epoch.

    An upper bound: patience might have ended a trial before its last epoch.
    """
    saved = 0.0
    for record in records:
        if record.state == "PRUNED" and record.counts and record.history:
            spent = record.timing["training"] + record.timing["validation"]
            saved += (epochs - len(record.history)) * spent / len(record.history)
    return saved


def interim_verdict(records: Sequence[TrialRecord], metric: str, num_val: int) -> str | None:
    """One sentence on the backbones as fixed feature extractors, or None before one is done."""
    probes: dict[str, TrialRecord] = {}
    for record in best_trials(records, metric):
        if record.strategy == "feature_extraction":
            probes.setdefault(str(record.params["backbone"]), record)
    if not probes:
        return None
    parts = []
    for backbone, record in probes.items():
        low, high = _interval(record, num_val)
        assert record.best is not None
        accuracy = record.best["val"]["accuracy"]
        parts.append(f"{backbone} {accuracy:.1%} [{low:.1%}, {high:.1%}]")
    text = f"So far, as fixed feature extractor (validation accuracy): {', '.join(parts)}"
    if len(probes) > 1:
        (first_low, _), (_, second_high) = (
            _interval(r, num_val) for r in list(probes.values())[:2]
        )
        text += "" if first_low > second_high else "; the intervals of the first two overlap"
    return f"{text}."


def _interval(record: TrialRecord, num_val: int) -> tuple[float, float]:
    assert record.best is not None
    return wilson_interval(round(record.best["val"]["accuracy"] * num_val), num_val)
