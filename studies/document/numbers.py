"""Numbers of a report: written once the same way, each with where it comes from.

Knows records and intervals; nothing of how a report is laid out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studies.document.blocks import Cell
from studies.statistics.intervals import Interval
from studies.statistics.metrics import METRICS

TASKS: Mapping[str, str] = {"fine_tuning": "Task B", "feature_extraction": "Task C"}
NOTHING = Cell(text="-")


def metric_text(metric: str, value: float, digits: int = 1) -> str:
    """A metric in [0, 1] in per cent; a loss in nats."""
    return f"{100 * value:.{digits}f} %" if is_share(metric) else f"{value:.3f}"


def is_share(metric: str) -> bool:
    """Whether a metric lies in [0, 1]. Those of one class (``recall@CLASS``) do."""
    return metric not in METRICS or METRICS[metric].bounded


def interval_text(metric: str, found: Interval | Mapping[str, Any]) -> str:
    """``value [low, high]`` in the metric's unit."""
    value, low, high = bounds(found)
    if value is None:
        return "-"
    if is_share(metric):
        return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def difference_text(metric: str, found: Interval | Mapping[str, Any]) -> str:
    """A difference in points, with its interval."""
    value, low, high = bounds(found)
    if is_share(metric):
        return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def plain_interval(found: Interval | Mapping[str, Any]) -> str:
    """``value [low, high]`` of what has no unit."""
    value, low, high = bounds(found)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def bounds(found: Interval | Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Value, low and high of an interval, or of one that was stored as JSON."""
    if isinstance(found, Interval):
        return found.value, found.low, found.high
    return found["value"], found["low"], found["high"]


def interval_cell(
    metric: str, found: Interval | Mapping[str, Any] | None, source: str, href: str = ""
) -> Cell:
    """An interval for a table; sorted by its value."""
    if found is None or bounds(found)[0] is None:
        return NOTHING
    value, low, high = map(float, bounds(found))
    return Cell(
        text=interval_text(metric, found),
        source=source,
        href=href,
        key=value,
        bounds=(low, high),
    )


def number_cell(
    value: float | None,
    text: str = "{:g}",
    source: str = "",
    href: str = "",
    *,
    quiet: bool = False,
) -> Cell:
    """A number by a format, or a dash."""
    if value is None:
        return NOTHING
    return Cell(text=text.format(value), source=source, href=href, key=value, quiet=quiet)


def configuration_text(params: Mapping[str, Any]) -> str:
    """A configuration in one line, field names as they are stored."""
    left_out = ("seed", "candidate")
    parts = [
        f"{key.partition('@')[0]} {value:.3g}"
        if isinstance(value, float)
        else f"{key.partition('@')[0]} {value}"
        for key, value in params.items()
        if key not in left_out
    ]
    return ", ".join(parts)


def seconds_text(seconds: float) -> str:
    """A duration that people can read."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def bytes_text(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def listed(names: Sequence[str]) -> str:
    """Names with commas, and *and* before the last."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
