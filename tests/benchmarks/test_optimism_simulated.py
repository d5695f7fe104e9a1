"""Correcting the best of many trials: no wider than needed, and not down to the others.

How far off it is, and how often its interval holds, is `test_simulated_studies`'.
"""

import sys

import numpy as np
from paths import ROOT

from studies.statistics.intervals import wilson_interval

sys.path.insert(0, str(ROOT / "benchmarks"))

from simulated_studies import Search, simulated_search


def test_the_interval_is_no_wider_than_that_of_one_model_needs():
    low, high = wilson_interval(round(0.8 * Search().num_images), Search().num_images)
    for seed in range(10):
        found = simulated_search(Search(), seed)
        assert found.corrected.high - found.corrected.low < 1.2 * (high - low)


def test_a_trial_that_is_truly_better_is_not_corrected_down_to_the_others():
    search = Search(accuracies=(*(0.7,) * 9, 0.9))
    found = [simulated_search(search, seed) for seed in range(30)]
    value = float(np.mean([f.corrected.value for f in found]))
    assert abs(value - 0.9) < 0.02
    assert sum(f.trial == 9 for f in found) >= 28
