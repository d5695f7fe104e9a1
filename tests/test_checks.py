"""The laws of a search space: what breaks one is refused, what keeps them all is not."""

import pytest

from search_spaces import Baseline, Parameter, SearchSpace, SpaceError
from search_spaces.checks import check

DEPTHS = {"deep": 19, "flat": 5}
RIGHT = {
    "backbone": Parameter(name="backbone", choices=("deep", "flat")),
    "strategy": Parameter(name="strategy", choices=("feature_extraction", "fine_tuning")),
    "learning_rate": Parameter(name="learning_rate", low=1e-4, high=1e-1, log=True),
    "batch_size": Parameter(name="batch_size", choices=(8, 16)),
    "layers": Parameter(name="num_unfrozen_layers", strategy="fine_tuning", low=1),
}


def space(baselines=(), **changed):
    """A right space with some parameters changed, added, or (with None) left out."""
    parameters = {**RIGHT, **changed}
    kept = tuple(parameter for parameter in parameters.values() if parameter is not None)
    return SearchSpace(name="s", depths=DEPTHS, parameters=kept, baselines=baselines)


def layers(**bounds):
    return Parameter(name="num_unfrozen_layers", strategy="fine_tuning", **bounds)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"layers": layers(depth_share=0.5)},
        {"layers": layers(low=5, high=19)},
        {"layers": layers(low=1, high=99)},
        {"layers": None, "strategy": Parameter(name="strategy", choices=("feature_extraction",))},
        {"dropout": Parameter(name="dropout", low=0, high=0.9)},
        {"optimizer": Parameter(name="optimizer", choices=("adam", "sgd"))},
        {"weight_decay": Parameter(name="weight_decay", choices=(0, 0.01))},
    ],
)
def test_a_space_that_keeps_every_law_is_accepted(changed):
    check(space(**changed))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"backbone": Parameter(name="backbone", choices=("resnet51",))},
            "Unknown backbone 'resnet51'; choose from deep, flat.",
        ),
        ({"backbone": Parameter(name="backbone", low=1, high=2)}, r"\[backbone\] must have choi"),
        (
            {"backbone": Parameter(name="backbone", strategy="fine_tuning", choices=("deep",))},
            r"\[backbone\] must have choices for both strategies",
        ),
        ({"learning_rate": None}, r"\[learning_rate\] must be given for strategy feature_extr"),
        (
            {"batch_size": Parameter(name="batch_size", strategy="fine_tuning", choices=(8,))},
            r"\[batch_size\] must be given for strategy feature_extraction",
        ),
        ({"layers": None}, r"\[num_unfrozen_layers\] must be given for strategy fine_tuning"),
        ({"layers": Parameter(name="num_unfrozen_layers", low=1)}, "belongs to fine_tuning alone"),
        ({"layers": layers(low=6)}, "flat's depth 5"),
        ({"layers": layers(choices=(1, 6))}, "flat's depth 5"),
        ({"layers": layers(low=0)}, r"\[num_unfrozen_layers\] values must be >= 1"),
        (
            {"dropout": Parameter(name="dropout", choices=(1.0,))},
            r"must be in \[0, 1\), but got 1",
        ),
        ({"dropout": Parameter(name="dropout", low=0, high=float("nan"))}, "got nan"),
        ({"dropout": Parameter(name="dropout", choices=("high",))}, "got 'high'"),
        ({"batch_size": Parameter(name="batch_size", choices=(8.0,))}, "got 8.0"),
        ({"batch_size": Parameter(name="batch_size", choices=(8, 8))}, "must differ"),
        ({"learning_rate": Parameter(name="learning_rate", low=2, high=1)}, "low=2, high=1"),
        ({"learning_rate": Parameter(name="learning_rate", low=1)}, "so it must have high"),
        ({"learning_rate": Parameter(name="learning_rate")}, "either choices or low and high"),
        (
            {"learning_rate": Parameter(name="learning_rate", high=1.0, choices=(1.0,))},
            "high and log go with low",
        ),
        (
            {"dropout": Parameter(name="dropout", low=0, high=0.5, log=True)},
            "low > 0 must hold with log = true",
        ),
        ({"dropout": Parameter(name="dropout", depth_share=0.5)}, "num_unfrozen_layers alone"),
    ],
)
def test_a_space_that_breaks_a_law_is_refused_with_key_and_law(changed, said):
    with pytest.raises(SpaceError, match=said) as error:
        check(space(**changed))
    assert "\n" not in str(error.value)


def test_a_baseline_must_lie_in_the_space_of_the_first_backbone():
    baseline = Baseline(strategy="fine_tuning", learning_rate=1e-3, batch_size=12, depth_share=1.0)
    with pytest.raises(SpaceError, match="batch_size=12 lies outside"):
        check(space(baselines=(baseline,)))


def test_a_baseline_of_a_strategy_that_is_not_searched_is_not_judged():
    baseline = Baseline(strategy="fine_tuning", batch_size=12)
    feature_extraction = Parameter(name="strategy", choices=("feature_extraction",))
    check(space(baselines=(baseline,), strategy=feature_extraction))
