"""Figures for the dashboard: every trial where its numbers put it, names harmless, little JSON."""

import json
import math
import random
import re
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from optuna_dashboard._custom_plot_data import is_valid_graph_object_id
from paths import ROOT

from studies.dashboard.plots import (
    HOLLOW,
    OTHER_SYMBOL,
    PLOTS,
    SYMBOLS,
    budget_plot,
    layers_plot,
    seconds_plot,
)
from studies.database.trials import TrialRecord
from studies.document.drawing import LOOKS
from studies.document.numbers import seconds_text
from studies.results.comparison import seconds_saved

PROBE, TUNED = "feature_extraction", "fine_tuning"
START = datetime(2026, 1, 1)
SCATTERS = (seconds_plot, layers_plot)


def plots(records, metric, epochs):
    """Figures that have something to show."""
    figures = {name: draw(records, metric, epochs) for name, draw in PLOTS.items()}
    return {name: figure for name, figure in figures.items() if figure.data}


def record(number, strategy=PROBE, value=0.8, *, backbone="resnet18", layers=3, **changes):
    params = {"backbone": backbone, "strategy": strategy, "batch_size": 32}
    if strategy == TUNED:
        params["num_unfrozen_layers"] = layers
    epochs = changes.pop("epochs", 2)
    val = {"accuracy": value, "loss": value}
    fields = {
        "number": number,
        "state": "COMPLETE",
        "value": value,
        "worker": None,
        "logical_number": number,
        "keyed_params": {**params, **changes.pop("params", {})},
        "values": {},
        "config": {},
        "history": [{"epoch": i + 1, "train": val, "val": val} for i in range(epochs)],
        "best_epoch": epochs or None,
        "seconds": 10.0,
        "timing": {"training": 6.0, "validation": 2.0},
        "peak_memory_bytes": None,
        "micro_batch_size": None,
        "batch_norm_trains": None,
        "cache": {},
        "num_trainable_parameters": None,
        "reason": None,
        "duplicate_of": None,
        "predictions": None,
        "started": START,
        "ended": START + timedelta(seconds=number),
    }
    return TrialRecord(**{**fields, **changes})


def failed(number, **changes):
    return record(number, state="FAIL", epochs=0, value=None, **changes)


