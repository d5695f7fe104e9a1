"""Figures for the dashboard's page of a study, which its own plotly.js draws.

Knows records, no storage. Plotly takes text for HTML, and names come from outside: all that is
shown of them goes through `_text`. Numbers have four digits, so that a thousand trials stay small.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from studies.database.trials import TrialRecord
from studies.document.drawing import INK, LOOKS, plain
from studies.document.numbers import seconds_text
from studies.report.figures.axes import PERCENT, finite, metric_axis, power_of_ten
from studies.results.comparison import seconds_saved

SHOWN_STATES = ("PRUNED", "COMPLETE")  # Later ones are drawn above earlier ones.
# Plotly's numbers of its symbols; names would be most of a figure's size. In this order circle,
# square, diamond, triangles up and down, cross, x, star, pentagon, hourglass, bowtie; a hexagram
# for all backbones after those with a symbol of their own.
SYMBOLS = (0, 1, 2, 5, 6, 3, 4, 17, 13, 25, 26)
OTHER_SYMBOL = 18
HOLLOW = 100  # Added to a symbol's number.
MANY_TRIALS = 100
MOST_TICKS = 12
LOG_FROM = 10  # Seconds of which the most are so many times the least get a logarithmic axis.
GREY, PALE = "#767676", "#E5E5E5"

Records = Sequence[TrialRecord]


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """A trial as a point, in the units of its axes."""

    record: TrialRecord
    x: float
    y: float


def seconds_plot(records: Records, metric: str) -> go.Figure:
    """Seconds of each complete or pruned trial against its metric at the best epoch."""
    marks = _marks(records, metric, lambda record: record.seconds)
    axis = {"title": "time of the trial (s)", **_seconds_axis([mark.x for mark in marks])}
    return _scatter(records, marks, metric, "time", axis)


def layers_plot(records: Records, metric: str) -> go.Figure:
    """Unfrozen layers of each complete or pruned trial against its metric at the best epoch."""
    marks = _marks(records, metric, lambda record: record.params.get("num_unfrozen_layers"))
    most = max((mark.x for mark in marks), default=0)
    axis = {
        "title": "num_unfrozen_layers (layers; 0 is feature extraction)",
        "range": [-0.5, most + 0.5],
        **_whole_numbers(most),
    }
    return _scatter(records, marks, metric, "unfrozen layers", axis)


def budget_plot(records: Records, epochs: int) -> go.Figure:
    """Time spent in trials, added up in the order of their ends, and what pruning has saved.

    The time saved is an upper bound: see `seconds_saved`.
    """
    counted = [record for record in records if record.counts]
    counted.sort(key=lambda record: (record.ended or datetime.max, record.number))
    spent = {
        look: [_seconds(r.seconds) if r.strategy == strategy else 0.0 for r in counted]
        for strategy, look in LOOKS.items()
    }
    saved = [_seconds(seconds_saved([record], epochs)) for record in counted]
    total, total_saved = sum(map(sum, spent.values())), sum(saved)
    figure = go.Figure()
    if not total:
        return figure
    unit = seconds_text(total + total_saved).rpartition(" ")[2]
    for look, own in spent.items():
        if any(own):
            figure.add_trace(_area(look.label, own, unit, look.colour))
    if total_saved:
        area = _area("saved by pruning", saved, unit, GREY)
        figure.add_trace(area.update(fillpattern={"shape": "/"}))
    kept = f"at most {seconds_text(total_saved)}" if total_saved else "nothing so far"
    trials = "1 trial" if len(counted) == 1 else f"{len(counted)} trials"
    subtitle = f"{seconds_text(total)} spent in {trials}; pruning saved {kept}"
    x_axis = {"title": "trials in the order of their ends", **_whole_numbers(len(counted))}
    y_axis = {"title": f"time, added up ({unit})", "rangemode": "tozero"}
    _lay_out(figure, "Time spent and saved", subtitle, x_axis, y_axis)
    return figure.update_layout(hovermode="x")


def _area(name: str, seconds: Sequence[float], unit: str, colour: str) -> go.Scatter:
    """A band as high as the sum so far, with a step for each trial."""
    unit_seconds = {"s": 1, "min": 60, "h": 3600}[unit]
    return go.Scatter(
        name=name,
        x0=0,
        dx=1,
        y=[_short(total / unit_seconds) for total in accumulate(seconds, initial=0.0)],
        mode="lines",
        line={"color": colour, "width": 1, "shape": "vh"},
        stackgroup="time",
        hovertemplate=f"{name}<br>after %{{x}} trials: %{{y:.1f}} {unit}<extra></extra>",
    )


def _seconds(value: float | None) -> float:
    return value if value is not None and finite(value) else 0.0


def _marks(
    records: Records, metric: str, x_of: Callable[[TrialRecord], float | None]
) -> list[_Mark]:
    """The trials that count and have both numbers, those to be drawn above others last."""
    factor = metric_axis(metric).factor
    marks = []
    for record in records:
        x, y = x_of(record), record.best["val"].get(metric) if record.best else None
        shown = record.counts and record.state in SHOWN_STATES and record.strategy in LOOKS
        if shown and x is not None and y is not None and finite(x, y):
            marks.append(_Mark(record=record, x=x, y=factor * y))
    return sorted(marks, key=lambda mark: SHOWN_STATES.index(mark.record.state))


def _scatter(
    records: Records,
    marks: Sequence[_Mark],
    metric: str,
    against: str,
    x_axis: Mapping[str, Any],
) -> go.Figure:
    """Points coloured by strategy, with a symbol for each backbone, pruned ones hollow."""
    figure = go.Figure()
    if not marks:
        return figure
    symbols = _symbols(marks)
    shown = metric_axis(f"validation {metric}")
    for strategy, look in LOOKS.items():
        own = [mark for mark in marks if mark.record.strategy == strategy]
        if own:
            entry = _entry(look.label, mode="lines", line={"color": look.colour, "width": 8})
            figure.add_trace(entry.update(legendgroup=strategy))
            points = _points(own, symbols, look.label, shown.label)
            size = 6 if len(marks) > MANY_TRIALS else 9
            points.marker.update(color=look.colour, size=size, opacity=0.75)
            figure.add_trace(points.update(legendgroup=strategy))
    entries = {name: symbol for name, symbol in symbols.items() if symbol != OTHER_SYMBOL}
    if num_others := len(symbols) - len(entries):
        entries[f"{num_others} other backbone{'s' * (num_others > 1)}"] = OTHER_SYMBOL
    for name, symbol in entries.items():
        marker = {"color": INK, "symbol": symbol, "size": 9}
        entry = _entry(_text(name, 24), mode="markers", marker=marker)
        figure.add_trace(entry.update(legend="legend2"))
    title = f"Validation {_text(metric)} against {against}"
    y_axis: dict[str, Any] = {"title": _text(shown.label)}
    if shown.factor == PERCENT:  # No tick above it where all values are 100 %.
        y_axis["autorangeoptions"] = {"clipmax": 100.4}
    _lay_out(figure, title, _shown_trials(records, marks), x_axis, y_axis)
    return figure


def _symbols(marks: Sequence[_Mark]) -> dict[str, int]:
    """A symbol for each backbone by its first trial: it stays as later trials are added."""
    by_number = sorted((mark.record for mark in marks), key=lambda record: record.number)
    backbones = list(dict.fromkeys(str(record.params["backbone"]) for record in by_number))
    own = dict(zip(backbones, SYMBOLS, strict=False))
    return {backbone: own.get(backbone, OTHER_SYMBOL) for backbone in backbones}


def _shown_trials(records: Records, marks: Sequence[_Mark]) -> str:
    """How many trials are shown, what hollow means, and how many are not shown."""
    num_pruned = sum(mark.record.state == "PRUNED" for mark in marks)
    num_hidden = sum(record.counts for record in records) - len(marks)
    parts = [
        f"{len(marks) - num_pruned} complete",
        f"{num_pruned} pruned (hollow)" if num_pruned else "",
        f"{num_hidden} without a value (not shown)" if num_hidden else "",
    ]
    return f"trials at their best epoch: {', '.join(filter(None, parts))}"


def _points(
    marks: Sequence[_Mark], symbols: Mapping[str, int], label: str, y_label: str
) -> go.Scatter:
    """The trials of one strategy. A row of ``customdata`` fills the template of their hover."""
    fields = list(dict.fromkeys(key for mark in marks for key in mark.record.params))
    fields.remove("strategy")
    rows = [
        [
            mark.record.number,
            mark.record.state.lower(),
            "-" if mark.record.seconds is None else seconds_text(mark.record.seconds),
            *(_value(mark.record.params.get(field)) for field in fields),
        ]
        for mark in marks
    ]
    lines = [f"trial %{{customdata[0]}}, {label}, %{{customdata[1]}}"]
    lines.append(f"{_text(y_label)}: %{{y}}<br>time: %{{customdata[2]}}")
    lines += [f"{_text(field)}: %{{customdata[{i}]}}" for i, field in enumerate(fields, 3)]
    return go.Scatter(
        x=[_short(mark.x) for mark in marks],
        y=[_short(mark.y) for mark in marks],
        customdata=rows,
        mode="markers",
        marker={"symbol": [_symbol(mark.record, symbols) for mark in marks]},
        cliponaxis=False,
        showlegend=False,
        hovertemplate="<br>".join(lines) + "<extra></extra>",
    )


def _symbol(record: TrialRecord, symbols: Mapping[str, int]) -> int:
    solid = symbols[str(record.params["backbone"])]
    return solid + HOLLOW if record.state == "PRUNED" else solid


def _entry(name: str, **style: Any) -> go.Scatter:
    """A line of the legend and no point."""
    return go.Scatter(x=[None], y=[None], name=name, **style)


def _seconds_axis(seconds: Sequence[float]) -> dict[str, Any]:
    """Plain numbers at the ticks; logarithmic where values span a lot."""
    if not seconds or min(seconds) <= 0 or max(seconds) < LOG_FROM * min(seconds):
        return {"rangemode": "tozero"}
    low, high = math.log10(min(seconds)), math.log10(max(seconds))
    digits = (1, 2, 5) if high - low < 2 else (1, 3) if high - low < 3 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [_short(digit * 10.0**power) for power in powers for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [power_of_ten(tick) for tick in ticks]}


def _whole_numbers(most: float) -> dict[str, Any]:
    """Ticks at whole numbers alone, from 0 to ``most``."""
    return {"dtick": 1} if most <= MOST_TICKS else {"nticks": MOST_TICKS}


def _lay_out(
    figure: go.Figure,
    title: str,
    subtitle: str,
    x_axis: Mapping[str, Any],
    y_axis: Mapping[str, Any],
) -> None:
    """Draw on white, whatever the page's colours; one legend above, another at the right."""
    axis = dict(gridcolor=PALE, zeroline=False, linecolor=INK, ticks="outside", automargin=True)
    below = {"text": subtitle, "font": {"size": 12}}
    place = {"x": 0.02, "y": 0.97, "yanchor": "top"}
    figure.update_layout(
        template="none",
        title={"text": title, "font": {"size": 16}, "subtitle": below, **place},
        font={"family": "sans-serif", "size": 12, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 60, "r": 20, "t": 100, "b": 50},
        xaxis={**axis, **x_axis},
        yaxis={**axis, **y_axis},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        legend2={"x": 1.02, "y": 1, "itemclick": False, "itemdoubleclick": False},
        hoverlabel={"align": "left", "bgcolor": "white"},
        showlegend=True,
        uirevision=True,
    )


def _value(value: object) -> float | str:
    if isinstance(value, float) and finite(value):
        return _short(value)
    return "-" if value is None else _text(value)


def _short(value: float) -> float:
    """Four digits, and an integer where it is one: more can't be seen."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def _text(text: object, width: int = 40) -> str:
    """A text that plotly shows as it is. It knows no ``&quot;``, and quotes do no harm there."""
    return html.escape(plain(text, width), quote=False)


# By their ids; each is made of the trials, the metric, and how many epochs a trial may run. One
# that has nothing to show has no data.
PLOTS: Mapping[str, Callable[[Records, str, int], go.Figure]] = {
    "metric-against-seconds": lambda records, metric, _: seconds_plot(records, metric),
    "unfrozen-layers-against-metric": lambda records, metric, _: layers_plot(records, metric),
    "budget-spent-and-saved": lambda records, _, epochs: budget_plot(records, epochs),
}
