"""Suggestions for one strategy: in the space, never twice, in coordinates that backbones share."""

import time
from types import SimpleNamespace

import pytest

from search_spaces import Parameter, SearchSpace
from studies.search.suggest import (
    MAX_LISTED,
    _Model,
    frozen,
    num_untried,
    suggest_configuration,
    tried_configurations,
)

DEPTHS = {"resnet18": 9, "resnet50": 17, "mobilenet_v2": 19}


def space(*parameters, backbones=tuple(DEPTHS)):
    return SearchSpace(
        name="s",
        depths=DEPTHS,
        parameters=(
            Parameter(name="backbone", choices=backbones),
            Parameter(name="strategy", choices=("feature_extraction", "fine_tuning")),
            *parameters,
        ),
    )


RATE = Parameter(name="learning_rate", low=1e-5, high=1e-1, log=True)
LAYERS = Parameter(name="num_unfrozen_layers", strategy="fine_tuning", low=1)
SIZES = Parameter(name="batch_size", choices=(64, 8, 32, 16))
DEFAULT = space(RATE, SIZES, LAYERS)


def record(number, configuration, value=0.5, state="COMPLETE"):
    return SimpleNamespace(
        number=number,
        logical_number=number,
        state=state,
        value=value if state == "COMPLETE" else None,
        score=lambda metric: value,
        scores=lambda metric: {1: value},
        keyed_params=configuration,
        strategy=configuration["strategy"],
        duplicate_of=None,
        is_interrupted=False,
    )


def suggest(a_space, records, strategy="fine_tuning", sampler="tpe", seed=0):
    return suggest_configuration(
        a_space,
        strategy,
        records,
        sampler=sampler,
        seed=seed,
        metric="accuracy",
    )


def searched(a_space, num_trials, value, strategy="fine_tuning", sampler="tpe"):
    """Records of a search by ``value`` of a configuration."""
    records = []
    for number in range(num_trials):
        found = suggest(a_space, records, strategy, sampler, seed=number)
        records.append(record(number, found, value(found)))
    return records


PARAMETERS = {
    "depth": (RATE, SIZES, LAYERS),
    "some layers": (RATE, SIZES, LAYERS.model_copy(update={"low": 3, "high": 12})),
    "share of depth": (
        RATE,
        SIZES,
        Parameter(name="num_unfrozen_layers", strategy="fine_tuning", depth_share=0.5),
    ),
    "listed layers": (
        RATE,
        SIZES,
        Parameter(name="num_unfrozen_layers", strategy="fine_tuning", choices=(1, 9, 4)),
    ),
    "ranges": (
        RATE,
        Parameter(name="batch_size", low=4, high=64),
        LAYERS,
        Parameter(name="optimizer", choices=("adam", "sgd")),
        Parameter(name="weight_decay", choices=(0.0, 0.1, 0.01)),
        Parameter(name="dropout", low=0.0, high=0.5),
        Parameter(name="mixup", choices=(0.2,)),
    ),
}


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_suggestion_lies_in_the_space(parameters, sampler):
    a_space = space(*PARAMETERS[parameters])
    for found in searched(a_space, 25, lambda c: c["learning_rate"], sampler=sampler):
        configuration = found.keyed_params
        below = a_space.below(configuration["backbone"], "fine_tuning")
        assert set(configuration) == {"backbone", "strategy", *(p.key for p in below)}
        for parameter in below:
            value = configuration[parameter.key]
            assert parameter.contains(value) and (type(value) is int) == parameter.is_integer


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_a_configuration_is_the_same_in_the_models_coordinates_and_back(parameters):
    a_space = space(*PARAMETERS[parameters])
    model = _Model(a_space, "fine_tuning")
    for found in searched(a_space, 40, lambda c: 0.5, sampler="random"):
        assert model.configuration(model.coordinates(found.keyed_params)) == found.keyed_params


@pytest.mark.parametrize("backbone", DEPTHS)
def test_every_number_of_layers_has_its_place_in_the_middle_of_equal_parts(backbone):
    model, depth = _Model(DEFAULT, "fine_tuning"), DEPTHS[backbone]
    base = {"backbone": backbone, "learning_rate": 1e-3, "batch_size": 8}
    shares = [
        model.coordinates({**base, "num_unfrozen_layers": k})["num_unfrozen_layers"]
        for k in range(1, depth + 1)
    ]
    assert shares == pytest.approx([(k - 0.5) / depth for k in range(1, depth + 1)])


