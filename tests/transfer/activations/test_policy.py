"""What is kept pays for its place: seconds saved against seconds lost and bytes moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.activations.frozen import BlockCost
from transfer.activations.policy import (
    BYTES_PER_SECOND,
    Candidate,
    Occupant,
    choose,
    plan,
    seconds_saved,
)


def candidate(boundary, num_bytes, saved):
    return Candidate(boundary=boundary, num_bytes=num_bytes, seconds_saved=saved)


def occupied(*pairs):
    return [Occupant(num_bytes=num_bytes, seconds=seconds) for num_bytes, seconds in pairs]


SMALL, LARGE = candidate(5, 10, 3.0), candidate(2, 100, 8.0)


@pytest.mark.parametrize(
    ("candidates", "free", "occupants", "expected"),
    [
        ([], 1000, [], None),
        ([SMALL], 10, [], SMALL),
        ([SMALL], 9, [], None),
        ([SMALL, LARGE], 100, [], LARGE),
        ([LARGE, SMALL], 100, [], LARGE),
        ([SMALL, LARGE], 99, [], SMALL),
        ([SMALL, LARGE], 0, [], None),
        # What has to go counts against what comes.
        ([SMALL], 0, occupied((10, 2.9)), SMALL),
        ([SMALL], 0, occupied((10, 3.0)), None),
        ([SMALL], 0, occupied((10, 3.1)), None),
        ([SMALL, LARGE], 0, occupied((10, 1.0), (90, 6.5)), SMALL),
        ([SMALL, LARGE], 0, occupied((10, 1.0), (90, 4.5)), LARGE),
        # They go in their order, only as many as must, and whole.
        ([SMALL], 0, occupied((5, 1.0), (5, 1.0), (5, 9.0)), SMALL),
        ([SMALL], 0, occupied((5, 1.0), (4, 1.0), (5, 9.0)), None),
        ([SMALL], 0, occupied((99, 9.0), (10, 0.0)), None),
        ([SMALL], 10, occupied((99, 9.0)), SMALL),
        # A folder that is too full already has to be emptied first.
        ([SMALL], -10, occupied((10, 1.0)), None),
        ([SMALL], -10, occupied((10, 1.0), (10, 1.0)), SMALL),
        ([SMALL], -10, [], None),
        # Nothing is kept for nothing.
        ([candidate(1, 10, 0.0), candidate(2, 10, -1.0)], 1000, [], None),
        # The first of two that save as much.
        ([SMALL, candidate(6, 10, 3.0)], 10, [], SMALL),
    ],
)
def test_the_candidate_that_saves_most_after_what_has_to_go_for_it_is_chosen(
    candidates, free, occupants, expected
):
    assert choose(candidates, free, occupants) is expected


SIZES, SECONDS = st.integers(1, 100), st.floats(0, 100)
CANDIDATES = st.lists(
    st.builds(
        Candidate, boundary=st.integers(1, 9), num_bytes=SIZES, seconds_saved=st.floats(-10, 100)
    ),
    max_size=6,
)
OCCUPANTS = st.lists(st.builds(Occupant, num_bytes=SIZES, seconds=SECONDS), max_size=6)
FREE = st.integers(-100, 300)


def seconds_lost(chosen, free, occupants):
    """Written anew: the fewest of the first occupants that make room; None if all don't."""
    for count in range(len(occupants) + 1):
        going = occupants[:count]
        if free + sum(o.num_bytes for o in going) >= chosen.num_bytes:
            return sum(o.seconds for o in going)
    return None


def net(chosen, free, occupants):
    """Seconds gained by a choice; none by keeping nothing."""
    if chosen is None:
        return 0.0
    lost = seconds_lost(chosen, free, occupants)
    return float("-inf") if lost is None else chosen.seconds_saved - lost


@given(CANDIDATES, FREE, OCCUPANTS)
def test_what_cannot_fit_or_does_not_pay_is_never_chosen(candidates, free, occupants):
    chosen = choose(candidates, free, occupants)
    if chosen is not None:
        assert chosen in candidates
        assert seconds_lost(chosen, free, occupants) is not None
        assert net(chosen, free, occupants) > 0


@given(CANDIDATES, FREE, OCCUPANTS)
def test_no_other_choice_would_gain_more(candidates, free, occupants):
    gained = net(choose(candidates, free, occupants), free, occupants)
    assert gained == max([0.0, *(net(c, free, occupants) for c in candidates)])


@given(CANDIDATES, FREE, OCCUPANTS, st.integers(0, 300))
def test_more_room_never_gains_less(candidates, free, occupants, more):
    gained = net(choose(candidates, free, occupants), free, occupants)
    roomy = free + more
    assert net(choose(candidates, roomy, occupants), roomy, occupants) >= gained


