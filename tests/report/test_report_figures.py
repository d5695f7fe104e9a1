"""Figures of a report: what is drawn is what was given, and odd values spoil nothing."""

import itertools
import math
import time
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_auc_score, roc_curve

from studies.document.drawing import INK, LOOKS, to_svg
from studies.report.figures import (
    CostPoint,
    Curve,
    SearchStep,
    Step,
    TimelineTrial,
    accuracy_cost,
    best_so_far,
    calibration,
    confusion_matrices,
    importance,
    learning_curves,
    recall_by_class,
    roc_curves,
    slices,
    strategies_over_seeds,
    timeline,
    unfrozen_layers,
    waterfall,
)
from studies.report.figures.axes import metric_axis, power_of_ten
from studies.statistics.calibration import reliability_curve
from studies.statistics.importance import Importance
from studies.statistics.intervals import Interval

FE, FT = "feature_extraction", "fine_tuning"
NAN = math.nan
HOSTILE = "$x^2$ <b>&</b>\n"
SHOWN = "$x^2$ <b>&</b>"
RNG = np.random.default_rng(0)


def interval(value, half=0.03):
    return Interval(value=value, low=value - half, high=value + half)


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch):
    """What a test draws must not depend on those that ran before it."""
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(0))


def cost(n, name="resnet50"):
    return [
        CostPoint(
            label=name,
            strategy=(FE, FT)[i % 2],
            seconds=float(10 ** RNG.uniform(-1, 3)),
            value=(value := float(RNG.uniform(0.6, 0.9))),
            low=value - 0.05,
            high=value + 0.05,
        )
        for i in range(n)
    ]


def curves(n, epochs=15):
    return [Curve(train=RNG.uniform(0.5, 1, epochs), val=RNG.uniform(0.5, 1, epochs))] * n


def searched(n, name="backbone"):
    metric = RNG.uniform(0.6, 0.9, n).tolist()
    return {
        "learning_rate": list(zip((10 ** RNG.uniform(-6, -3, n)).tolist(), metric, strict=True)),
        "batch_size": [((8, 16, 32)[i % 3], metric[i]) for i in range(n)],
        name: [((name, "other")[i % 2], metric[i]) for i in range(n)],
        **{
            f"real_{i}": list(zip(RNG.uniform(0, 1, n).tolist(), metric, strict=True))
            for i in range(5)
        },
    }


def ran(n, name=FT):
    return [
        TimelineTrial(
            number=i,
            strategy=(FE, name)[i % 2],
            state=("COMPLETE", "PRUNED", "FAIL", "RUNNING")[i % 4],
            start_seconds=10.0 * i,
            seconds=9.0,
        )
        for i in range(n)
    ]


def both(values, found):
    return {FE: {"validation": (values, found)}, FT: {"validation": (values, found)}}


STEPS = [
    Step(label="overfitting", value=-3.0, low=-5, high=-1),
    Step(label="more images", value=0.5, low=-0.2, high=1.1),
    Step(label="not explained", value=-1.5),
]
RISING = (np.array([0, 0.2, 1.0]), np.array([0, 0.8, 1.0]))


def step(num_trials, best):
    return SearchStep(num_trials=num_trials, seconds=3.0 * num_trials, best=best)


def steps(n):
    return [step(i + 1, 0.9 - 0.3 / (i + 1)) for i in range(n)]


IMPORTANCE = Importance(value=0.3, by_chance=0.1)
CURVE = reliability_curve(
    np.tile([0.1, 0.3, 0.6, 0.95], 25), np.arange(100) % 8 >= np.tile([7, 5, 4, 1], 25)
)

