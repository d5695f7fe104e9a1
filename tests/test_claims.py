"""Claims of the strategies hold, don't hold or are not shown: as their intervals say."""

import numpy as np
import pytest
from scipy.stats import binom

from studies.claims import Measured, claims, gap_difference, gap_interval, geometric_ratio, judge
from studies.statistics import Interval


def interval(low, high):
    return Interval(value=(low + high) / 2, low=low, high=high)


ABOVE, BELOW, ACROSS = interval(0.01, 0.05), interval(-0.05, -0.01), interval(-0.01, 0.05)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (ABOVE, "holds here"),
        (BELOW, "does not hold here"),
        (ACROSS, "not shown"),
        (interval(0.0, 0.1), "not shown"),
        (None, "not shown"),
    ],
)
def test_a_claim_is_judged_by_the_side_on_which_its_interval_lies(found, verdict):
    assert judge(found) == verdict


def test_a_ratio_is_judged_at_one_and_some_claims_turn_round():
    assert judge(interval(1.2, 3.0), at=1.0) == "holds here"
    assert judge(interval(0.2, 0.5), at=1.0) == "does not hold here"
    assert judge(ABOVE, above="does not hold here") == "does not hold here"
    assert judge(BELOW, above="does not hold here") == "holds here"


def verdicts(**found):
    told = claims(Measured(images="test images", num_train=100, **found))
    return {(c.strategy, c.text.split(",")[0]): c.verdict for c in told}


def test_what_was_not_measured_is_not_shown():
    found = claims(Measured(images="test images", num_train=100))
    assert len(found) == 8
    assert {claim.verdict for claim in found} == {"not shown"}
    assert sum(claim.is_advantage for claim in found) == 4


def test_each_claim_follows_from_its_own_measurement():
    alone = {
        "tuned_over_probe": ("fine_tuning", "learns task-specific features"),
        "tuned_over_majority": ("fine_tuning", "works with small data"),
        "tuned_gap": ("fine_tuning", "overfits small data"),
        "gap_difference": ("feature_extraction", "overfits less"),
        "tuned_over_extracted": ("feature_extraction", "can't learn task-specific features"),
    }
    for name, key in alone.items():
        found = verdicts(**{name: ABOVE})
        assert found.pop(key) == "holds here", name
        assert set(found.values()) == {"not shown"}, name


def test_costs_decide_on_both_strategies():
    found = verdicts(seconds_ratio=interval(5.0, 20.0))
    assert found["fine_tuning", "is costly to train"] == "holds here"
    assert found["feature_extraction", "is efficient"] == "holds here"


def test_pretrained_features_that_help_suit_the_task():
    key = ("feature_extraction", "is worse where pretrained features don't suit")
    assert verdicts(pretrained_over_random=ABOVE)[key] == "does not hold here"
    assert verdicts(pretrained_over_random=BELOW)[key] == "holds here"


def test_the_evidence_tells_the_numbers():
    told = {
        text
        for claim in claims(
            Measured(
                images="test images",
                num_train=1600,
                tuned_over_extracted=interval(-0.084, -0.012),
                seconds_ratio=interval(10, 30),
                parameters=(414_722, 2_562),
                similarity=0.71,
                random_similarity=0.2,
            )
        )
        for text in claim.evidence
    }
    assert "fine-tuning over feature extraction: -4.8 points [-8.4, -1.2]" in told
    assert "1,600 training images" in told and "on test images" in told
    assert "trainable parameters: 414,722 against 2,562" in told
    assert any("20 times [10, 30]" in text for text in told)
    assert any("0.71; of pretrained ones and those of random weights: 0.20" in t for t in told)


def test_a_ratio_of_equal_costs_is_covered_and_wide_with_few_trials():
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second = (np.exp(rng.normal(0, 0.5, 6)) * k for k in (3.0, 1.0))
        found = geometric_ratio(first, second)
        covered += found.low <= 3.0 <= found.high
    assert covered >= binom.ppf(0.001, 200, 0.95)
    assert geometric_ratio([1.0], [2.0, 3.0]) is None
    assert geometric_ratio([2.0, 2.0], [1.0, 1.0]) == Interval(value=2.0, low=2.0, high=2.0)


def test_a_gap_is_as_unsure_as_the_validation_accuracy():
    gap = gap_interval(0.95, Interval(value=0.9, low=0.85, high=0.93))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.05, 0.02, 0.10))
    difference = gap_difference((0.99, 0.95), Interval(value=0.01, low=-0.01, high=0.03))
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.03, 0.01, 0.05))
