"""The pruning rule: warm-up, enough peers, and about half of equal configurations, not more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.search.pruning import should_prune
from studies.settings import MIN_PEERS, WARMUP_EPOCHS


def course(*values):
    """A metric's values by epoch, counted from 1."""
    return dict(enumerate(values, start=1))


POOR, FAIR, GOOD = course(0.1, 0.1, 0.1), course(0.5, 0.5, 0.5), course(0.9, 0.9, 0.9)


@pytest.mark.parametrize(
    ("values", "peers", "pruned"),
    [
        (POOR, [GOOD] * 4, True),
        (GOOD, [POOR] * 4, False),
        ({}, [GOOD] * 4, False),
        (course(0.1), [GOOD] * 4, False),
        (course(0.1, 0.1), [GOOD] * 4, False),
        (POOR, [GOOD] * 3, False),
        (POOR, [], False),
        (POOR, [GOOD] * 3 + [course(0.9, 0.9)], False),
        (POOR, [GOOD] * 3 + [{}], False),
        (FAIR, [FAIR] * 4, False),
        (FAIR, [POOR, POOR, GOOD, GOOD], False),
        (course(0.9, 0.1, 0.1), [FAIR] * 4, False),
        (FAIR, [course(0.1, 0.1, 0.1, 0.9)] * 4, False),
        (course(0.5, 0.5, 0.5, 0.5, 0.5), [GOOD] * 4, True),
    ],
    ids=[
        "below the median",
        "above the median",
        "nothing reported",
        "epoch 1",
        "epoch 2",
        "three peers",
        "no peer",
        "a peer that ended in the warm-up is none",
        "a peer without a report is none",
        "a tie is not below",
        "at the median of four",
        "the best so far counts, not the last",
        "later epochs of peers don't count",
        "a peer that ended earlier counts with its best",
    ],
)
def test_rule(values, peers, pruned):
    assert should_prune(values, peers) is pruned


def test_the_defaults_are_the_documented_ones():
    assert (MIN_PEERS, WARMUP_EPOCHS) == (4, 2)


SCORES = st.floats(0, 1)
COURSES = st.lists(SCORES, min_size=3, max_size=6).map(lambda values: course(*values))


@given(COURSES, st.lists(COURSES, min_size=4, max_size=9), st.integers(1, 3), st.floats(0, 1))
def test_a_better_trial_is_never_pruned_where_a_worse_one_goes_on(values, peers, epoch, more):
    better = {**values, epoch: values[epoch] + more}
    if should_prune(better, peers):
        assert should_prune(values, peers)


def share_pruned(rng, num_trials, num_epochs):
    """Run equal configurations one after another, pruned ones staying among the peers."""
    peers, num_pruned = [], 0
    for _ in range(num_trials):
        level, values = rng.normal(), {}
        for epoch in range(1, num_epochs + 1):
            values[epoch] = level
            if epoch < num_epochs and should_prune(values, peers):
                num_pruned += 1
                break
        peers.append(values)
    return num_pruned / num_trials


def test_among_equal_configurations_about_half_are_pruned():
    rng = np.random.default_rng(0)
    shares = [share_pruned(rng, num_trials=60, num_epochs=15) for _ in range(20)]
    assert 0.35 < np.mean(shares) < 0.55