# Every figure, from names that are not ours; those that take none stand below.
NAMED = {
    "accuracy_cost": lambda name: accuracy_cost(cost(5, name), metric="accuracy"),
    "slices": lambda name: slices(
        searched(20, name), metric="accuracy", strategy=FT, log={"learning_rate"}
    ),
    "importance": lambda name: importance({name: IMPORTANCE}, strategy=FE),
    "unfrozen_layers": lambda name: unfrozen_layers(
        [(name, 0, 0.7), (name, 3, 0.8)], metric="accuracy"
    ),
    "strategies_over_seeds": lambda name: strategies_over_seeds(
        {FT: {name: ([0.8, 0.9], interval(0.85))}}, metric="accuracy"
    ),
    "waterfall": lambda name: waterfall(
        [Step(label=name, value=-6)], start=("validation", 88), end=("test", 82), unit="points"
    ),
    "recall_by_class": lambda name: recall_by_class({name: (interval(0.9), interval(0.8))}),
    "confusion_matrices": lambda name: confusion_matrices(
        {"test": ([[5, 1], [2, 7]], [name, "b"])}
    ),
    "calibration": lambda name: calibration({name: {FT: CURVE, FE: CURVE}}, foretold=name),
}
UNNAMED = {
    "learning_curves": lambda: learning_curves(
        curves(3), curves(1)[0], curves(2), metric="accuracy", strategy=FT
    ),
    "roc_curves": lambda: roc_curves({FE: [RISING], FT: [RISING, RISING]}),
    "timeline": lambda: timeline(ran(8)),
    "best_so_far": lambda: best_so_far({FE: steps(9), FT: steps(5)}, metric="accuracy"),
}
ALL = {**{key: lambda draw=draw: draw("a name") for key, draw in NAMED.items()}, **UNNAMED}


def svg_of(figure):
    return to_svg(figure, title="t", description="d", prefix="p")


def texts(figure):
    root = ElementTree.fromstring(svg_of(figure))
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]


def bars(figure):
    return [
        patch
        for axes in figure.axes
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_width() and patch.get_height() < 1
    ]


def points(figure, colour):
    """Markers and places of all that is drawn in a colour."""
    lines = [line for axes in figure.axes for line in axes.lines]
    own = [line for line in lines if to_hex(line.get_color()) == colour.lower()]
    return {
        (line.get_marker(), x, y)
        for line in own
        if line.get_marker() != "None"
        for x, y in zip(line.get_xdata(), np.ravel(line.get_ydata()), strict=True)
    }


@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_small_and_names_its_axes(name):
    figure = ALL[name]()
    assert len(svg_of(figure)) < 60_000
    shared = figure.get_supxlabel() + figure.get_supylabel()
    for axes in figure.axes:
        assert not axes.get_visible() or axes.get_xlabel() or shared


@pytest.mark.parametrize("name", NAMED)
def test_names_from_outside_are_shown_as_they_are(name):
    assert SHOWN in texts(NAMED[name](HOSTILE))


