"""Figures of the search: what trials cost and what changed them.

Knows values to be drawn, no study. Every function returns a figure for `drawing.to_svg` and
`drawing.save`, and raises ValueError where there is nothing to draw.
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studies.document.drawing import INK, house_style, look_of, new_figure, plain
from studies.report.figures.axes import (
    MANY_MARKS,
    MetricAxis,
    finite,
    handle,
    label_points,
    legend,
    log_ticks,
    marks,
    metric_axis,
    named_rows,
    require,
    shared_label,
    strategies_in,
    strategy_handle,
    ticks_at,
    whiskers,
    within_bounds,
)

if TYPE_CHECKING:  # It needs Optuna, which drawing does not.
    from studies.statistics.importance import Importance

MOST_LABELS = 12
MOST_TICKS = 6  # A parameter of at most so many values gets a tick at each.
MARKERS = "osD^vP*Xhp<>"
LINESTYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """One configuration: seconds of training, its metric and the bounds of its interval.

    ``low`` and ``high`` are NaN where there is no interval.
    """

    label: str
    strategy: str
    seconds: float
    value: float
    low: float = math.nan
    high: float = math.nan


@house_style()
def accuracy_cost(points: Sequence[CostPoint], *, metric: str) -> Figure:
    """Seconds of training against the metric, with those named that none beats in both."""
    shown = metric_axis(metric)
    usable = [p for p in points if finite(p.seconds, p.value) and p.seconds > 0]
    require(usable, "points with a finite value and seconds > 0")
    figure = new_figure()
    axes = figure.subplots()
    faint = len(usable) > 60
    handles = []
    for strategy in strategies_in(p.strategy for p in usable):
        look, own = look_of(strategy), [p for p in usable if p.strategy == strategy]
        seconds = [p.seconds for p in own]
        low, high = ([shown.factor * b for b in bounds] for bounds in _bounds(own))
        whiskers(axes, seconds, low, high, colour=look.colour, alpha=0.25 if faint else 0.8)
        values = [shown.factor * p.value for p in own]
        marks(axes, seconds, values, look, size=4 if faint else 7, alpha=0.5 if faint else 1)
        handles.append(strategy_handle(strategy))
    front = undominated(usable, shown)
    stairs = _stairs([(p.seconds, shown.factor * p.value) for p in front])
    axes.plot(*zip(*stairs, strict=True), color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.margins(0.12, 0.1)
    log_ticks(axes.xaxis, [p.seconds for p in usable])
    within_bounds(axes.yaxis, shown)
    axes.set_xlabel("time of training (s)")
    axes.set_ylabel(shown.label)
    handles.append(handle("best for its time", color=INK, linewidth=1, linestyle=":"))
    legend(figure, handles)
    named = usable if len(usable) <= MOST_LABELS else front[:MOST_LABELS]
    label_points(
        figure,
        axes,
        [(p.seconds, shown.factor * p.value, plain(p.label, 20)) for p in named],
        [(p.seconds, shown.factor * p.value) for p in (named if faint else usable)] + stairs,
    )
    return figure


def _stairs(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a line that goes from corner to corner, first to the right and then up."""
    line = [corners[0]]
    for (x, y), (right, up) in itertools.pairwise(corners):
        line += [(float(between), y) for between in np.geomspace(x, right, 40)]
        line.append((right, up))
    return line


def undominated(points: Sequence[CostPoint], shown: MetricAxis) -> list[CostPoint]:
    """The points that no other beats both in seconds and in value, the quickest first."""
    sign = 1 if shown.larger_is_better else -1
    front: list[CostPoint] = []
    for point in sorted(points, key=lambda p: (p.seconds, -sign * p.value)):
        if not front or sign * point.value > sign * front[-1].value:
            front.append(point)
    return front


@house_style()
def slices(
    parameters: Mapping[str, Sequence[tuple[float | str, float]]],
    *,
    metric: str,
    strategy: str,
    log: Collection[str],
) -> Figure:
    """A panel for each hyperparameter: its value in every trial against the metric.

    ``parameters`` has pairs of value and metric. Those in ``log`` get a logarithmic axis. Words
    stand side by side, spread at random, always alike.
    """
    shown, look = metric_axis(metric), look_of(strategy)
    panels = {
        name: usable for name, pairs in parameters.items() if (usable := _usable_pairs(pairs))
    }
    require(panels, "parameters with a finite value of the metric")
    columns = min(len(panels), 2 if len(panels) <= 4 else 3)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(max(2.6, 2.0 * rows))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    many = sum(map(len, panels.values())) > MANY_MARKS
    for axes, (name, pairs) in zip(grid.flat, panels.items(), strict=False):
        places = _places(axes, [value for value, _ in pairs], log=name in log)
        values = [shown.factor * value for _, value in pairs]
        alpha = 0.7 if len(pairs) <= 100 else 0.3
        marks(axes, places, values, look, size=4, alpha=alpha, rasterized=many)
        axes.set_xlabel(plain(name, 30 if columns < 3 else 20))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    within_bounds(grid[0, 0].yaxis, shown)
    shared_label(figure, shown.label)
    return figure


