"""Claims of the strategies hold, don't hold, are not shown or not judged: as intervals say."""

import pytest

from studies.report.claims import Measured, claims, holm_adjusted, judge
from studies.statistics.intervals import Interval
from studies.statistics.paired import Measurement, holm


def interval(low, high, p=0.01, **changes):
    return Measurement(value=(low + high) / 2, low=low, high=high, p=p, **changes)


ABOVE, BELOW, ACROSS = interval(0.01, 0.05), interval(-0.05, -0.01), interval(-0.01, 0.05)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (ABOVE, "holds here"),
        (BELOW, "does not hold here"),
        (ACROSS, "not shown"),
        (interval(0.0, 0.1), "not shown"),
        (None, "not measured"),
    ],
)
def test_a_claim_is_judged_by_the_side_on_which_its_interval_lies(found, verdict):
    assert judge(found) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.04, 0.09, "holds here"),
        (0.01, 0.05, "not judged"),  # What choosing may have added reaches that far.
        (-0.01, 0.05, "not judged"),
        (-0.05, -0.005, "not judged"),
        (-0.05, -0.02, "does not hold here"),
    ],
)
def test_on_images_that_chose_it_a_difference_must_lie_beyond_that_choice(low, high, verdict):
    assert judge(interval(low, high, optimism=(0.03, 0.01))) == verdict
    assert judge(interval(low, high, optimism=(float("inf"), float("inf")))) == "not judged"


def test_a_ratio_is_judged_at_one():
    assert judge(interval(1.2, 3.0), at=1.0) == "holds here"
    assert judge(interval(0.2, 0.5), at=1.0) == "does not hold here"


def found_of(**found):
    return claims(Measured(images="test images", num_train=100, **found))


def verdicts(**found):
    return {(c.strategy, c.text.split(",")[0]): c.verdict for c in found_of(**found)}


def test_what_was_not_measured_is_said_not_to_be():
    found = found_of()
    assert len(found) == 8
    assert {claim.verdict for claim in found} == {"not measured"}
    assert sum(claim.is_advantage for claim in found) == 4
    assert holm_adjusted(found) == [None] * 8


def test_memory_that_no_system_told_is_unknown_where_the_seconds_are_known():
    def of_costs(**found):
        told = claims(Measured(images="test images", num_train=100, **found))
        return next(claim.evidence for claim in told if claim.text == "is efficient")

    assert "peak memory unknown" in of_costs(seconds_ratio=ABOVE)
    assert "peak memory unknown" not in of_costs(seconds_ratio=ABOVE, memory_ratio=ABOVE)
    assert of_costs() == []


def test_each_claim_follows_from_its_own_measurement():
    alone = {
        "tuned_over_probe": ("fine_tuning", "learns task-specific features"),
        "tuned_harm": ("fine_tuning", "overfits small data"),
        "tuned_over_extracted": ("feature_extraction", "can't learn task-specific features"),
    }
    for name, key in alone.items():
        found = verdicts(**{name: ABOVE})
        assert found.pop(key) == "holds here", name
        assert set(found.values()) == {"not measured"}, name


def test_being_better_than_the_majority_class_is_not_what_small_data_means():
    everything = {
        "tuned_over_extracted": ABOVE,
        "tuned_over_probe": ABOVE,
        "seconds_ratio": ABOVE,
        "tuned_harm": ABOVE,
    }
    assert verdicts(**everything)["fine_tuning", "works with small data"] == "not measured"


def test_a_gap_between_training_and_validation_alone_is_no_overfitting():
    gap = Interval(value=0.1, low=0.05, high=0.15)
    key = ("fine_tuning", "overfits small data")
    assert verdicts(tuned_gap=gap)[key] == "not measured"
    assert verdicts(tuned_gap=gap, tuned_harm=ACROSS)[key] == "not shown"
    told = {text for claim in found_of(tuned_harm=ACROSS) for text in claim.evidence}
    assert "training minus validation accuracy of the kept network: not measured" in told


def test_of_both_harms_the_difference_says_which_overfits_less():
    key = ("feature_extraction", "overfits less")
    much, little = interval(0.2, 0.3), interval(0.01, 0.03)
    assert verdicts(tuned_harm=much, extracted_harm=little)[key] == "holds here"
    assert verdicts(tuned_harm=little, extracted_harm=much)[key] == "does not hold here"
    assert verdicts(tuned_harm=much, extracted_harm=much)[key] == "not shown"


def test_costs_decide_on_both_strategies():
    found = verdicts(seconds_ratio=interval(5.0, 20.0))
    assert found["fine_tuning", "is costly to train"] == "holds here"
    assert found["feature_extraction", "is efficient"] == "holds here"


KEY = ("feature_extraction", "is worse where pretrained features don't suit")


def test_where_pretrained_features_suit_the_claim_does_not_apply():
    found = found_of(pretrained_over_random=ABOVE, tuned_over_extracted=ABOVE)
    assert found[-1].verdict == "does not apply here"
    assert found[-1].reason == "pretrained features suit (+3.0 points)"
    assert holm_adjusted(found)[-1] is None


@pytest.mark.parametrize("suit", [BELOW, ACROSS])
def test_where_they_are_not_shown_to_suit_the_difference_of_the_strategies_decides(suit):
    assert verdicts(pretrained_over_random=suit, tuned_over_extracted=ABOVE)[KEY] == "holds here"
    assert verdicts(pretrained_over_random=suit, tuned_over_extracted=ACROSS)[KEY] == "not shown"
    assert verdicts(tuned_over_extracted=ABOVE)[KEY] == "not measured"


def test_holm_counts_measurements_and_not_the_claims_that_rest_on_them():
    found = found_of(
        tuned_over_probe=interval(0.01, 0.05, p=0.02),
        seconds_ratio=interval(2.0, 3.0, p=0.001),
        tuned_over_extracted=interval(-0.01, 0.05, p=0.3),
    )
    adjusted = dict(zip(((c.strategy, c.text) for c in found), holm_adjusted(found), strict=True))
    expected = holm([0.02, 0.001, 0.3])
    assert adjusted["fine_tuning", "learns task-specific features"] == expected[0]
    costly = adjusted["fine_tuning", "is costly to train"]
    assert costly == adjusted["feature_extraction", "is efficient"] == expected[1]


def test_p_on_images_that_chose_what_they_measure_is_not_told():
    chosen = interval(0.04, 0.09, p=0.001, optimism=(0.03, 0.0))
    assert holm_adjusted(found_of(tuned_over_probe=chosen)) == [None] * 8


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
                tuned_harm=interval(0.01, 0.03),
            )
        )
        for text in claim.evidence
    }
    over = "fine-tuning over feature extraction (test images): -4.8 points [-8.4, -1.2]"
    assert over in told
    assert any(text.startswith("1,600 training images") for text in told)
    assert "trainable parameters: 414,722 against 2,562" in told
    assert any("20 times [10, 30]" in text for text in told)
    assert any("0.71; of pretrained ones and those of random weights: 0.20" in t for t in told)
    assert any("on other images: +0.020 nats [+0.010, +0.030]" in text for text in told)
