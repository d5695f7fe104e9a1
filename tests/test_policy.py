"""What is kept pays for its place: seconds saved against seconds lost and bytes moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.policy import BYTES_PER_SECOND, Candidate, Occupant, choose, seconds_saved


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
