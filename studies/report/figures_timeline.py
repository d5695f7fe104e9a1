"""Figure of a study's time: when trials ran and how they ended.

Knows values to be drawn, no study. Every function returns a figure for `drawing.to_svg` and
`drawing.save`, and raises ValueError where there is nothing to draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from studies.report.axes import (
    finite,
    legend,
    named_rows,
    require,
    strategy_handle,
)
from studies.report.drawing import INK, LOOKS, house_style, look_of, new_figure

MOST_ROWS = 60  # Of a timeline with a row for each trial.
# State of a trial, as Optuna names it -> hatch of its bar. No dots: 600 kB of circles in SVG.
HATCHES: Mapping[str, str] = MappingProxyType(
    {"COMPLETE": "", "PRUNED": "/////", "FAIL": "xxxxx", "RUNNING": "|||||"}
)


@dataclass(frozen=True, kw_only=True)
class TimelineTrial:
    """When a trial ran: its start in seconds after the study's, and how long it took."""

    number: int
    strategy: str
    state: str
    start_seconds: float
    seconds: float


@house_style()
def timeline(trials: Sequence[TimelineTrial]) -> Figure:
    """When each trial ran and how it ended: a bar a trial, hatched by its state.

    Raises:
        ValueError: nothing to draw; a strategy or a state that there isn't.
    """
    usable = [t for t in trials if finite(t.start_seconds, t.seconds) and t.seconds >= 0]
    require(usable, "trials with a finite start and duration")
    seconds, unit = _time_unit(max(t.start_seconds + t.seconds for t in usable))
    rows = sorted({(t.strategy, t.state) for t in usable}, key=_row_order)
    if len(usable) > MOST_ROWS:
        return _strips(usable, rows, seconds, unit)
    figure = new_figure(1.8 + 0.1 * len(usable))
    axes = figure.subplots()
    for strategy, state in rows:
        own = [t for t in usable if (t.strategy, t.state) == (strategy, state)]
        axes.add_patch(_bars(own, [t.number for t in own], seconds, strategy, HATCHES[state]))
        _state_marks(figure, axes, own, seconds, strategy, state)
    axes.autoscale_view()
    numbers = [t.number for t in usable]
    axes.set_ylim(max(numbers) + 0.8, min(numbers) - 0.8)
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_ylabel("trial (number)")
    _time_axis(axes, unit)
    shown = [strategy_handle(strategy) for strategy in dict(rows)]
    states = [state for state in HATCHES if state in {state for _, state in rows}]
    legend(figure, [*shown, *map(_state_handle, states)])
    return figure


def _row_order(row: tuple[str, str]) -> tuple[int, int]:
    """Strategies in the order of every figure, within them states as in `HATCHES`.

    Raises:
        ValueError: there is no such strategy, or no such state.
    """
    strategy, state = row
    look_of(strategy)
    if state not in HATCHES:
        raise ValueError(f"Unknown state {state!r}; choose from {', '.join(HATCHES)}.")
    return list(LOOKS).index(strategy), list(HATCHES).index(state)


def _strips(
    trials: Sequence[TimelineTrial], rows: Sequence[tuple[str, str]], seconds: float, unit: str
) -> Figure:
    """Of many trials: a row for each strategy and state, as bars are too thin for hatches."""
    figure = new_figure(0.9 + 0.36 * len(rows))
    axes = figure.subplots()
    for row, (strategy, state) in enumerate(rows):
        own = [t for t in trials if (t.strategy, t.state) == (strategy, state)]
        axes.add_patch(_bars(own, [row] * len(own), seconds, strategy, ""))
    axes.autoscale_view()
    named_rows(axes, [f"{look_of(strategy).label}: {state.lower()}" for strategy, state in rows])
    _time_axis(axes, unit)
    return figure


def _time_axis(axes: Axes, unit: str) -> None:
    axes.set_xlabel(f"time since the start of the study ({unit})")


def _state_marks(
    figure: Figure,
    axes: Axes,
    trials: Sequence[TimelineTrial],
    seconds: float,
    strategy: str,
    state: str,
) -> None:
    """The strategy's marker before each bar, filled if complete; a cross behind what failed.

    So that the state of a trial of a second can be seen in a study of an hour.
    """
    look = look_of(strategy)
    before = offset_copy(axes.transData, figure, x=-5, units="points")
    behind = offset_copy(axes.transData, figure, x=5, units="points")
    numbers = [t.number for t in trials]
    face = look.colour if state == "COMPLETE" else "none"
    style: dict[str, Any] = {"linestyle": "none", "markersize": 5, "clip_on": False}
    starts = [t.start_seconds / seconds for t in trials]
    axes.plot(
        starts,
        numbers,
        marker=look.marker,
        color=look.colour,
        markerfacecolor=face,
        transform=before,
        **style,
    )
    if state == "FAIL":
        ends = [(t.start_seconds + t.seconds) / seconds for t in trials]
        axes.plot(ends, numbers, marker="x", color=INK, transform=behind, **style)


def _state_handle(state: str) -> Patch:
    face = INK if state == "COMPLETE" else "none"
    return Patch(facecolor=face, edgecolor=INK, hatch=HATCHES[state], label=state.lower())


def _time_unit(seconds: float) -> tuple[float, str]:
    """Seconds of the unit in which so long a time reads well, and its symbol."""
    for unit_seconds, unit in ((3600, "h"), (60, "min")):
        if seconds >= 3 * unit_seconds:
            return unit_seconds, unit
    return 1, "s"


def _bars(
    trials: Sequence[TimelineTrial],
    rows: Sequence[float],
    seconds: float,
    strategy: str,
    hatch: str,
) -> PathPatch:
    """The bars of one strategy and state as one path: a thousand stay small."""
    bars = []
    for row, t in zip(rows, trials, strict=True):
        start, end = t.start_seconds / seconds, (t.start_seconds + t.seconds) / seconds
        low, high = row - 0.4, row + 0.4
        corners = [(start, low), (end, low), (end, high), (start, high), (start, low)]
        bars.append(Path(corners, closed=True))
    colour = look_of(strategy).colour
    return PathPatch(
        Path.make_compound_path(*bars),
        facecolor="none" if hatch else colour,
        edgecolor=colour,
        hatch=hatch or None,
        linewidth=0.6,
    )