@pytest.mark.parametrize("name", NAMED)
def test_a_very_long_name_is_shortened(name):
    figure = NAMED[name]("x" * 5000)
    assert max(len(text or "") for text in texts(figure)) <= 80


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("accuracy", "accuracy (%)"),
        ("auroc", "auroc (%)"),
        ("loss", "loss (nats an image)"),
        ("<my> $metric$", "<my> $metric$"),
    ],
)
def test_the_metric_has_its_unit(metric, label):
    assert metric_axis(metric).label == label
    assert label in texts(accuracy_cost(cost(3), metric=metric))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: accuracy_cost([], metric="accuracy"),
        lambda: accuracy_cost(
            [CostPoint(label="a", strategy=FT, seconds=0, value=0.8)], metric="accuracy"
        ),
        lambda: learning_curves([], None, [], metric="accuracy", strategy=FT),
        lambda: learning_curves(
            [Curve(train=[], val=[NAN])], None, [], metric="accuracy", strategy=FT
        ),
        lambda: slices({"dropout": [(0.1, NAN)]}, metric="accuracy", strategy=FT, log=()),
        lambda: importance({}, strategy=FT),
        lambda: unfrozen_layers([], metric="accuracy"),
        lambda: strategies_over_seeds(both([], None), metric="accuracy"),
        lambda: recall_by_class({"a": (None, None)}),
        lambda: confusion_matrices({"test": ([], [])}),
        lambda: roc_curves({FT: []}),
        lambda: roc_curves({FT: [(np.array([]), np.array([]))], FE: [(RISING[0], [NAN] * 3)]}),
        lambda: calibration({"a": {FT: replace(CURVE, foretold_U=np.empty(0))}}, foretold="x"),
        lambda: timeline([]),
        lambda: best_so_far({}, metric="accuracy"),
        lambda: best_so_far({FT: [step(1, NAN)]}, metric="accuracy"),
    ],
)
def test_a_figure_of_nothing_is_refused(draw):
    with pytest.raises(
        ValueError, match=r"`1 or more .*` must hold for this figure, but got none"
    ):
        draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: accuracy_cost(cost(1), metric="accuracy"),
        lambda: accuracy_cost(
            [*cost(2), CostPoint(label="a", strategy=FT, seconds=NAN, value=NAN)], metric="f1"
        ),
        lambda: learning_curves(
            [Curve(train=[0.5, NAN], val=[NAN, NAN])],
            Curve(train=[0.7], val=[0.6]),
            [Curve(train=[], val=[0.5, 0.6]), Curve(train=[0.5], val=[NAN])],
            metric="loss",
            strategy=FE,
        ),
        lambda: slices(
            {"a": [(1, 0.5)], "b": [("x", 0.5), (NAN, 0.1)], "c": [(0.0, 1.0)]},
            metric="accuracy",
            strategy=FT,
            log={"a", "c"},
        ),
        lambda: slices({"a": [(True, 0.5), (3, 0.5)]}, metric="f1", strategy=FT, log={"a"}),
        lambda: importance(
            {
                "a": Importance(value=0.0, by_chance=0.0),
                "b": Importance(value=NAN, by_chance=0.1),
            },
            strategy=FT,
        ),
        lambda: unfrozen_layers([("a", 0, 1.0), ("a", 1, NAN)], metric="accuracy"),
        lambda: strategies_over_seeds(both([0.8], None), metric="accuracy"),
        lambda: strategies_over_seeds(both([], interval(0.8)), metric="accuracy"),
        lambda: strategies_over_seeds({FT: {}, FE: {"test": ([NAN, 0.5], None)}}, metric="f1"),
        lambda: waterfall([], start=("a", 1.0), end=("b", 1.0), unit="points"),
        lambda: recall_by_class({"a": (None, interval(1.0, 0)), "b": (None, interval(NAN))}),
        lambda: confusion_matrices(
            {"test": ([[0.0]], ["a"]), "x": ([[0, 0], [0, NAN]], ["", ""])}
        ),
        lambda: roc_curves({FT: [(np.array([0.0, 1.0]), np.array([0.0, 1.0]))]}),
        lambda: calibration(
            {"a": {FT: reliability_curve(np.array([0.5]), np.array([True]))}}, foretold="x"
        ),
        lambda: timeline(ran(1)),
        lambda: timeline([*ran(2)[1:], *ran(1)]),
        lambda: best_so_far({FE: [step(1, 0.5)], FT: []}, metric="loss"),
        lambda: best_so_far({FE: [step(1, NAN), step(2, 0.5)]}, metric="accuracy"),
    ],
)
def test_odd_values_are_left_out_without_a_warning(draw, recwarn):
    svg = svg_of(draw())
    assert "nan" not in svg.lower().replace("nats an", "")
    assert not list(recwarn)


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: accuracy_cost(cost(n), metric="accuracy"),
        lambda n: learning_curves(
            curves(n), curves(1)[0], curves(3), metric="accuracy", strategy=FT
        ),
        lambda n: slices(
            searched(n), metric="accuracy", strategy=FT, log={"learning_rate", "batch_size"}
        ),
        lambda n: unfrozen_layers(
            [("ab"[i % 2], i % 17, float(RNG.uniform())) for i in range(n)], metric="accuracy"
        ),
        lambda n: timeline(ran(n)),
        lambda n: best_so_far({FE: steps(n), FT: steps(n)}, metric="accuracy"),
    ],
)
def test_a_thousand_trials_stay_small_and_quick(draw):
    start = time.process_time()
    svg = svg_of(draw(1000))
    assert len(svg) < 300_000
    # About 0.3 s; the rest is for slower and busier machines.
    assert time.process_time() - start < 3


