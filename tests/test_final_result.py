"""Two models are compared that had the same seed, where there is one."""

from types import SimpleNamespace

import pytest

from studies.final_result import _same_seed


def finalists(first, second):
    def candidate(seeds):
        return SimpleNamespace(runs=[SimpleNamespace(params={"seed": seed}) for seed in seeds])

    return SimpleNamespace(
        candidates={"fine_tuning": candidate(first), "feature_extraction": candidate(second)}
    )


@pytest.mark.parametrize(
    ("first", "second", "places"),
    [([1, 2, 3], [1, 2, 3], (0, 0)), ([3], [1, 2, 3], (0, 2)), ([2], [1, 3], (0, 0))],
)
def test_the_pair_of_two_models_shares_a_seed(first, second, places):
    assert _same_seed(finalists(first, second)) == places