def _usable_pairs(
    pairs: Sequence[tuple[float | str, float]],
) -> list[tuple[float | str, float]]:
    return [
        (value, result)
        for value, result in pairs
        if finite(result) and (isinstance(value, str) or finite(value))
    ]


def _places(axes: Axes, values: Sequence[float | str], *, log: bool) -> list[float]:
    """Where values stand on the x axis, which gets its scale and ticks."""
    numbers = [float(value) for value in values if not isinstance(value, str | bool)]
    if len(numbers) < len(values):
        return _strip(axes, [plain(value, 16) for value in values])
    if log and min(numbers) > 0:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, numbers)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if len(set(numbers)) <= MOST_TICKS and all(n == round(n, 3) for n in numbers):
        ticks_at(axes.xaxis, sorted(set(numbers)))
    return numbers


def _strip(axes: Axes, words: Sequence[str]) -> list[float]:
    choices = sorted(set(words))
    steep = 0 if sum(map(len, choices)) <= 20 else 25 if len(choices) <= 5 else 60
    axes.set_xticks(
        range(len(choices)),
        choices,
        rotation=steep,
        ha="right" if steep else "center",
        rotation_mode="anchor",
    )
    axes.set_xlim(-0.5, len(choices) - 0.5)
    axes.grid(False, axis="x")
    spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(words))
    return [choices.index(word) + float(by) for word, by in zip(words, spread, strict=True)]


@house_style()
def importance(values: "Mapping[str, Importance]", *, strategy: str) -> Figure:
    """How far the best trials differ from all in each hyperparameter, the most first.

    A line across each bar is what chance reaches; what stays below it is pale.
    """
    look = look_of(strategy)
    usable = {name: each for name, each in values.items() if finite(each.value, each.by_chance)}
    require(usable, "hyperparameters with a finite importance")
    names = sorted(usable, key=lambda name: -usable[name].value)
    figure = new_figure(1.3 + 0.32 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        each = usable[name]
        alpha = 1.0 if each.is_shown else 0.35
        axes.barh(row, each.value, height=0.6, color=look.colour, alpha=alpha)
        ends = [row - 0.38, row + 0.38]
        axes.plot([each.by_chance] * 2, ends, color=INK, linewidth=1.6, zorder=3)
    named_rows(axes, names)
    axes.set_xlim(left=0)
    axes.set_xlabel("importance (PED-ANOVA)")
    legend(figure, [handle("by chance, at most in 95 %", color=INK, linewidth=1.6)])
    return figure


@house_style()
def unfrozen_layers(points: Sequence[tuple[str, int, float]], *, metric: str) -> Figure:
    """How far to fine-tune: trials by backbone and unfrozen layers, a line through the best.

    No unfrozen layer is feature extraction, and coloured so.
    """
    shown = metric_axis(metric)
    usable = [(name, layers, shown.factor * v) for name, layers, v in points if finite(v)]
    require(usable, "points with a finite value")
    backbones = list(dict.fromkeys(name for name, _, _ in usable))
    figure = new_figure()
    axes = figure.subplots()
    handles = []
    for i, backbone in enumerate(backbones):
        own = [(layers, value) for name, layers, value in usable if name == backbone]
        marker, linestyle = MARKERS[i % len(MARKERS)], LINESTYLES[i % len(LINESTYLES)]
        by_layers = {k: [v for layers, v in own if layers == k] for k, _ in sorted(own)}
        best = [shown.best(values) for values in by_layers.values()]
        axes.plot(list(by_layers), best, color=INK, linestyle=linestyle, linewidth=1, alpha=0.7)
        for strategy, pairs in (
            ("feature_extraction", [pair for pair in own if pair[0] == 0]),
            ("fine_tuning", [pair for pair in own if pair[0] > 0]),
        ):
            look = look_of(strategy)
            axes.plot(
                [k for k, _ in pairs],
                [value for _, value in pairs],
                linestyle="none",
                marker=marker,
                color=look.colour,
                markersize=6,
                alpha=0.8,
                rasterized=len(usable) > MANY_MARKS,
            )
        handles.append(
            handle(plain(backbone, 24), color=INK, marker=marker, linestyle=linestyle, linewidth=1)
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    within_bounds(axes.yaxis, shown)
    axes.set_xlabel("num_unfrozen_layers (layers; 0 is feature extraction)")
    axes.set_ylabel(shown.label)
    legend(figure, handles)
    return figure


def _bounds(points: Sequence[CostPoint]) -> tuple[list[float], list[float]]:
    return [p.low for p in points], [p.high for p in points]