@pytest.mark.parametrize("strategy", LOOKS)
@pytest.mark.parametrize(
    "draw",
    [
        lambda s: accuracy_cost(
            [CostPoint(label="a", strategy=s, seconds=1, value=0.8)], metric="accuracy"
        ),
        lambda s: learning_curves([], curves(1)[0], [], metric="accuracy", strategy=s),
        lambda s: slices({"a": [(1, 0.5)]}, metric="accuracy", strategy=s, log=()),
        lambda s: strategies_over_seeds({s: {"test": ([0.5], interval(0.5))}}, metric="f1"),
        lambda s: calibration({"before": {s: CURVE}}, foretold="x"),
        lambda s: best_so_far({s: steps(3)}, metric="f1"),
        lambda s: timeline([TimelineTrial(number=0, strategy=s, state="COMPLETE",
                                          start_seconds=0, seconds=1)]),
    ],
)  # fmt: skip
def test_a_strategy_has_its_colour_and_marker_in_every_figure(draw, strategy):
    figure, look = draw(strategy), LOOKS[strategy]
    other = next(other for name, other in LOOKS.items() if name != strategy)
    handles = [line for legend in figure.legends for line in legend.get_lines()]
    drawn = [line for axes in figure.axes for line in axes.lines] + handles
    own = {line.get_marker() for line in drawn if to_hex(line.get_color()) == look.colour.lower()}
    assert own - {"None"} == {look.marker}
    svg = svg_of(figure)
    assert look.colour.lower() in svg and other.colour.lower() not in svg


@pytest.mark.parametrize(
    "draw",
    [
        lambda: importance({"a": IMPORTANCE}, strategy="both"),
        lambda: accuracy_cost(
            [CostPoint(label="a", strategy="both", seconds=1, value=1)], metric="accuracy"
        ),
        lambda: roc_curves({"both": [RISING]}),
        lambda: timeline(ran(2, "both")),
    ],
)
def test_an_unknown_strategy_is_refused(draw):
    with pytest.raises(ValueError, match="Unknown strategy 'both'; choose from feature_ex"):
        draw()


def test_an_unknown_state_is_refused():
    trial = TimelineTrial(number=0, strategy=FT, state="done", start_seconds=0, seconds=1)
    with pytest.raises(ValueError, match="Unknown state 'done'; choose from COMPLETE, PRUNED"):
        timeline([trial])


def test_cost_points_stand_at_their_seconds_and_per_cent():
    point = CostPoint(label="a", strategy=FT, seconds=12, value=0.8, low=0.7, high=0.9)
    figure = accuracy_cost([point], metric="accuracy")
    look = LOOKS[FT]
    assert points(figure, look.colour) == {(look.marker, 12, 80)}
    assert figure.axes[0].get_xscale() == "log"
    assert [70, 90] in [list(line.get_ydata()[:2]) for line in figure.axes[0].lines]


@pytest.mark.parametrize(("metric", "named"), [("accuracy", "ac"), ("loss", "ab")])
def test_of_many_only_points_that_none_beats_in_both_are_named(metric, named):
    letters = [("a", 1, 0.6), ("b", 5, 0.5), ("c", 9, 0.7)]
    crowd = [("z", 100, 0.65)] * 12
    figure = accuracy_cost(
        [CostPoint(label=n, strategy=FT, seconds=s, value=v) for n, s, v in letters + crowd],
        metric=metric,
    )
    assert "".join(sorted(text for text in texts(figure) if text in "abcz")) == named


