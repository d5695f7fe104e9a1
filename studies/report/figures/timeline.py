"""Figures of a study's time: when trials ran and how they ended, what they had found by when.

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

from studies.document.drawing import INK, LOOKS, house_style, look_of, new_figure
from studies.report.figures.axes import (
    finite,
    handle,
    legend,
    log_ticks,
    metric_axis,
    named_rows,
    require,
    shared_label,
    strategies_in,
    strategy_handle,
    within_bounds,
)

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


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """What one strategy's search had found behind so many of its trials and seconds."""

    num_trials: int
    seconds: float
    best: float


@house_style()
def best_so_far(curves: Mapping[str, Sequence[SearchStep]], *, metric: str) -> Figure:
    """The best value of each strategy so far, against its trials and against their seconds.

    Two searches that got unequal shares of the trials are alike where their curves are, and which
    one was ahead at any budget can be read off.

    Source: J. Dodge et al., "Show your work: improved reporting of experimental results", EMNLP
    2019; as curves, since the closed form there is for random search.

    Raises:
        ValueError: nothing to draw; a name is no strategy.
    """
    shown = metric_axis(metric)
    usable = {
        name: [step for step in steps if finite(step.best, step.seconds) and step.seconds > 0]
        for name, steps in curves.items()
    }
    usable = {name: steps for name, steps in usable.items() if steps}
    require(usable, "steps with a finite value and seconds > 0")
    figure = new_figure()
    by_trials, by_seconds = figure.subplots(1, 2, sharey=True)
    handles = []
    for strategy in strategies_in(usable):
        look, steps = look_of(strategy), usable[strategy]
        values = [shown.factor * step.best for step in steps]
        style: dict[str, Any] = {
            "drawstyle": "steps-post",
            "color": look.colour,
            "linestyle": look.linestyle,
            "linewidth": 1.6,
        }
        for axes, along in (
            (by_trials, [float(step.num_trials) for step in steps]),
            (by_seconds, [step.seconds for step in steps]),
        ):
            axes.plot(along, values, **style)
            # Where the search ended: a curve that is shorter had fewer trials.
            axes.plot(along[-1:], values[-1:], marker=look.marker, color=look.colour)
        style.pop("drawstyle")
        handles.append(handle(look.label, marker=look.marker, **style))
    by_trials.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    by_trials.set_xlabel("trials of the strategy")
    by_seconds.set_xscale("log")
    log_ticks(by_seconds.xaxis, [step.seconds for steps in usable.values() for step in steps])
    by_seconds.set_xlabel("seconds of these trials")
    within_bounds(by_trials.yaxis, shown)
    shared_label(figure, shown.label)
    legend(figure, handles)
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
