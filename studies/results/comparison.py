"""Task D as data: the best trial of each strategy side by side. Knows records alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studies.database.trials import TrialRecord, best_trials
from studies.statistics.intervals import wilson_interval
from studies.statistics.metrics import METRICS, Floats, Labels
from studies.statistics.paired import difference_over_seeds

Predicted = Callable[[TrialRecord], tuple[Labels, Floats, Labels | None] | None]


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
    """A summary of every strategy with a complete trial; the better value first.

    Args:
        num_val: independent validation images, which is subjects where they are known.
    """
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


def interim_verdict(
    records: Sequence[TrialRecord],
    metric: str,
    num_val: int,
    predicted: Predicted,
    images: str = "validation images",
) -> str | None:
    """One sentence on the backbones as fixed feature extractors, or None before one is done.

    Args:
        num_val: independent validation images, which is subjects where they are known.
        images: how many there are, and whose, in words.
        predicted: labels (N,), probabilities (N, C) of a trial's best epoch and groups of the
            validation images, which all trials share; None where they are gone.
    """
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
    text = f"So far, as fixed feature extractor (accuracy on {images}): {', '.join(parts)}"
    if len(probes) > 1:
        first, second = list(probes.items())[:2]
        text += _first_over_second(first, second, predicted)
    return f"{text}."


def _first_over_second(
    first: tuple[str, TrialRecord], second: tuple[str, TrialRecord], predicted: Predicted
) -> str:
    """How the best two differ on the same images: one model of each, by one seed."""
    a, b = predicted(first[1]), predicted(second[1])
    if a is None or b is None:
        return ""
    try:
        found = difference_over_seeds(
            METRICS["accuracy"], a[0], a[1][None], b[1][None], groups_N=a[2]
        )
    except ValueError:
        return "; too few validation images or subjects to tell which is better"
    value, low, high = (f"{100 * v:+.1f}" for v in (found.value, found.low, found.high))
    verdict = "not shown to differ" if found.verdict == "undecided" else found.verdict
    return f"; {first[0]} over {second[0]} {value} points [{low}, {high}]: {verdict}"


def _interval(record: TrialRecord, num_val: int) -> tuple[float, float]:
    assert record.best is not None
    return wilson_interval(round(record.best["val"]["accuracy"] * num_val), num_val)