def test_batch_sizes_are_seen_by_their_logarithm():
    base = {"backbone": "resnet18", "learning_rate": 1e-3, "num_unfrozen_layers": 1}
    uneven = space(RATE, Parameter(name="batch_size", choices=(64, 8, 16)), LAYERS)
    model = _Model(uneven, "fine_tuning")
    assert [model.coordinates({**base, "batch_size": b})["batch_size"] for b in (8, 16, 64)] == [
        3,
        4,
        6,
    ]
    distribution = model.distributions["batch_size"]
    assert (distribution.low, distribution.high) == (2.5, 7)
    drawn = {"backbone": "resnet18", "learning_rate": 1e-3, "num_unfrozen_layers": 0.5}
    sizes = [
        model.configuration({**drawn, "batch_size": place})["batch_size"]
        for place in (2.5, 3.4, 3.6, 4.9, 5.1, 7.0)
    ]
    assert sizes == [8, 8, 16, 16, 64, 64]


def test_a_batch_size_of_a_range_is_seen_by_its_logarithm():
    model = _Model(
        space(RATE, Parameter(name="batch_size", low=4, high=64), LAYERS), "fine_tuning"
    )
    assert model.distributions["batch_size"].log


def test_what_is_learned_of_one_backbones_depth_serves_another():
    """All layers are best: half of the trials are of a network that is twice as deep."""

    def share(configuration):
        return configuration["num_unfrozen_layers"] / DEPTHS[configuration["backbone"]]

    only = space(RATE, SIZES, LAYERS, backbones=("resnet18", "mobilenet_v2"))
    later = [share(r.keyed_params) for seed in range(3) for r in searched(only, 40, share)[20:]]
    assert sum(later) / len(later) > 0.75


def test_trials_of_the_other_strategy_change_nothing():
    mine = searched(DEFAULT, 14, lambda c: c["learning_rate"])
    others = searched(DEFAULT, 14, lambda c: 1.0, strategy="feature_extraction")
    assert suggest(DEFAULT, mine) == suggest(DEFAULT, [*mine, *others])


def test_running_and_pruned_trials_are_seen():
    complete = searched(DEFAULT, 14, lambda c: c["learning_rate"])
    again = complete[-1].keyed_params
    seen = {
        state: suggest(
            DEFAULT, [*complete, *(record(n, again, 0.1, state) for n in range(14, 19))]
        )
        for state in ("PRUNED", "RUNNING", "FAIL")
    }
    assert seen["FAIL"] == suggest(DEFAULT, complete)
    assert seen["PRUNED"] != seen["FAIL"] and seen["RUNNING"] != seen["FAIL"]


SMALL = space(
    Parameter(name="learning_rate", choices=(1e-3, 1e-4, 1e-5)),
    Parameter(name="batch_size", choices=(32,)),
    LAYERS.model_copy(update={"low": None, "depth_share": 1.0}),
)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_small_space_is_gone_through_once_and_then_it_is_said(sampler):
    records = searched(SMALL, 9, lambda c: c["learning_rate"], sampler=sampler)
    assert len({frozen(r.keyed_params) for r in records}) == 9
    assert num_untried(SMALL, "fine_tuning", records) == 0
    with pytest.raises(ValueError, match="has been tried"):
        suggest(SMALL, records, sampler=sampler)


def test_the_better_ones_of_a_small_space_come_before_the_worse():
    """Thirty configurations, eighteen of them tried: what is left is not drawn blindly."""
    rates = tuple(10.0**-n for n in range(1, 11))
    thirty = space(
        Parameter(name="learning_rate", choices=rates),
        Parameter(name="batch_size", choices=(8, 16, 32)),
        Parameter(name="num_unfrozen_layers", strategy="fine_tuning", depth_share=1.0),
        backbones=("resnet18",),
    )
    better = 0
    for first in range(8):
        records = []
        for number in range(18):
            found = suggest(thirty, records, seed=100 * first + number)
            records.append(record(number, found, rates.index(found["learning_rate"])))
        better += sum(r.value >= 5 for r in records)
    assert better > 8 * 18 * 0.55


def test_a_large_finite_space_is_counted_and_not_listed(monkeypatch):
    large = space(
        Parameter(name="learning_rate", choices=tuple(10.0**-n for n in range(1, 11))),
        Parameter(name="batch_size", low=1, high=512),
        LAYERS,
        Parameter(name="weight_decay", choices=tuple(0.001 * n for n in range(100))),
    )
    assert large.size() > MAX_LISTED

    def never(self):
        raise AssertionError("listed")

    monkeypatch.setattr(SearchSpace, "configurations", never)
    started = time.process_time()
    records = searched(large, 20, lambda c: c["learning_rate"])
    size = large.narrowed(strategies=["fine_tuning"]).size()
    assert num_untried(large, "fine_tuning", records) == size - 20
    assert time.process_time() - started < 5


def test_interrupted_configurations_are_not_tried_and_failed_ones_are():
    configuration = searched(SMALL, 1, lambda c: 0.5)[0].keyed_params
    failed = record(0, configuration, state="FAIL")
    interrupted = record(0, configuration, state="FAIL")
    interrupted.is_interrupted = True
    assert tried_configurations([failed]) == {frozen(configuration)}
    assert tried_configurations([interrupted]) == set()
