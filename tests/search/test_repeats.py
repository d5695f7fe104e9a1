"""A repeat is known by its candidate, configuration and seed. See test_confirm_run.py."""

from types import SimpleNamespace

import pytest

from studies.search.loop import Repeat


@pytest.mark.parametrize(
    ("params", "is_its"),
    [
        ({"candidate": 3, "seed": 1, "backbone": "resnet18"}, True),
        ({"candidate": 3, "seed": 2, "backbone": "resnet18"}, False),
        ({"candidate": 4, "seed": 1, "backbone": "resnet18"}, False),
        ({"candidate": 3, "seed": 1, "backbone": "resnet50"}, False),
        ({"candidate": 3, "seed": 1}, False),
        ({"control": "majority"}, False),
    ],
)
def test_a_trial_is_a_repeats_by_candidate_configuration_and_seed(params, is_its):
    repeat = Repeat(candidate=3, configuration={"backbone": "resnet18"}, seed=1)
    assert repeat.is_of(SimpleNamespace(keyed_params=params)) == is_its
