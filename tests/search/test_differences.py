"""What may not differ when a study goes on is refused by its name. See test_preparation.py."""

from copy import deepcopy

import pytest

from studies.database.study import StudyRecord
from studies.errors import UserError
from studies.search.setup import (
    allowances,
    asked_allowances,
    refuse_other_data,
    refuse_other_settings,
)
from studies.settings import StudyOptions

PARAMETER = {"name": "batch_size", "strategy": None, "choices": [16, 32]}
IDENTITY = {
    "settings": {"metric": "accuracy", "epochs": 9, "precision": "fp32"},
    "data": {
        "fingerprint": "abc",
        "test_fingerprint": "def",
        "classes": ["a", "b"],
        "check": {
            "flags": {
                "allow_leakage": True,
                "skip_unreadable": False,
                "drop_duplicates": False,
            }
        },
    },
    "space": {"parameters": [PARAMETER]},
    "weights": {"resnet18": "123"},
    "backbones": {"my_net": {"code": "file 1", "depth": 2}},
}


def stored(identity=IDENTITY):
    return StudyRecord(identity=identity, trials=5, timeout_seconds=None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"epochs": 9, "metric": "accuracy"}, None),
        ({"epochs": 8}, r"epochs \(stored 9, asked for 8\)"),
        ({"metric": "auroc"}, "metric"),
        ({"precision": "bf16"}, r"precision \(stored fp32, asked for bf16\)"),
    ],
)
def test_other_settings_are_refused_with_both_values(given, told):
    options = StudyOptions(**given)
    if told is None:
        refuse_other_settings(options, stored(), "s")
    else:
        with pytest.raises(UserError, match=told):
            refuse_other_settings(options, stored(), "s")


def changed(*path, value):
    identity = deepcopy(IDENTITY)
    place = identity
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return identity


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        (changed("data", "fingerprint", value="x"), "other training images, labels or groups"),
        (changed("data", "test_fingerprint", value="x"), "other test images or labels"),
        (changed("data", "classes", value=["b", "a"]), "in another order"),
        (changed("space", "parameters", value=[{**PARAMETER, "choices": [8]}]), "batch_size"),
        (changed("weights", "resnet18", value="x"), "weights of resnet18"),
        (changed("backbones", "my_net", "code", value="file 2"), "code of my_net"),
    ],
)
def test_other_data_space_weights_or_code_are_refused_by_name(identity, told):
    refuse_other_data(IDENTITY, stored(), "s")
    with pytest.raises(UserError, match=told):
        refuse_other_data(identity, stored(), "s")


def test_what_was_allowed_goes_on_without_being_asked_for_again():
    assert allowances(StudyOptions(), stored(), "s")["allow_leakage"]
    assert allowances(StudyOptions(allow_leakage=True), stored(), "s")["allow_leakage"]


def test_what_was_not_allowed_then_is_refused_now():
    options = StudyOptions(drop_duplicates=True)
    with pytest.raises(UserError, match="without --drop-duplicates"):
        allowances(options, stored(), "s")
    assert allowances(options, None, "s") == asked_allowances(options)
