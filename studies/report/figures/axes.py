"""What several figures share: axes with units, intervals, legends, labels beside points.

Knows the metrics, no study.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from studies.document.drawing import INK, LOOKS, WIDTH_INCHES, Look, look_of, plain
from studies.statistics.metrics import METRICS

PERCENT = 100.0
# Width of a letter as a share of the font's size: DejaVu Sans is wider than most pages' fonts.
LETTER = 0.6
LINE = 1.25  # the height of a line, of the size of its letters
MANY_MARKS = 1500  # More would make an SVG of hundreds of kB: they become an image in it.
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Where a name may stand beside its point: shares of its width to the right, of its height upwards.
PLACES = ((1, -1), (-1, 1), (1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1.3), (0, -1.3))


@dataclass(frozen=True, kw_only=True)
class MetricAxis:
    """How a metric is shown: ``label`` with its unit, values times ``factor``."""

    label: str
    factor: float
    larger_is_better: bool

    def best(self, values: Iterable[float]) -> float:
        """The best of one or more values."""
        return max(values) if self.larger_is_better else min(values)


def metric_axis(metric: str) -> MetricAxis:
    """Metrics in [0, 1] in per cent, loss in nats an image, those unknown as they are.

    ``metric`` may say on which images: "validation accuracy".
    """
    score = METRICS.get(metric.rpartition(" ")[2])
    if score is None:
        return MetricAxis(label=plain(metric, 40), factor=1, larger_is_better=True)
    unit = "%" if score.bounded else "nats an image"
    return MetricAxis(
        label=f"{metric} ({unit})",
        factor=PERCENT if score.bounded else 1,
        larger_is_better=score.larger_is_better,
    )


def finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def require(found: Collection[object], what: str) -> None:
    """A figure of nothing is not drawn.

    Raises:
        ValueError: nothing was found.
    """
    if not found:
        raise ValueError(f"`1 or more {what}` must hold for this figure, but got none.")


def strategies_in(names: Iterable[str]) -> list[str]:
    """The strategies among the names, each once, always in the same order.

    Raises:
        ValueError: a name is no strategy.
    """
    found = set(names)
    for name in sorted(found):
        look_of(name)
    return [strategy for strategy in LOOKS if strategy in found]


def whiskers(
    axes: Axes,
    at: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    horizontal: bool = False,
    colour: str = INK,
    linewidth: float = 1.2,
    alpha: float = 1.0,
) -> None:
    """Draw intervals from ``low`` to ``high``; where a bound is NaN there is none."""
    gap = [math.nan] * len(at)
    along = np.column_stack((low, high, gap)).ravel()
    across = np.column_stack((at, at, gap)).ravel()
    axes.plot(
        *((along, across) if horizontal else (across, along)),
        color=colour,
        linewidth=linewidth,
        alpha=alpha,
        zorder=1.8,
    )


def marks(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    look: Look,
    *,
    size: float,
    alpha: float,
    rasterized: bool = False,
) -> None:
    """Draw points of a strategy."""
    axes.plot(
        xs,
        ys,
        linestyle="none",
        marker=look.marker,
        markersize=size,
        color=look.colour,
        markeredgewidth=0,
        alpha=alpha,
        rasterized=rasterized,
    )


def within_bounds(axis: Axis, shown: MetricAxis) -> None:
    """Leave out of an axis in per cent what lies below 0 and above 100."""
    if shown.factor == PERCENT:
        low, high = axis.get_view_interval()
        margin = 0.02 * (min(high, 100) - max(low, 0))
        low, high = max(low, -margin), min(high, 100 + margin)
        if isinstance(axis, XAxis):
            axis.axes.set_xlim(low, high)
        else:
            axis.axes.set_ylim(low, high)


def power_of_ten(value: float) -> str:
    """0.01, 0.1, 1, 200, else 10⁻⁵ or 2·10⁻⁵, without mathtext."""
    if 0.01 <= value < 100_000:
        return f"{value:g}"
    digits, _, exponent = f"{value:.0e}".partition("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if digits == "1" else f"{digits}·{power}"


def log_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Ticks at powers of ten; between them too where there are few powers of ten."""
    decades = math.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axis.set_minor_formatter(NullFormatter())
    if decades == 0:  # Of one value matplotlib shows two decades with it at an end.
        axis.set_view_interval(values[0] / 3, values[0] * 3, ignore=True)


def ticks_at(axis: Axis, values: Sequence[float]) -> None:
    """A tick at each of a few values and nowhere else."""
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def named_rows(axes: Axes, names: Sequence[str], width: int = 28) -> None:
    """Rows from top to bottom at 0, 1, ..., each with its name."""
    axes.set_yticks(range(len(names)), [plain(name, width) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def shared_label(figure: Figure, text: str) -> None:
    """The label of the y axes of all panels; anchored, so that it fits in any page's font."""
    figure.supylabel(text, fontsize=10, rotation_mode="anchor", ha="center", va="top")


def legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    """Above the axes, in as many columns as fit."""
    lengths = [len(str(handle.get_label())) for handle in handles]

    def fit(columns: int) -> bool:
        widest = sum(max(part) for part in np.array_split(lengths, columns))
        return 9 * (LETTER * float(widest) + 5 * columns) <= 72 * WIDTH_INCHES

    columns = next(filter(fit, range(len(handles), 1, -1)), 1)
    figure.legend(handles=list(handles), loc="outside upper left", ncols=columns)


def handle(label: str, **style: Any) -> Line2D:
    """A line or a point as it looks, for a legend."""
    return Line2D([], [], label=label, **style)


def strategy_handle(strategy: str) -> Line2D:
    """How a strategy's points look, for a legend."""
    look = look_of(strategy)
    return handle(look.label, linestyle="none", marker=look.marker, color=look.colour)


def label_points(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    taken: Sequence[tuple[float, float]],
) -> None:
    """Write names beside points where they cover neither others nor what is taken, or not at all.

    ``taken`` has points, those of lines too, to be kept free. Data coordinates, final limits.
    """
    figure.draw_without_rendering()
    pixels = figure.dpi / 72
    size, frame = 8.5, axes.get_window_extent()
    boxes = [
        (x - 3 * pixels, y - 3 * pixels, x + 3 * pixels, y + 3 * pixels)
        for x, y in axes.transData.transform(list(taken))
    ]
    for x, y, text in labels:
        px, py = axes.transData.transform((x, y))
        width, height = LETTER * size * len(text) * pixels, LINE * size * pixels
        for right, up in PLACES:
            cx, cy = px + right * (width / 2 + 7 * pixels), py + up * height
            box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1]
            if inside and box[3] <= frame.y1 and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                offset = ((cx - px) / pixels, (cy - py) / pixels)
                axes.annotate(
                    text,
                    (x, y),
                    offset,
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=size,
                )
                break


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]