@pytest.mark.parametrize("seed", range(8))
def test_names_beside_points_cover_no_other_name(seed, monkeypatch):
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(seed))
    figure = accuracy_cost(cost(12, "efficientnet_lite0"), metric="accuracy")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) >= 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_train_is_dashed_and_val_is_solid_and_the_epoch_that_was_kept_is_marked():
    # Which need not be the one with the best metric.
    best = Curve(train=[0.5, 0.9, 1.0], val=[0.5, 0.8, 0.7], best_epoch=3)
    figure = learning_curves([], best, [], metric="accuracy", strategy=FT)
    styles = {tuple(line.get_ydata()): line.get_linestyle() for line in figure.axes[0].lines}
    assert styles[(50, 90, 100)] == "--" and styles[(50, 80, 70)] == "-"
    look = LOOKS[FT]
    assert points(figure, look.colour) == {(look.marker, 3, 70)}


def test_seeds_are_a_band_up_to_the_last_epoch_of_all():
    seeds = [Curve(train=[1, 2, 3], val=[1, 2, 3]), Curve(train=[3, 4], val=[3, 4])]
    figure = learning_curves([], None, seeds, metric="loss", strategy=FT)
    means = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert means == [[2, 3], [2, 3]]
    extents = figure.axes[0].collections[-1].get_paths()[0].get_extents()
    assert (extents.x0, extents.x1, extents.y0, extents.y1) == (1, 2, 1, 4)


def test_each_hyperparameter_has_its_panel_and_scale():
    figure = slices(searched(12), metric="accuracy", strategy=FT, log={"learning_rate"})
    panels = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == list(searched(1))
    assert panels["learning_rate"].get_xscale() == "log"
    assert panels["real_0"].get_xscale() == "linear"
    assert [t.get_text() for t in panels["backbone"].get_xticklabels()] == ["backbone", "other"]
    assert list(panels["batch_size"].get_xticks()) == [8, 16, 32]


def test_words_are_spread_alike_every_time_and_stay_in_their_place():
    pairs = {"optimizer": [("adam", 0.5), ("sgd", 0.6)] * 20}
    one, two = (slices(pairs, metric="accuracy", strategy=FT, log=()) for _ in range(2))
    xs = one.axes[0].lines[0].get_xdata()
    assert list(xs) == list(two.axes[0].lines[0].get_xdata())
    assert len(set(xs)) == 40
    assert [round(x) for x in xs] == [0, 1] * 20


def test_the_most_important_hyperparameter_is_on_top():
    values = {"a": 0.2, "b": 0.7, "c": 0.1}
    found = {name: Importance(value=v, by_chance=0.15) for name, v in values.items()}
    figure = importance(found, strategy=FT)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
    assert [bar.get_width() for bar in bars(figure)] == pytest.approx([0.7, 0.2, 0.1])
    assert [bar.get_alpha() for bar in bars(figure)] == [1, 1, 0.35]  # Not above chance: pale.
    assert figure.axes[0].yaxis_inverted()


def test_no_unfrozen_layer_has_the_colour_of_feature_extraction():
    figure = unfrozen_layers(
        [("resnet50", 0, 0.7), ("resnet50", 3, 0.8), ("resnet50", 3, 0.6)], metric="accuracy"
    )
    assert {(x, y) for _, x, y in points(figure, LOOKS[FE].colour)} == {(0, 70)}
    assert {(x, y) for _, x, y in points(figure, LOOKS[FT].colour)} == {(3, 80), (3, 60)}
    assert list(figure.axes[0].lines[0].get_ydata()) == [70, 80]  # through the best


def test_backbones_are_told_apart_by_marker():
    points_of = [(name, k, 0.5) for name in "abcdefgh" for k in (0, 2)]
    figure = unfrozen_layers(points_of, metric="accuracy")
    markers = [line.get_marker() for line in figure.legends[0].get_lines()]
    assert len(set(markers)) == 8


