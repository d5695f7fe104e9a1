"""Figures of the answer: strategies over seeds, steps from validation to test, recall by class.

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
from matplotlib.figure import Figure

from studies.document.drawing import INK, Look, house_style, look_of, new_figure, plain
from studies.report.figures.axes import (
    PERCENT,
    finite,
    handle,
    legend,
    marks,
    metric_axis,
    named_rows,
    require,
    strategies_in,
    strategy_handle,
    whiskers,
    within_bounds,
)
from studies.statistics.intervals import Interval

# Values are written to a tenth, so sums may be off by half of one.
ROUNDING = 0.05

DOT: Mapping[str, Any] = MappingProxyType({"linestyle": "none", "marker": "o", "color": INK})

Group = tuple[Sequence[float], Interval | None]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One cause and what it adds, in points; negative are points lost.

    ``low`` and ``high`` bound the contribution; NaN where there is no interval.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan


@house_style()
def strategies_over_seeds(groups: Mapping[str, Mapping[str, Group]], *, metric: str) -> Figure:
    """Both strategies side by side: a dot a seed, the interval with its value above them.

    ``groups`` goes from strategy to kind of measurement ("validation", "test", "forecast") to the
    values of the seeds and their interval.
    """
    shown = metric_axis(metric)
    kept = {
        strategy: {kind: group for kind, group in kinds.items() if _has_values(group)}
        for strategy, kinds in groups.items()
    }
    strategies = strategies_in(strategy for strategy, kinds in kept.items() if kinds)
    kinds = list(dict.fromkeys(kind for strategy in groups for kind in kept[strategy]))
    require(kinds, "strategies with a finite value")
    figure = new_figure(1.2 + 0.62 * len(kinds))
    axes = figure.subplots()
    offsets = dict(zip(strategies, (-0.22, 0.22) if len(strategies) == 2 else (0,), strict=True))
    for strategy in strategies:
        for kind, group in kept[strategy].items():
            row = kinds.index(kind) + offsets[strategy]
            _seeds_and_interval(axes, row, group, look_of(strategy), shown.factor)
    named_rows(axes, kinds)
    for row in range(1, len(kinds)):
        axes.axhline(row - 0.5, color=INK, linewidth=0.6, alpha=0.3)
    within_bounds(axes.xaxis, shown)
    axes.set_xlabel(shown.label)
    handles = [strategy_handle(strategy) for strategy in strategies]
    seed = handle("one seed", **DOT, markersize=5, markerfacecolor="none")
    legend(figure, [*handles, seed, handle("interval", color=INK, linewidth=2)])
    return figure


def _has_values(group: Group) -> bool:
    values, interval = group
    return any(map(math.isfinite, values)) or (interval is not None and finite(interval.value))


def _seeds_and_interval(axes: Axes, row: float, group: Group, look: Look, factor: float) -> None:
    values, interval = group
    spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(len(values))
    axes.plot(
        [factor * value for value in values],
        row + 0.13 + spread,
        linestyle="none",
        marker=look.marker,
        markersize=5,
        markerfacecolor="none",
        color=look.colour,
    )
    if interval is not None:
        low, high = [factor * interval.low], [factor * interval.high]
        whiskers(axes, [row], low, high, horizontal=True, colour=look.colour, linewidth=2)
        marks(axes, [factor * interval.value], [row], look, size=8, alpha=1)


@house_style()
def waterfall(
    steps: Sequence[Step], *, start: tuple[str, float], end: tuple[str, float], unit: str
) -> Figure:
    """How one value becomes another, cause by cause: a row a step, from top to bottom.

    Start and end are levels, not bars, so that the axis need not begin at 0. Points lost are
    filled, points won are hatched.

    Raises:
        ValueError: the steps don't lead from start to end.
    """
    levels = list(itertools.accumulate((step.value for step in steps), initial=start[1]))
    if not abs(levels[-1] - end[1]) <= ROUNDING:
        raise ValueError(
            f"`start + sum of steps == end` must hold, but got {start[1]:g} + "
            f"{levels[-1] - start[1]:g} and {end[1]:g}."
        )
    figure = new_figure(1.0 + 0.36 * (len(steps) + 2))
    axes = figure.subplots()
    for row, (step, before) in enumerate(zip(steps, levels, strict=False), start=1):
        _step_bar(axes, row, step, before)
    whiskers(
        axes,
        [i + 1 for i in range(len(steps))],
        [before + step.low for before, step in zip(levels, steps, strict=False)],
        [before + step.high for before, step in zip(levels, steps, strict=False)],
        horizontal=True,
    )
    for row, level in enumerate(levels):
        axes.plot([level, level], [row, row + 1], color=INK, linewidth=0.8, linestyle=":")
    last = len(steps) + 1
    axes.plot([start[1], end[1]], [0, last], linestyle="none", marker="D", color=INK, markersize=7)
    low, high = axes.dataLim.intervalx
    span = (high - low) or 1
    axes.set_xlim(low - 0.06 * span, high + 0.14 * span)
    for row, (_, value) in ((0, start), (last, end)):
        _written(axes, row, value, f"{value:.1f}", bold=True)
    named_rows(axes, [start[0], *(step.label for step in steps), end[0]], width=34)
    axes.set_xlabel(plain(unit, 40))
    return figure


def _step_bar(axes: Axes, row: int, step: Step, before: float) -> None:
    lost = step.value < 0
    axes.barh(
        row,
        step.value,
        left=before,
        height=0.56,
        facecolor=(INK, 0.45) if lost else "none",
        edgecolor=INK,
        hatch=None if lost else "////",
        linewidth=0.8,
    )
    ends = [before, before + step.value, before + step.low, before + step.high]
    right = max(value for value in ends if math.isfinite(value))
    _written(axes, row, right, f"{step.value:+.1f}".replace("-", "\N{MINUS SIGN}"))


def _written(axes: Axes, row: int, at: float, text: str, *, bold: bool = False) -> None:
    axes.annotate(
        text,
        (at, row),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        fontweight="bold" if bold else "normal",
    )


@house_style()
def recall_by_class(rows: Mapping[str, tuple[Interval | None, Interval | None]]) -> Figure:
    """Recall of each class on validation images (filled) and on test images (open)."""
    usable = {
        name: (_finite_or_none(val), _finite_or_none(test)) for name, (val, test) in rows.items()
    }
    usable = {name: pair for name, pair in usable.items() if any(pair)}
    require(usable, "classes with a finite recall")
    figure = new_figure(1.2 + 0.4 * len(usable))
    axes = figure.subplots()
    for row, (val, test) in enumerate(usable.values()):
        if val and test:
            ends = [PERCENT * val.value, PERCENT * test.value]
            axes.plot(ends, [row - 0.14, row + 0.14], color=INK, linewidth=2.4, alpha=0.35)
        for found, at, face in ((val, row - 0.14, INK), (test, row + 0.14, "none")):
            if found:
                low, high = [PERCENT * found.low], [PERCENT * found.high]
                whiskers(axes, [at], low, high, horizontal=True, linewidth=1, alpha=0.7)
                axes.plot(
                    PERCENT * found.value, at, "o", color=INK, markerfacecolor=face, markersize=6.5
                )
    named_rows(axes, list(usable))
    within_bounds(axes.xaxis, metric_axis("accuracy"))
    axes.set_xlabel("recall (% of the images of the class)")

    legend(
        figure,
        [
            handle("validation", **DOT, markersize=6.5),
            handle("test", **DOT, markersize=6.5, markerfacecolor="none"),
            handle("interval", color=INK, linewidth=1),
        ],
    )
    return figure


def _finite_or_none(found: Interval | None) -> Interval | None:
    return found if found is not None and finite(found.value) else None