@pytest.mark.parametrize(
    ("num_rows", "num_uses", "expected"),
    [(10, 10, -2.0), (10, 20, 17.0), (10, 100, 169.0), (25, 20, -14.5)],
)
def test_keeping_saves_every_use_but_the_first_and_costs_a_write_and_reads(
    num_rows, num_uses, expected
):
    saved = seconds_saved(
        seconds=2.0, num_bytes=int(BYTES_PER_SECOND / 10), num_rows=num_rows, num_uses=num_uses
    )
    assert saved == pytest.approx(expected)


def test_fewer_bytes_and_more_seconds_a_row_make_keeping_worth_more():
    given = {"num_rows": 10, "num_uses": 50}
    base = seconds_saved(seconds=1.0, num_bytes=10**6, **given)
    assert seconds_saved(seconds=1.0, num_bytes=10**5, **given) > base
    assert seconds_saved(seconds=1.1, num_bytes=10**6, **given) > base


ROW = 1000
# Early layers are slow, as they are: 4 s, 3 s, 2 s and 1 s an image.
LAYERS = [BlockCost(seconds=float(s), row_shape=(ROW // 4,)) for s in (4, 3, 2, 1)]


def planned(boundary, others, *, start=0, layers=LAYERS, free_bytes=10**9, occupants=(), uses=100):
    return plan(
        layers,
        start,
        boundary,
        num_rows=10,
        num_uses=uses,
        others=others,
        free_bytes=free_bytes,
        occupants=occupants,
    )


@pytest.mark.parametrize(
    ("boundary", "others", "expected"),
    [
        (4, (), [4]),
        (4, (4,), [4]),
        (4, (0, 4), [4]),
        # The next run starts at 1 or at 3: 4 s are sure to be saved, or 9 s with a chance of 1/2.
        (4, (1, 3), [3, 4]),
        # At 1, 2 or 3: 4 s, or 7 s with a chance of 2/3, or 9 s with 1/3.
        (4, (0, 1, 2, 3, 4), [2, 4]),
        # Only what others ask for, and only below what is kept for this run.
        (4, (2,), [2, 4]),
        (3, (2, 4), [2, 3]),
        (2, (3, 4), [2]),
        (1, (1, 2, 3, 4), [1]),
    ],
)
def test_what_the_next_run_is_likely_to_start_from_is_kept_on_the_way(boundary, others, expected):
    assert planned(boundary, others) == expected


def test_what_lies_below_the_start_counts_for_nothing():
    # From 1 on: 3 s are sure to be saved, or 5 s with a chance of 1/2.
    assert planned(4, (0, 1, 2, 3), start=1) == [2, 4]


@pytest.mark.parametrize(("kb_from_limit", "expected"), [(-4, [1, 2]), (4, [2])])
def test_a_boundary_on_the_way_must_save_more_than_its_bytes_cost(kb_from_limit, expected):
    # It saves a second, and is written once and read twice.
    num_bytes = int(BYTES_PER_SECOND / 3) + 1000 * kb_from_limit
    layers = [BlockCost(seconds=1.0, row_shape=(num_bytes // 4,)), LAYERS[1]]
    assert planned(2, (1,), layers=layers, free_bytes=10**12) == expected


@pytest.mark.parametrize(("free_rows", "expected"), [(20, [2, 4]), (19, [4]), (10, [4]), (9, [])])
def test_a_boundary_on_the_way_takes_only_what_the_run_leaves_free(free_rows, expected):
    assert planned(4, (2,), free_bytes=free_rows * ROW) == expected


def test_nothing_goes_for_a_boundary_on_the_way():
    old = occupied(*[(10 * ROW, 0.0)] * 5)
    assert planned(4, (2,), free_bytes=0, occupants=old) == [4]


def test_where_nothing_is_worth_keeping_nothing_is_kept_on_the_way():
    assert planned(4, (2, 3), uses=10) == []


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10**6)), min_size=1, max_size=8),
    st.sets(st.integers(0, 8)),
    st.integers(0, 10**8),
    st.data(),
)
def test_a_plan_is_within_room_and_bounds(costs, others, free_bytes, data):
    layers = [BlockCost(seconds=s, row_shape=(size,)) for s, size in costs]
    start = data.draw(st.integers(0, len(layers) - 1))
    boundary = data.draw(st.integers(start + 1, len(layers)))
    found = planned(boundary, others, start=start, layers=layers, free_bytes=free_bytes)
    assert len(found) <= 2 and found == sorted(set(found))
    assert all(start < end <= boundary for end in found)
    assert all(end in others for end in found[:-1])
    assert 10 * sum(layers[end - 1].num_bytes for end in found) <= free_bytes