def drawn(figure):
    """What the dashboard is given; refuses what no browser would read."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(figure.to_json(), parse_constant=refuse)


def points(figure):
    """Number of each trial that is shown -> x, y, colour and symbol."""
    return {
        row[0]: (x, y, trace["marker"]["color"], symbol)
        for trace in drawn(figure)["data"]
        if "customdata" in trace
        for row, x, y, symbol in zip(
            trace["customdata"], trace["x"], trace["y"], trace["marker"]["symbol"], strict=True
        )
    }


def entries(figure):
    """Lines of the legends in their order."""
    return [trace["name"] for trace in drawn(figure)["data"] if trace.get("showlegend", True)]


def hovers(figure):
    """Number of each trial that is shown -> what is said of it."""
    return {
        row[0]: re.sub(
            r"%{customdata\[(\d+)\]}",
            lambda match, row=row: str(row[int(match[1])]),
            trace["hovertemplate"],
        )
        for trace in drawn(figure)["data"]
        for row in trace.get("customdata", [])
    }


def subtitle(figure):
    return drawn(figure)["layout"]["title"]["subtitle"]["text"]


def search(num_trials, *, backbones=4, seed=0):
    """A search of all that can be searched."""
    draw = random.Random(seed)

    def one(number):
        state = draw.choice(["COMPLETE", "COMPLETE", "PRUNED"])
        params = {f"a_hyperparameter_{i}": draw.uniform(1e-4, 1) for i in range(11)}
        return record(
            number,
            draw.choice([PROBE, TUNED]),
            draw.uniform(0.5, 1),
            backbone=f"timm:backbone_{draw.randrange(backbones)}",
            layers=draw.randint(1, 18),
            state=state,
            seconds=draw.uniform(1, 5000),
            params=params,
        )

    return [one(number) for number in range(num_trials)]


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_a_study_without_a_trial_has_no_figure(metric):
    assert plots([], metric, 5) == {}
    waiting = record(0, state="RUNNING", epochs=0, seconds=None)
    assert plots([waiting], metric, 5) == {}


def test_a_study_that_only_failed_shows_its_time_alone():
    assert set(plots([failed(0)], "accuracy", 5)) == {"budget-spent-and-saved"}


def test_the_dashboard_takes_the_ids():
    ids = list(plots([record(0)], "accuracy", 5))
    assert len(ids) == 3
    assert all(map(is_valid_graph_object_id, ids))


def test_a_trial_stands_at_its_seconds_and_its_metric_in_the_colour_of_its_strategy():
    records = [record(0, PROBE, 0.8125, seconds=12.34), record(1, TUNED, 0.9, seconds=56.0)]
    found = points(seconds_plot(records, "accuracy"))
    assert found[0][:3] == (12.34, 81.25, LOOKS[PROBE].colour)
    assert found[1][:3] == (56, 90, LOOKS[TUNED].colour)


def test_a_trial_stands_at_its_unfrozen_layers_and_feature_extraction_at_0():
    figure = layers_plot([record(0, PROBE), record(1, TUNED, layers=7)], "accuracy")
    assert {number: found[0] for number, found in points(figure).items()} == {0: 0, 1: 7}
    assert drawn(figure)["layout"]["xaxis"]["dtick"] == 1


def test_the_value_is_that_of_the_best_epoch():
    history = [{"val": {"accuracy": value}} for value in (0.7, 0.9, 0.8)]
    found = points(seconds_plot([record(0, history=history, best_epoch=2)], "accuracy"))
    assert found[0][1] == 90


@pytest.mark.parametrize(("metric", "most"), [("accuracy", 100.4), ("loss", None)])
def test_an_axis_in_per_cent_ends_at_100(metric, most):
    axis = drawn(seconds_plot([record(0, value=1.0)], metric))["layout"]["yaxis"]
    assert axis.get("autorangeoptions", {}).get("clipmax") == most


def test_a_loss_is_no_share():
    figure = seconds_plot([record(0, value=0.3219)], "loss")
    assert points(figure)[0][1] == 0.3219
    assert drawn(figure)["layout"]["yaxis"]["title"]["text"] == "validation loss (nats an image)"


@pytest.mark.parametrize("plot", SCATTERS)
def test_pruned_trials_are_hollow_and_said_to_be(plot):
    figure = plot([record(0), record(1, state="PRUNED")], "accuracy")
    found = points(figure)
    assert found[1][3] == found[0][3] + HOLLOW
    assert "1 complete, 1 pruned (hollow)" in subtitle(figure)
    assert "hollow" not in subtitle(plot([record(0)], "accuracy"))


@pytest.mark.parametrize("plot", SCATTERS)
@pytest.mark.parametrize(
    "other",
    [
        failed(1),
        record(1, state="FAIL"),
        record(1, state="RUNNING"),
        record(1, state="FAIL", reason="interrupted"),
        record(1, duplicate_of=0),
        record(1, value=math.nan),
        record(1, value=math.inf),
    ],
    ids=["failed", "failed late", "running", "interrupted", "duplicate", "nan", "inf"],
)
def test_what_has_no_result_is_left_out_and_counted_where_it_counts(plot, other):
    figure = plot([record(0), other], "accuracy")
    assert set(points(figure)) == {0}
    told = "trials at their best epoch: 1 complete"
    assert subtitle(figure) == told + ", 1 without a value (not shown)" * other.counts


def test_a_time_that_is_no_number_is_left_out():
    records = [record(0), record(1, seconds=math.nan), record(2, seconds=None)]
    figures = plots(records, "accuracy", 5)
    assert set(points(figures["metric-against-seconds"])) == {0}
    assert drawn(figures["budget-spent-and-saved"])["data"][0]["y"] == [0, 10, 10, 10]


def test_legends_have_a_line_for_each_strategy_and_each_backbone_not_for_each_pair():
    records = [
        record(2 * i + j, strategy, backbone=f"backbone_{i}")
        for i in range(11)
        for j, strategy in enumerate((PROBE, TUNED))
    ]
    figure = seconds_plot(records, "accuracy")
    looks = [LOOKS[strategy].label for strategy in (PROBE, TUNED)]
    assert entries(figure) == [*looks, *(f"backbone_{i}" for i in range(11))]
    assert len({symbol for *_, symbol in points(figure).values()}) == 11


def test_a_backbone_has_one_symbol_in_both_strategies_and_keeps_it_as_trials_are_added():
    records = [
        record(0, TUNED, backbone="resnet50"),
        record(1, PROBE, backbone="resnet18"),
        record(2, PROBE, backbone="resnet50"),
        record(3, PROBE, backbone="alexnet", state="PRUNED"),
    ]
    symbols = {n: found[3] for n, found in points(seconds_plot(records, "accuracy")).items()}
    assert symbols[0] == symbols[2] != symbols[1]
    before = {n: found[3] for n, found in points(seconds_plot(records[:2], "accuracy")).items()}
    assert before == {0: symbols[0], 1: symbols[1]}


@pytest.mark.parametrize(
    ("num_others", "told"), [(1, "1 other backbone"), (3, "3 other backbones")]
)
def test_more_backbones_than_symbols_share_one_that_says_so(num_others, told):
    num = len(SYMBOLS) + num_others
    records = [record(i, backbone=f"backbone_{i}") for i in range(num)]
    figure = layers_plot(records, "accuracy")
    assert entries(figure)[-1] == told
    symbols = [points(figure)[i][3] for i in range(num)]
    assert symbols == [*SYMBOLS, *[OTHER_SYMBOL] * num_others]


def test_a_point_tells_its_trial():
    tuned = record(7, TUNED, 0.9, layers=4, state="PRUNED", seconds=300.0)
    (said,) = hovers(seconds_plot([tuned], "accuracy")).values()
    assert said.startswith("trial 7, fine-tuning, pruned<br>validation accuracy (%): %{y}<br>")
    assert "time: 5.0 min" in said
    for told in ("backbone: resnet18", "batch_size: 32", "num_unfrozen_layers: 4"):
        assert told in said


def test_a_searched_integer_is_told_in_full_and_a_missing_one_as_missing():
    records = [record(0, params={"batch_size": 16385, "dropout": 0.123456}), record(1)]
    said = hovers(layers_plot(records, "accuracy"))
    assert "batch_size: 16385" in said[0]
    assert "dropout: 0.1235" in said[0]
    assert "dropout: -" in said[1]


@pytest.mark.parametrize("plot", SCATTERS)
def test_names_are_shown_as_they_are_and_never_as_html(plot):
    name = '<a href="x">&\u202e</a>'
    history = [{"val": {"<u>metric": 0.5}}]
    params = {"<i>field": "<b>value"}
    bad = record(0, backbone=name, params=params, history=history, best_epoch=1)
    figure = plot([bad], "<u>metric")
    assert "<" not in re.sub("<br>|<extra></extra>", "", json.dumps(drawn(figure)))
    assert '&lt;a href="x"&gt;&amp;\ufffd&lt;/a&gt;' in entries(figure)
    assert "&lt;i&gt;field: &lt;b&gt;value" in hovers(figure)[0]


@pytest.mark.parametrize(("most", "kind"), [(99.0, "linear"), (100.0, "log"), (90_000.0, "log")])
def test_seconds_that_span_a_lot_are_on_a_log_axis_with_plain_numbers(most, kind):
    figure = seconds_plot([record(0, seconds=10.0), record(1, seconds=most)], "accuracy")
    axis = drawn(figure)["layout"]["xaxis"]
    assert axis.get("type", "linear") == kind
    if kind == "log":
        assert {(10, "10"), (100, "100")} <= set(
            zip(axis["tickvals"], axis["ticktext"], strict=True)
        )
        assert len([tick for tick in axis["tickvals"] if 10 <= tick <= most]) >= 4


def budget_records():
    """Numbers are not in the order of the ends."""
    return [
        record(0, PROBE, seconds=30.0, ended=START + timedelta(hours=1)),
        record(1, TUNED, seconds=20.0, ended=START, state="PRUNED", epochs=2),
        failed(2, seconds=5.0, strategy=TUNED, ended=START + timedelta(hours=2)),
        record(3, TUNED, seconds=99.0, state="FAIL", reason="interrupted"),
        record(4, TUNED, seconds=99.0, state="PRUNED", duplicate_of=1),
    ]


def test_time_adds_up_in_the_order_of_ends_by_strategy_and_saved_time_as_elsewhere():
    records = budget_records()
    traces = {trace["name"]: trace for trace in drawn(budget_plot(records, 15))["data"]}
    assert traces[LOOKS[PROBE].label]["y"] == [0, 0, 30, 30]
    assert traces[LOOKS[TUNED].label]["y"] == [0, 20, 20, 25]
    saved = seconds_saved(records, 15)
    assert saved == 13 * 4.0
    assert traces["saved by pruning"]["y"] == [0, saved, saved, saved]
    assert {trace["stackgroup"] for trace in traces.values()} == {"time"}


def test_the_title_has_the_sums_and_says_that_the_saved_time_is_a_bound():
    records = budget_records()
    told = subtitle(budget_plot(records, 15))
    assert told == (
        f"{seconds_text(55)} spent in 3 trials; "
        f"pruning saved at most {seconds_text(seconds_saved(records, 15))}"
    )
    figure = budget_plot([record(0)], 15)
    assert subtitle(figure) == "10.0 s spent in 1 trial; pruning saved nothing so far"
    assert entries(figure) == [LOOKS[PROBE].label]


@pytest.mark.parametrize(
    ("seconds", "unit", "shown"), [(100.0, "s", 100), (600.0, "min", 10), (7200.0, "h", 2)]
)
def test_time_is_told_in_the_unit_that_reads_well(seconds, unit, shown):
    figure = drawn(budget_plot([record(0, seconds=seconds)], 15))
    assert figure["data"][0]["y"] == [0, shown]
    assert figure["layout"]["yaxis"]["title"]["text"] == f"time, added up ({unit})"


@pytest.mark.parametrize(("num_trials", "most_bytes"), [(30, 10_000), (1000, 250_000)])
def test_figures_are_small(num_trials, most_bytes):
    figures = plots(search(num_trials), "accuracy", 15)
    assert len(figures) == 3
    for name, figure in figures.items():
        assert len(figure.to_json().encode()) <= most_bytes, name


def test_figures_are_on_white_and_of_traces_that_need_no_webgl():
    for figure in plots(search(20), "accuracy", 15).values():
        layout = drawn(figure)["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "white"
        assert {trace["type"] for trace in drawn(figure)["data"]} == {"scatter"}


def test_plotly_is_not_loaded_before_it_is_needed():
    code = "import sys, studies, studies.cli.search; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
