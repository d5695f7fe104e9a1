"""A space names, bounds, counts, lists and narrows its configurations."""

import json

import pytest

from search_spaces import Baseline, Parameter, SearchSpace, SpaceError
from search_spaces.space import share_of_depth

DEPTHS = {"deep": 19, "flat": 5}


def space(*more, baselines=()):
    """Two backbones, both strategies, two batch sizes, and what a test adds."""
    return SearchSpace(
        name="small",
        depths=DEPTHS,
        parameters=(
            Parameter(name="backbone", choices=("deep", "flat")),
            Parameter(name="strategy", choices=("feature_extraction", "fine_tuning")),
            Parameter(name="batch_size", choices=(8, 16)),
            *more,
        ),
        baselines=baselines,
    )


def layers(**bounds):
    return Parameter(name="num_unfrozen_layers", strategy="fine_tuning", **bounds)


def rates(*, fine_tuning=(1e-4,), feature_extraction=(1e-3, 1e-2)):
    return (
        Parameter(name="learning_rate", strategy="feature_extraction", choices=feature_extraction),
        Parameter(name="learning_rate", strategy="fine_tuning", choices=fine_tuning),
    )


@pytest.mark.parametrize(
    ("name", "strategy", "key"),
    [
        ("learning_rate", "fine_tuning", "learning_rate@fine_tuning"),
        ("learning_rate", "feature_extraction", "learning_rate@feature_extraction"),
        ("dropout", "fine_tuning", "dropout@fine_tuning"),
        ("learning_rate", None, "learning_rate"),
        ("num_unfrozen_layers", "fine_tuning", "num_unfrozen_layers"),
    ],
)
def test_only_what_differs_between_strategies_carries_the_strategy_in_its_key(name, strategy, key):
    assert Parameter(name=name, strategy=strategy, low=1, high=2).key == key


@pytest.mark.parametrize(
    ("bounds", "backbone", "expected"),
    [
        ({"low": 1}, "deep", range(1, 20)),
        ({"low": 1}, "flat", range(1, 6)),
        ({"low": 2, "high": 9}, "deep", range(2, 10)),
        ({"low": 2, "high": 9}, "flat", range(2, 6)),
        ({"low": 4, "high": 4}, "flat", [4]),
        ({"choices": (1, 3)}, "flat", [1, 3]),
        ({"depth_share": 1.0}, "deep", [19]),
        ({"depth_share": 1.0}, "flat", [5]),
        ({"depth_share": 0.01}, "flat", [1]),
    ],
)
def test_the_chosen_backbones_depth_bounds_the_unfrozen_layers(bounds, backbone, expected):
    (parameter,) = (
        p
        for p in space(layers(**bounds)).below(backbone, "fine_tuning")
        if p.name == "num_unfrozen_layers"
    )
    assert list(parameter.values()) == list(expected)


@pytest.mark.parametrize(
    ("given", "strategies", "deep", "flat"),
    [
        ({"low": 1, "high": 3}, None, (16, 17, 18, 19), (2, 3, 4, 5)),
        ({"low": 4, "high": None}, None, (*range(16), 19), (0, 1, 5)),
        ({"choices": (2, 4)}, None, (15, 17, 19), (1, 3, 5)),
        ({"depth_share": 1.0}, None, (0, 19), (0, 5)),
        ({"low": 1, "high": 3}, ("feature_extraction",), (19,), (5,)),
        ({"low": 1, "high": 3}, ("fine_tuning",), (16, 17, 18), (2, 3, 4)),
    ],
)
def test_boundaries_are_where_a_configuration_of_the_space_may_start(
    given, strategies, deep, flat
):
    found = space(*rates(), layers(**given)).narrowed(strategies=strategies)
    assert (found.boundaries("deep"), found.boundaries("flat")) == (deep, flat)


def test_a_strategy_sees_its_own_parameters_and_the_shared_ones():
    small = space(*rates(), layers(low=1))
    keys = {s: {p.key for p in small.below("flat", s)} for s in small.strategies}
    assert keys == {
        "feature_extraction": {"batch_size", "learning_rate@feature_extraction"},
        "fine_tuning": {"batch_size", "learning_rate@fine_tuning", "num_unfrozen_layers"},
    }


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ((*rates(), layers(low=1)), 2 * 2 * 2 + 2 * (19 + 5)),
        ((*rates(), layers(depth_share=1.0)), 2 * 2 * 2 + 2 * 2),
        ((*rates(), layers(choices=(1, 2, 3))), 2 * 2 * 2 + 2 * 2 * 3),
        ((*rates(fine_tuning=(1e-5, 1e-4)), layers(low=2, high=6)), 8 + 2 * 2 * (5 + 4)),
    ],
)
def test_size_is_the_number_of_distinct_listed_configurations(parameters, size):
    small = space(*parameters)
    listed = [json.dumps(c, sort_keys=True) for c in small.configurations()]
    assert small.size() == len(listed) == len(set(listed)) == size


def test_every_listed_configuration_lies_in_the_space():
    small = space(*rates(), layers(low=1))
    for configuration in small.configurations():
        below = small.below(configuration["backbone"], configuration["strategy"])
        assert configuration.keys() == {"backbone", "strategy", *(p.key for p in below)}
        assert all(p.contains(configuration[p.key]) for p in below)


