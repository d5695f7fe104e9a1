"""In studies where nothing helps, the report says so: a small run of ``benchmarks/nulls.py``."""

import sys
from pathlib import Path

import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from nulls import WAYS, World, null_study

NUM_STUDIES = 60


@pytest.fixture(scope="module")
def found():
    world = World(num_val=78, num_test=200)
    return [null_study(world, seed) for seed in range(NUM_STUDIES)]


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("said", ["learns", "helped", "differs"])
def test_a_claim_or_gain_that_is_not_there_is_seldom_said(found, said, way):
    count = sum(getattr(outcome, said)[way] for outcome in found)
    assert count <= binom.ppf(0.99, NUM_STUDIES, 0.05)


def test_what_learned_raises_no_alarm(found):
    assert sum(outcome.alarm for outcome in found) <= binom.ppf(0.99, NUM_STUDIES, 0.05)


def test_a_long_search_is_not_called_better_than_a_short_one_for_its_length():
    """On the images that chose both it looks better, in so many studies that it would be."""
    world = World(num_val=200, num_test=100, num_trials=20, other_trials=1, other_epochs=1)
    found = [null_study(world, seed) for seed in range(40)]
    taken, before, _ = (sum(outcome.differs[way] for outcome in found) for way in WAYS)
    assert before <= binom.ppf(0.99, 40, 0.05) < taken


def test_judged_as_if_the_images_had_chosen_nothing_it_would_be_said_often(found):
    assert sum(outcome.difference for outcome in found) / NUM_STUDIES > 0.02
    count = sum(outcome.learns[WAYS[0]] for outcome in found)
    assert count > binom.ppf(0.99, NUM_STUDIES, 0.05)