def test_seeds_and_intervals_of_both_strategies_stand_in_their_rows():
    figure = strategies_over_seeds(
        {
            FE: {"validation": ([0.8, 0.9], interval(0.85)), "test": ([0.7], interval(0.7))},
            FT: {"validation": ([0.6], interval(0.6)), "forecast": ([], interval(0.5))},
        },
        metric="accuracy",
    )
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["validation", "test", "forecast"]
    rows = {(x, round(y)) for _, x, y in points(figure, LOOKS[FE].colour)}
    assert rows == {(80, 0), (90, 0), (85, 0), (70, 1)}
    rows = {(x, round(y)) for _, x, y in points(figure, LOOKS[FT].colour)}
    assert rows == {(60, 0), (50, 2)}


def test_steps_of_the_waterfall_lead_from_start_to_end():
    figure = waterfall(STEPS, start=("validation", 88), end=("test", 84), unit="points")
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars(figure)]
    assert [bar.get_width() for bar in bars(figure)] == pytest.approx([-3, 0.5, -1.5])
    assert ends[0][0] == 88 and ends[-1][1] == pytest.approx(84)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))


def test_the_waterfall_writes_values_and_draws_intervals_where_there_are_some():
    figure = waterfall(STEPS, start=("validation", 88), end=("test", 84), unit="points")
    assert {"88.0", "\N{MINUS SIGN}3.0", "+0.5", "\N{MINUS SIGN}1.5", "84.0"} <= set(texts(figure))
    whiskers = figure.axes[0].lines[0].get_xdata()
    drawn = [(whiskers[i], whiskers[i + 1]) for i in range(0, len(whiskers), 3)]
    assert drawn[:2] == [(83, 87), (pytest.approx(84.8), pytest.approx(86.1))]
    assert np.isnan(drawn[2]).all()


def test_points_lost_and_won_differ_without_colour():
    lost, won, _ = bars(waterfall(STEPS, start=("v", 88), end=("t", 84), unit="points"))
    assert not lost.get_hatch() and won.get_hatch()


@pytest.mark.parametrize("end", [83.9, 84.1, NAN])
def test_a_waterfall_that_does_not_add_up_is_refused(end):
    with pytest.raises(ValueError, match=r"`start \+ sum of steps == end` must hold, but got 88"):
        waterfall(STEPS, start=("validation", 88), end=("test", end), unit="points")


def test_recall_on_validation_is_filled_and_on_test_is_open():
    figure = recall_by_class({"a": (interval(0.9), interval(0.8)), "b": (None, interval(0.5))})
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    found = {line.get_xdata()[0]: line.get_markerfacecolor() != "none" for line in dots}
    assert found == {90: True, 80: False, 50: False}


def test_shares_of_the_true_class_are_grey_and_counts_are_written():
    figure = confusion_matrices({"test": ([[3, 1], [0, 0]], ["a", "b"]), "other": ([[7]], ["a"])})
    cells = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    shares = [cell.get_facecolor()[3] for cell in cells]
    assert shares[0] == pytest.approx(3 * shares[1]) and shares[2:] == [0, 0]
    assert {to_hex(cell.get_facecolor()) for cell in cells} == {INK}
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "0", "0"]
    assert [axes.get_title(loc="right") for axes in figure.axes] == ["test", "other"]


