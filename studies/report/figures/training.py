"""Figure of training: learning curves of trials and seeds.

Knows values to be drawn, no study. Every function returns a figure for `drawing.to_svg` and
`drawing.save`, and raises ValueError where there is nothing to draw.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from studies.document.drawing import INK, Look, house_style, look_of, new_figure
from studies.report.figures.axes import (
    MANY_MARKS,
    handle,
    legend,
    marks,
    metric_axis,
    require,
    within_bounds,
)

PARTS = (("train", "--"), ("val", "-"))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The metric on training and on validation images after epochs 1, 2, ...

    ``best_epoch`` is the one that was kept, which another value may have chosen.
    """

    train: Sequence[float]
    val: Sequence[float]
    best_epoch: int | None = None

    def of(self, part: str) -> Sequence[float]:
        return self.train if part == "train" else self.val

    @property
    def is_empty(self) -> bool:
        return not any(map(math.isfinite, itertools.chain(self.train, self.val)))


@house_style()
def learning_curves(
    curves: Sequence[Curve],
    best: Curve | None,
    seeds: Sequence[Curve],
    *,
    metric: str,
    strategy: str,
    best_name: str = "best trial",
) -> Figure:
    """The metric by epoch: all trials faint, the best bold, its repetitions over seeds as a band.

    The band goes from the lowest to the highest seed, with their mean, up to the last epoch that
    all of them reached. ``best_name`` is what the legend calls the bold one.
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
    _mark_kept_epoch(axes, bold, metric, look)
    axes.autoscale_view()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    within_bounds(axes.yaxis, shown)
    axes.set_xlabel("epoch (number)")
    axes.set_ylabel(shown.label)
    legend(figure, _curve_handles(look, bool(usable), best_name if bold else "", len(repeated)))
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


def _mark_kept_epoch(axes: Axes, bold: Sequence[Curve], metric: str, look: Look) -> None:
    shown = metric_axis(metric)
    for curve in bold:
        if curve.best_epoch is None or curve.best_epoch > len(curve.val):
            continue
        value = curve.val[curve.best_epoch - 1]
        if math.isfinite(value):
            marks(axes, [curve.best_epoch], [shown.factor * value], look, size=9, alpha=1)


def _curve_handles(look: Look, trials: bool, best: str, num_seeds: int) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        handle(part, color=INK, linestyle=linestyle, linewidth=1) for part, linestyle in PARTS
    ]
    if best:
        handles.append(handle(best, color=look.colour, linewidth=2.4, marker=look.marker))
    if trials:
        handles.append(handle("all trials", color=look.colour, linewidth=0.8))
    if num_seeds:
        label = f"{num_seeds} seeds (range)" if num_seeds > 1 else "1 seed"
        handles.append(Patch(facecolor=INK, alpha=0.16, linewidth=0, label=label))
    return handles
