"""Figures of training: learning curves of trials and seeds, and when trials ran.

Knows values to be drawn, no study. Every function returns a figure for `drawing.to_svg` and
`drawing.save`, and raises ValueError where there is nothing to draw.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from studies.report.axes import (
    MANY_MARKS,
    finite,
    handle,
    legend,
    marks,
    metric_axis,
    named_rows,
    require,
    strategy_handle,
    within_bounds,
)
from studies.report.drawing import INK, LOOKS, Look, house_style, look_of, new_figure

MOST_ROWS = 60  # Of a timeline with a row for each trial.
PARTS = (("train", "--"), ("val", "-"))
# State of a trial, as Optuna names it -> hatch of its bar.
HATCHES: Mapping[str, str] = MappingProxyType(
    {"COMPLETE": "", "PRUNED": "/////", "FAIL": "xxxxx", "RUNNING": "....."}
)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The metric on training and on validation images after epochs 1, 2, ..."""

    train: Sequence[float]
    val: Sequence[float]

    def of(self, part: str) -> Sequence[float]:
        return self.train if part == "train" else self.val

    @property
    def is_empty(self) -> bool:
        return not any(map(math.isfinite, itertools.chain(self.train, self.val)))


@dataclass(frozen=True, kw_only=True)
class TimelineTrial:
    """When a trial ran: its start in seconds after the study's, and how long it took."""

    number: int
    strategy: str
    state: str
    start_seconds: float
    seconds: float


@house_style()
def learning_curves(
    curves: Sequence[Curve],
    best: Curve | None,
    seeds: Sequence[Curve],
    *,
    metric: str,
    strategy: str,
) -> Figure:
    """The metric by epoch: all trials faint, the best bold, its repetitions over seeds as a band.

    The band goes from the lowest to the highest seed, with their mean, up to the last epoch that
    all of them reached.
    """
    shown, look = metric_axis(metric), look_of(strategy)
    usable = [curve for curve in curves if not curve.is_empty]
    repeated = [curve for curve in seeds if not curve.is_empty]
    bold = [best] if best is not None and not best.is_empty else []
    require([*usable, *repeated, *bold], "curves with a finite value")
    figure = new_figure()
    axes = figure.subplots()
    for part, linestyle in PARTS:
        _faint(axes, [curve.of(part) for curve in usable], shown.factor, look, linestyle)
        _band(axes, [curve.of(part) for curve in repeated], shown.factor, linestyle)
        for curve in bold:
            values = shown.factor * np.asarray(curve.of(part), dtype=float)
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, linestyle=linestyle, color=look.colour, linewidth=2.4)
    _mark_best_epoch(axes, bold, metric, look)
    axes.autoscale_view()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    within_bounds(axes.yaxis, shown)
    axes.set_xlabel("epoch (number)")
    axes.set_ylabel(shown.label)
    legend(figure, _curve_handles(look, bool(usable), bool(bold), len(repeated)))
    return figure


def _faint(
    axes: Axes, curves: Sequence[Sequence[float]], factor: float, look: Look, linestyle: str
) -> None:
    lines = [
        np.column_stack((np.arange(1, len(values) + 1), factor * np.asarray(values, dtype=float)))
        for values in curves
        if len(values)
    ]
    collection = LineCollection(
        lines,
        colors=look.colour,
        linestyles=linestyle,
        linewidths=0.8,
        alpha=min(0.45, max(0.03, 8 / max(1, len(lines)))),
        rasterized=sum(map(len, lines)) > MANY_MARKS,
    )
    axes.add_collection(collection)


def _band(axes: Axes, curves: Sequence[Sequence[float]], factor: float, linestyle: str) -> None:
    common = min((len(values) for values in curves), default=0)
    if common:
        values_SE = factor * np.array([values[:common] for values in curves], dtype=float)
        epochs = np.arange(1, common + 1)
        low, high = values_SE.min(axis=0), values_SE.max(axis=0)
        axes.fill_between(
            epochs,
            low,
            high,
            color=INK,
            alpha=0.16,
            linewidth=0,
        )
        axes.plot(epochs, values_SE.mean(axis=0), linestyle=linestyle, color=INK, linewidth=1.2)


def _mark_best_epoch(axes: Axes, bold: Sequence[Curve], metric: str, look: Look) -> None:
    shown = metric_axis(metric)
    for curve in bold:
        reached = [value for value in curve.val if math.isfinite(value)]
        if reached:
            value = shown.best(reached)
            at = [list(curve.val).index(value) + 1]
            marks(axes, at, [shown.factor * value], look, size=9, alpha=1)


def _curve_handles(look: Look, trials: bool, best: bool, num_seeds: int) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        handle(part, color=INK, linestyle=linestyle, linewidth=1) for part, linestyle in PARTS
    ]
    if best:
        label = "best trial"
        handles.append(handle(label, color=look.colour, linewidth=2.4, marker=look.marker))
    if trials:
        handles.append(handle("all trials", color=look.colour, linewidth=0.8))
    if num_seeds:
        label = f"{num_seeds} seeds (range)" if num_seeds > 1 else "1 seed"
        handles.append(Patch(facecolor=INK, alpha=0.16, linewidth=0, label=label))
    return handles


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
        _state_marks(axes, own, seconds, strategy, state)
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
    axes: Axes, trials: Sequence[TimelineTrial], seconds: float, strategy: str, state: str
) -> None:
    """The strategy's marker before each bar, filled if complete; a cross behind what failed.

    So that the state of a trial of a second can be seen in a study of an hour.
    """
    look = look_of(strategy)
    figure = axes.get_figure(root=True)
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