def test_text_on_the_darkest_cell_can_be_read():
    """Contrast of WCAG 2: at least 4.5 for text, on white and on a dark page."""

    def luminance(grey):
        return grey / 12.92 if grey <= 0.04045 else ((grey + 0.055) / 1.055) ** 2.4

    alpha = confusion_matrices({"t": ([[3]], ["a"])}).axes[0].patches[0].get_facecolor()[3]
    for text, page in ((0.1, 1.0), (0.9, 0.07)):
        low, high = sorted((luminance(text), luminance(alpha * text + (1 - alpha) * page)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_up_to_10_classes_numbers_fit_into_their_cells():
    counts = RNG.integers(100, 1000, (10, 10)).tolist()
    names = [f"a class called {i}" for i in range(10)]
    figure = confusion_matrices({"one": (counts, names), "two": (counts, names)})
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text, cell in zip(axes.texts, axes.patches, strict=True):
            frame, box = cell.get_window_extent(), text.get_window_extent()
            assert box.width < frame.width and box.height < frame.height


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"`counts.shape == \(2, 2\)` must hold for 2 classes"):
        confusion_matrices({"test": ([[1, 2, 3], [4, 5, 6]], ["a", "b"])})


def test_roc_of_several_seeds_is_their_mean_at_each_false_positive_rate():
    low = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    high = (np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    figure = roc_curves({FT: [low, high]})
    mean = figure.axes[0].lines[-1]
    assert mean.get_xdata()[50] == 50
    assert mean.get_ydata()[[0, 50, 100]] == pytest.approx([50, 75, 100])


def test_the_area_under_a_roc_curve_is_its_auroc():
    """With ten images of a class the curve has ten steps: drawn aslant it had 5 points more."""
    excess = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels_N = np.repeat([0, 1], [10, 60])
        scores_N = rng.normal(size=70) + 1.5 * labels_N
        curve = roc_curve(labels_N, scores_N)[:2]
        line = roc_curves({FT: [curve]}).axes[0].lines[-1]
        area = np.trapezoid(line.get_ydata(), line.get_xdata()) / 100**2
        excess.append(area - roc_auc_score(labels_N, scores_N))
    assert abs(np.mean(excess)) < 0.005 and np.abs(excess).max() < 0.02


def test_the_area_of_a_calibration_marker_grows_with_its_images():
    foretold_N = np.repeat([0.2, 0.8], [20, 200])
    curve = reliability_curve(foretold_N, np.arange(220) % 20 >= np.repeat([15, 5], [20, 200]))
    figure = calibration({"a": {FT: curve}}, foretold="x")
    markers = figure.axes[0].collections[1]
    small, large = markers.get_sizes()
    assert large > 5 * small
    assert np.allclose(markers.get_offsets(), [[20, 25], [80, 75]])


def test_calibration_counts_images_once_and_has_a_panel_before_and_after():
    figure = calibration({"before": {FT: CURVE}, "after": {FT: CURVE}}, foretold="x")
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    assert any("100 images" in text for text in texts(figure))


def test_a_bar_of_the_timeline_goes_from_start_to_end_in_minutes():
    trials = [
        TimelineTrial(number=7, strategy=FT, state="PRUNED", start_seconds=60, seconds=540),
    ]
    figure = timeline(trials)
    extents = figure.axes[0].patches[0].get_path().get_extents()
    assert (extents.x0, extents.x1) == (1, 10)
    assert "time since the start of the study (min)" in texts(figure)


def test_states_differ_without_colour():
    few = timeline([t for t in ran(16) if t.strategy == FT] + ran(1))
    assert len({patch.get_hatch() for patch in few.axes[0].patches}) == 3
    many = timeline(ran(100))
    rows = [tick.get_text() for tick in many.axes[0].get_yticklabels()]
    assert rows == [
        "feature extraction: complete",
        "feature extraction: fail",
        "fine-tuning: pruned",
        "fine-tuning: running",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "10⁻⁵"),
        (2e-5, "2·10⁻⁵"),
        (0.01, "0.01"),
        (50, "50"),
        (10_000, "10000"),
        (1e6, "10⁶"),
    ],
)
def test_powers_of_ten_are_written_without_mathtext(value, text):
    assert power_of_ten(value) == text


def test_each_strategy_has_its_curve_against_trials_and_against_seconds():
    figure = best_so_far({FE: [step(1, 0.5), step(4, 0.7)], FT: [step(2, 0.6)]}, metric="accuracy")
    by_trials, by_seconds = figure.axes
    for axes, scale in ((by_trials, 1), (by_seconds, 3)):
        drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
        assert ([scale * 1.0, scale * 4.0], [50.0, 70.0]) in drawn
        assert all(line.get_drawstyle() == "steps-post" for line in axes.lines[::2])
