"""What may be searched has the names and obeys the laws of a training run's fields."""

import dataclasses

import pytest

from search_spaces.fields import FIELDS, STRATEGIES, is_default
from transfer.config import (
    BATCH_NORMS,
    CLASS_WEIGHTS,
    HEAD_INITS,
    OPTIMIZERS,
    Strategy,
    TransferConfig,
)

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
    "head_init": ["random", "probe", "zero", ""],
    "head_rate_factor": [-1.0, 0.0, 0.5, 10.0],
    "layer_decay": [-0.5, 0.0, 0.1, 1.0, 1.1],
    "gradual_unfreezing": [-0.1, 0.0, 0.99, 1.0],
    "batch_norm": ["train", "frozen", "eval"],
    "label_smoothing": [-0.1, 0.0, 0.99, 1.0],
    "class_weights": ["none", "balanced", "inverse"],
    "mixup": [-0.1, 0.0, 0.2, 3.0],
    "ema_decay": [-0.1, 0.0, 0.999, 1.0],
    "num_views": [-1, 0, 1, 8],
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


def test_the_defaults_are_those_of_a_training_run():
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(TransferConfig)
        if field.name in FIELDS and field.default is not dataclasses.MISSING
    }
    del defaults["num_unfrozen_layers"]  # Its default is for feature extraction, which has none.
    assert {name: FIELDS[name].default for name in defaults} == defaults
    assert all(FIELDS[name].default is None for name in FIELDS.keys() - defaults.keys())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mixup", 0.0, True),
        ("mixup", 0.2, False),
        ("head_init", "random", True),
        ("learning_rate", 1e-3, False),
        ("learning_rate", None, False),
        ("no_field", 0, False),
    ],
)
def test_a_value_is_a_default_only_where_a_field_has_one(name, value, expected):
    assert is_default(name, value) is expected


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].fine_tuning_only])
def test_what_is_for_fine_tuning_only_is_refused_to_a_frozen_backbone(name):
    other = [v for v in CANDIDATES[name] if FIELDS[name].holds(v) and v != FIELDS[name].default]
    frozen = {**RIGHT, "strategy": "feature_extraction", "num_unfrozen_layers": 0}
    TransferConfig(**frozen)
    with pytest.raises(ValueError, match=f"`{name} == .* must hold for feature extraction"):
        TransferConfig(**{**frozen, name: other[-1]})


def test_both_know_the_same_strategies_and_choices():
    assert tuple(Strategy) == STRATEGIES
    choices = {
        "optimizer": OPTIMIZERS,
        "head_init": HEAD_INITS,
        "batch_norm": BATCH_NORMS,
        "class_weights": CLASS_WEIGHTS,
    }
    for name, values in choices.items():
        assert all(FIELDS[name].holds(value) for value in values)
        assert FIELDS[name].law == f"one of {', '.join(values)}"


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in CANDIDATES for value in CANDIDATES[name]]
)
def test_a_value_obeys_its_field_exactly_when_a_training_run_takes_it(name, value):
    assert FIELDS[name].holds(value) == a_run_takes(name, value)


def test_the_candidates_reach_every_field_but_the_backbones_from_both_sides():
    assert CANDIDATES.keys() == FIELDS.keys() - {"backbone"}
    for name, values in CANDIDATES.items():
        assert {FIELDS[name].holds(value) for value in values} == {True, False}
