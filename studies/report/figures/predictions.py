"""Figures of predictions: confusion matrices, ROC curves, calibration.

Knows values to be drawn, no study. Every function returns a figure for `drawing.to_svg` and
`drawing.save`, and raises ValueError where there is nothing to draw.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from studies.document.drawing import INK, Look, house_style, look_of, new_figure, plain
from studies.report.figures.axes import (
    PERCENT,
    finite,
    handle,
    legend,
    require,
    shared_label,
    strategies_in,
)
from studies.statistics.calibration import ReliabilityCurve

Floats = NDArray[np.float64]
Matrix = tuple[Sequence[Sequence[float]], Sequence[str]]

MOST_SIDE_BY_SIDE = 6  # More classes than that, and matrices stand one below the other.
MOST_WRITTEN = 12  # Of more classes only the shares are shown: numbers would not fit.
# The darkest grey on which text of the page's colour can still be read, dark on light or not.
DARKEST = 0.4
SHARES = np.linspace(0, 1, 101)


@house_style()
def confusion_matrices(matrices: Mapping[str, Matrix]) -> Figure:
    """True classes in rows, predicted ones in columns: images written, shares of the row as grey.

    Raises:
        ValueError: nothing to draw; counts that are not square with a row for each class.
    """
    usable = {
        title: (np.asarray(counts, dtype=float), classes)
        for title, (counts, classes) in matrices.items()
        if len(classes)
    }
    require(usable, "confusion matrices with a class")
    for counts, classes in usable.values():
        if counts.shape != (len(classes), len(classes)):
            raise ValueError(
                f"`counts.shape == {(len(classes), len(classes))}` must hold for "
                f"{len(classes)} classes, but got {counts.shape}."
            )
    most = max(len(classes) for _, classes in usable.values())
    columns = 1 if most > MOST_SIDE_BY_SIDE else min(2, len(usable))
    rows = math.ceil(len(usable) / columns)
    figure = new_figure(rows * min(9, max(2.2, 1.3 + 0.3 * most)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, (counts, classes)) in zip(grid.flat, usable.items(), strict=False):
        _matrix(axes, counts, [plain(name, 14) for name in classes])
        # To the right: a long one goes above the names of the classes.
        wide = 36 if columns == 2 else 70
        axes.set_title(plain(title, wide), loc="right", fontsize=9)
    for axes in grid.flat[len(usable) :]:
        axes.set_visible(False)
    figure.supxlabel("predicted class (images; grey: share of the true class)", fontsize=10)
    shared_label(figure, "true class")
    return figure


def _matrix(axes: Axes, counts_CC: Floats, names: Sequence[str]) -> None:
    num_classes = len(names)
    size = min(9.0, 400 / num_classes)
    totals_C = np.nansum(counts_CC, axis=1)
    for (row, column), count in np.ndenumerate(counts_CC):
        if not finite(count) or (count == 0 and num_classes > MOST_WRITTEN):
            continue
        share = count / totals_C[row] if totals_C[row] > 0 else 0.0
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=(INK, DARKEST * share))
        cell.set_linewidth(0)
        axes.add_patch(cell)
        if num_classes <= MOST_WRITTEN:
            written = f"{count:.1f}" if count != round(count) and count < 100 else f"{count:.0f}"
            axes.text(column, row, written, ha="center", va="center_baseline", fontsize=9)
    steep = sum(map(len, names)) > 24
    axes.set_xticks(
        range(num_classes),
        names,
        rotation=40 if steep else 0,
        ha="right" if steep else "center",
        rotation_mode="anchor",
        fontsize=size,
    )
    axes.set_yticks(range(num_classes), names, fontsize=size)
    axes.set_xlim(-0.5, num_classes - 0.5)
    axes.set_ylim(num_classes - 0.5, -0.5)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(True)


@house_style()
def roc_curves(curves: Mapping[str, Sequence[tuple[Floats, Floats]]]) -> Figure:
    """ROC of each strategy: seeds faint, their mean at each false positive rate bold.

    ``curves`` has false and true positive rates of each seed, both rising from 0 to 1.
    """
    usable = {
        strategy: kept
        for strategy, pairs in curves.items()
        if (kept := [pair for pair in pairs if np.size(pair) and finite(*np.ravel(pair))])
    }
    require(usable, "ROC curves")
    figure = new_figure(4.2)
    axes = figure.subplots()
    axes.plot([0, PERCENT], [0, PERCENT], color=INK, linestyle=":", linewidth=1)
    handles = [handle("chance", color=INK, linestyle=":", linewidth=1)]
    for strategy in strategies_in(usable):
        look, pairs = look_of(strategy), usable[strategy]
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.linestyle}
        means = np.mean([_at_shares(*pair) for pair in pairs], axis=0)
        if len(pairs) > 1:
            for pair in pairs:
                axes.plot(PERCENT * SHARES, PERCENT * _at_shares(*pair), alpha=0.35, lw=1, **style)
        axes.plot(PERCENT * SHARES, PERCENT * means, linewidth=2.2, **style)
        seeds = f"{len(pairs)} seeds" if len(pairs) > 1 else "1 seed"
        handles.append(handle(f"{look.label}, {seeds}", linewidth=2.2, **style))
    axes.set_xlim(-1, 101)
    axes.set_ylim(-1, 101)
    axes.set_xlabel("false positive rate (% of the negative images)")
    axes.set_ylabel("true positive rate (% of the positive)")
    legend(figure, handles)
    return figure


@house_style()
def calibration(panels: Mapping[str, Mapping[str, ReliabilityCurve]], *, foretold: str) -> Figure:
    """A panel each (before calibration, after): how often what is foretold comes true.

    A step of the curve is a marker, whose area is its number of images. The band is where the
    curve of probabilities that are right would lie, in 95 %. ``foretold`` says what the
    probability is of.
    """
    usable = {
        title: kept
        for title, curves in panels.items()
        if (kept := {name: curve for name, curve in curves.items() if len(curve.foretold_U)})
    }
    require(usable, "reliability curves with images")
    figure = new_figure(3.9)
    grid = figure.subplots(1, len(usable), sharey=True, squeeze=False)
    for axes, (title, curves) in zip(grid.flat, usable.items(), strict=True):
        axes.plot([0, PERCENT], [0, PERCENT], color=INK, linestyle=":", linewidth=1)
        for strategy in strategies_in(curves):
            _reliability(axes, curves[strategy], look_of(strategy))
        axes.set_title(plain(title, 36))
        axes.set_xlim(-4, 104)
        axes.set_ylim(-4, 104)
        axes.set_aspect("equal")
    figure.supxlabel(f"{plain(foretold, 50)} (%)", fontsize=10)
    shared_label(figure, "came true (% of the images)")
    handles = [handle("as foretold", color=INK, linestyle=":", linewidth=1)]
    first = {name: curve for curves in usable.values() for name, curve in curves.items()}
    for strategy in strategies_in(first):
        look, number = look_of(strategy), first[strategy].counts_U.sum()
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linewidth": 1.4}
        handles.append(handle(f"{look.label}, {number} images", **style))
    legend(figure, handles)
    return figure


def _reliability(axes: Axes, curve: ReliabilityCurve, look: Look) -> None:
    foretold_U, observed_U = PERCENT * curve.foretold_U, PERCENT * curve.observed_U
    axes.fill_between(
        foretold_U,
        PERCENT * curve.low_U,
        PERCENT * curve.high_U,
        color=look.colour,
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(foretold_U, observed_U, color=look.colour, linewidth=1.4)
    # Isotonic regression makes steps: what lies on one is one share of so many images.
    step_U = np.cumsum(np.diff(curve.observed_U, prepend=curve.observed_U[0]) > 1e-12)
    counts = np.bincount(step_U, curve.counts_U)
    axes.scatter(
        np.bincount(step_U, curve.counts_U * foretold_U) / counts,
        np.bincount(step_U, curve.counts_U * observed_U) / counts,
        s=8 + 120 * counts / counts.sum(),
        marker=look.marker,
        color=look.colour,
        alpha=0.8,
        linewidths=0,
    )


def _at_shares(false_positive: Floats, true_positive: Floats) -> Floats:
    """The true positive rate at every hundredth of the false positive rate.

    The curve goes straight from point to point, upwards where several have one false positive
    rate: of those the last counts there, and the first for what lies before.
    """
    known = np.asarray(false_positive, dtype=float)
    rates = np.asarray(true_positive, dtype=float)
    after = np.searchsorted(known, SHARES, side="right")
    left, right = after - 1, np.minimum(after, len(known) - 1)
    span = known[right] - known[left]
    part = np.divide(SHARES - known[left], span, out=np.zeros_like(SHARES), where=span > 0)
    rising: Floats = rates[left] + part * (rates[right] - rates[left])
    return rising