def test_a_continuous_space_has_no_size_and_is_not_listed():
    rate = Parameter(name="learning_rate", low=1e-4, high=1e-1, log=True)
    small = space(rate, layers(low=1))
    assert small.size() is None
    with pytest.raises(SpaceError, match="'small' is continuous"):
        next(small.configurations())


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        ({"name": "learning_rate", "low": 0.1, "high": 0.2}, [0.1, 0.15, 0.2], [0.09, 0.21, "a"]),
        ({"name": "batch_size", "choices": (8, 16)}, [8, 16], [9, "8"]),
        ({"name": "optimizer", "choices": ("adam",)}, ["adam"], ["sgd"]),
    ],
)
def test_a_parameter_contains_its_bounds_and_choices_and_nothing_else(parameter, inside, outside):
    parameter = Parameter(**parameter)
    assert all(parameter.contains(value) for value in inside)
    assert not any(parameter.contains(value) for value in outside)


def test_narrowed_keeps_the_chosen_backbones_and_strategies_and_their_baselines():
    baselines = tuple(
        Baseline(strategy=s, learning_rate=1e-4, batch_size=8, depth_share=share)
        for s, share in (("feature_extraction", None), ("fine_tuning", 1.0))
    )
    whole = space(*rates(), layers(low=1), baselines=baselines)
    narrow = whole.narrowed(backbones=["flat", "flat"], strategies=["fine_tuning"])
    assert (narrow.backbones, narrow.strategies) == (("flat",), ("fine_tuning",))
    assert narrow.baselines == baselines[1:]
    chosen = [
        c
        for c in whole.configurations()
        if (c["backbone"], c["strategy"]) == ("flat", "fine_tuning")
    ]
    assert list(narrow.configurations()) == chosen
    assert whole.backbones == ("deep", "flat")


def test_narrowed_by_nothing_is_the_same_space():
    whole = space(*rates(), layers(low=1))
    assert whole.narrowed() == whole


def test_narrowed_refuses_a_strategy_the_space_does_not_have():
    narrow = space(*rates()).narrowed(strategies=["feature_extraction"])
    with pytest.raises(SpaceError) as error:
        narrow.narrowed(strategies=["fine_tuning"])
    assert str(error.value) == "Unknown strategy 'fine_tuning'; choose from feature_extraction."


def test_a_space_comes_back_from_json_as_it_was():
    baseline = Baseline(strategy="feature_extraction", learning_rate=1e-3, batch_size=8)
    whole = space(*rates(), layers(low=1), baselines=(baseline,))
    assert SearchSpace.model_validate_json(whole.model_dump_json()) == whole


@pytest.mark.parametrize(("backbone", "num_layers"), [("deep", 10), ("flat", 2)])
def test_a_baselines_depth_share_becomes_layers_of_the_backbone(backbone, num_layers):
    baseline = Baseline(strategy="fine_tuning", learning_rate=1e-4, batch_size=8, depth_share=0.5)
    small = space(*rates(), layers(low=1))
    assert small.baseline_configuration(baseline, backbone) == {
        "backbone": backbone,
        "strategy": "fine_tuning",
        "batch_size": 8,
        "learning_rate@fine_tuning": 1e-4,
        "num_unfrozen_layers": num_layers,
    }


def test_a_baseline_need_not_state_what_has_one_value_only():
    baseline = Baseline(strategy="fine_tuning", batch_size=16)
    configuration = space(*rates(), layers(depth_share=1.0)).baseline_configuration(
        baseline, "flat"
    )
    assert configuration["learning_rate@fine_tuning"] == 1e-4
    assert configuration["num_unfrozen_layers"] == 5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 8}, "must state learning_rate"),
        ({"batch_size": 8, "learning_rate": 1e-3, "dropout": 0.1}, "'dropout' is not a parameter"),
        ({"batch_size": 7, "learning_rate": 1e-3}, "batch_size=7 lies outside"),
    ],
)
def test_a_baseline_outside_the_space_is_refused(given, said):
    with pytest.raises(SpaceError, match=said):
        space(*rates()).baseline_configuration(
            Baseline(strategy="feature_extraction", **given), "flat"
        )


@pytest.mark.parametrize(
    ("rate", "said"), [("1e-3", "learning_rate='1e-3' lies outside"), (0.0, "=0.0 must be > 0")]
)
def test_a_baseline_outside_a_continuous_range_obeys_the_law_of_its_field(rate, said):
    searched = Parameter(name="learning_rate", low=1e-5, high=1e-2, log=True)
    with pytest.raises(SpaceError, match=said):
        space(searched).baseline_configuration(
            Baseline(strategy="feature_extraction", batch_size=8, learning_rate=rate), "flat"
        )


def test_a_baseline_may_lie_outside_a_continuous_range_and_has_room_in_the_database():
    baselines = [
        Baseline(strategy="fine_tuning", batch_size=8, learning_rate=rate, depth_share=1.0)
        for rate in (1e-6, 1e-4)
    ]
    searched = Parameter(
        name="learning_rate", strategy="fine_tuning", low=1e-5, high=1e-2, log=True
    )
    other = Parameter(
        name="learning_rate", strategy="feature_extraction", low=1e-4, high=1e-1, log=True
    )
    wide = space(searched, other, layers(low=1), baselines=tuple(baselines))
    assert wide.baseline_configuration(baselines[0], "flat")["learning_rate@fine_tuning"] == 1e-6
    assert (wide.stored(searched).low, wide.stored(searched).high) == (1e-6, 1e-2)
    assert wide.stored(other) == other
    sizes = next(p for p in wide.below("flat", "fine_tuning") if p.name == "batch_size")
    assert wide.stored(sizes) == sizes


def test_a_share_of_the_depth_is_at_least_one_layer_and_at_most_all():
    for depth in range(1, 60):
        shares = [share_of_depth(step / 100, depth) for step in range(1, 101)]
        assert shares == sorted(shares)
        assert shares[0] == 1 and shares[-1] == depth
