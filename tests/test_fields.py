"""What may be searched has the names and obeys the laws of a training run's fields."""

import dataclasses

import pytest

from search_spaces.fields import FIELDS, STRATEGIES
from transfer.config import OPTIMIZERS, Strategy, TransferConfig

RIGHT = {
    "backbone": "resnet18",
    "strategy": "fine_tuning",
    "learning_rate": 1e-3,
    "batch_size": 8,
    "num_unfrozen_layers": 2,
}
CANDIDATES = {
    "strategy": ["feature_extraction", "fine_tuning", "zero_shot", ""],
    "learning_rate": [-1.0, 0.0, 1e-9, 1.0],
    "batch_size": [-1, 0, 1, 64],
    "num_unfrozen_layers": [-1, 0, 1, 9],
    "optimizer": ["adamw", "adam", "sgd", "lion", ""],
    "weight_decay": [-0.1, 0.0, 0.1],
    "dropout": [-0.1, 0.0, 0.99, 1.0, 1.5],
}


def a_run_takes(name, value):
    given = {**RIGHT, name: value}
    if value == "feature_extraction":
        given["num_unfrozen_layers"] = 0
    try:
        TransferConfig(**given)
    except ValueError:
        return False
    return True


def test_every_searchable_field_is_a_field_of_a_training_run_and_of_its_type():
    fields = {field.name: field.type for field in dataclasses.fields(TransferConfig)}
    kinds = {name: Strategy if name == "strategy" else FIELDS[name].kind for name in FIELDS}
    assert kinds.items() <= fields.items()


def test_what_a_training_run_requires_may_be_searched():
    required = {
        field.name
        for field in dataclasses.fields(TransferConfig)
        if field.default is dataclasses.MISSING
    }
    assert required <= set(FIELDS)


def test_both_know_the_same_strategies_and_optimizers():
    assert tuple(Strategy) == STRATEGIES
    assert all(FIELDS["optimizer"].holds(name) for name in OPTIMIZERS)
    assert FIELDS["optimizer"].law == f"one of {', '.join(OPTIMIZERS)}"


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in CANDIDATES for value in CANDIDATES[name]]
)
def test_a_value_obeys_its_field_exactly_when_a_training_run_takes_it(name, value):
    assert FIELDS[name].holds(value) == a_run_takes(name, value)


def test_the_candidates_reach_every_field_but_the_backbones_from_both_sides():
    assert CANDIDATES.keys() == FIELDS.keys() - {"backbone"}
    for name, values in CANDIDATES.items():
        assert {FIELDS[name].holds(value) for value in values} == {True, False}
