"""A domain classifier: chance where two sets are alike, near 1 where they are not, never fooled.

Shapes: N and M images, D features, U = N + M.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from studies.explanation.domain import (
    INVERSE_PENALTY,
    _fit,
    auroc,
    find_domains,
    matched,
    out_of_fold,
    permutation_p,
)


def sets(seed, first=80, second=80, features=300, moved=0.0):
    """Two sets of images; the second is moved along one of the stronger features."""
    rng = np.random.default_rng(seed)
    spreads_D = 1 / np.sqrt(np.arange(1, features + 1))
    first_ND, second_MD = (rng.normal(size=(n, features)) * spreads_D for n in (first, second))
    mixed = np.random.default_rng(0).normal(size=(features, features))
    second_MD[:, 2] += moved * spreads_D[2]
    return first_ND @ mixed, second_MD @ mixed


def share_matched(domains, which):
    return matched(domains, out_of_fold(domains))[domains.is_second_U == which].mean()


@pytest.mark.parametrize(("first", "second"), [(60, 60), (40, 200)])
def test_sets_that_are_alike_are_told_apart_no_more_often_than_by_chance(first, second):
    found = [auroc(find_domains(*sets(seed, first, second), seed=seed)) for seed in range(60)]
    assert all(interval.high >= 0.5 for interval in found)
    outside = sum(interval.low > 0.5 for interval in found)
    assert outside <= binom.ppf(0.999, len(found), 0.025)
    assert np.mean([interval.value for interval in found]) == pytest.approx(0.5, abs=0.03)


def test_delongs_interval_alone_would_be_too_narrow():
    values = [auroc(find_domains(*sets(seed), seed=seed)).value for seed in range(60)]
    interval = auroc(find_domains(*sets(0)))
    assert np.std(values) > 1.2 * (interval.high - interval.low) / (2 * 1.96 * 2**0.5)


def test_the_further_a_set_is_moved_the_better_it_is_told_apart_and_the_less_is_matched():
    found = [find_domains(*sets(1, moved=moved)) for moved in (0, 1, 2, 4)]
    values = [auroc(domains).value for domains in found]
    shares = [share_matched(domains, 1) for domains in found]
    assert values == sorted(values) and values[-1] > 0.95
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.2


@pytest.mark.parametrize("moved", [0.0, 1.0, 2.0])
def test_both_sets_have_about_the_same_share_in_common(moved):
    domains = find_domains(*sets(3, 200, 400, moved=moved))
    assert share_matched(domains, 0) == pytest.approx(share_matched(domains, 1), abs=0.06)


def test_scores_that_say_nothing_leave_every_image_matched():
    domains = find_domains(*sets(0))
    assert (matched(domains, np.zeros(160)) == 1).all()
    wrong_way_U = -out_of_fold(find_domains(*sets(0, moved=3.0)))
    assert (matched(domains, wrong_way_U) == 1).all()


def test_an_image_is_judged_by_classifiers_that_have_not_seen_it():
    first_ND, second_MD = sets(0)
    before_U = out_of_fold(find_domains(first_ND, second_MD))
    domains = find_domains(first_ND, second_MD)
    of_fold = domains.fold_U == domains.fold_U[0]
    counts_U = np.where(of_fold, 7.0, 1.0)
    np.testing.assert_allclose(out_of_fold(domains, counts_U)[of_fold], before_U[of_fold])


def test_an_image_that_counts_twice_is_two_images():
    domains = find_domains(*sets(0, moved=1.0))
    keep = np.ones(160, bool)
    counts_U = np.where(np.arange(160) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(160), counts_U.astype(int))
    doubled = type(domains)(
        components_UK=domains.components_UK[twice],
        is_second_U=domains.is_second_U[twice],
        fold_U=domains.fold_U[twice],
        group_U=np.arange(len(twice)),
    )
    np.testing.assert_allclose(
        out_of_fold(domains, counts_U)[keep], out_of_fold(doubled)[np.unique(twice, True)[1]]
    )


@pytest.mark.parametrize(("images", "components"), [(30, 3), (200, 40), (12, 1)])
@pytest.mark.parametrize("apart", [0.0, 0.5, 40.0])
def test_the_logistic_regression_is_scikit_learns(images, components, apart):
    rng = np.random.default_rng(0)
    is_second_N = np.arange(images) % 2
    known_NK = rng.normal(size=(images, components)) / components**0.5
    known_NK[:, 0] += apart * is_second_N
    weights_N = rng.integers(1, 4, images).astype(float)
    slopes_K, intercept = _fit(known_NK, is_second_N, weights_N, INVERSE_PENALTY)
    theirs = LogisticRegression(C=INVERSE_PENALTY, tol=1e-10, solver="newton-cholesky")
    theirs.fit(known_NK, is_second_N, sample_weight=weights_N)
    np.testing.assert_allclose(slopes_K, theirs.coef_[0], atol=1e-3)
    assert intercept == pytest.approx(theirs.intercept_[0], abs=1e-3)


@pytest.mark.parametrize("first", [0, 1, 2, 4])
def test_too_few_images_are_not_told_apart(first):
    assert find_domains(*sets(0, first, 50)) is None


def test_constant_features_tell_nothing():
    assert find_domains(np.ones((20, 3)), np.ones((20, 3))) is None
    some_ND = np.column_stack([np.ones(40), np.arange(40) % 7.0])
    assert 0 < auroc(find_domains(some_ND[:20], some_ND[20:])).value < 1


def test_the_scale_of_the_features_does_not_matter():
    first_ND, second_MD = sets(0, moved=1.0)
    scale_D = np.random.default_rng(1).uniform(0.01, 100, 300)
    there = auroc(find_domains(first_ND * scale_D, second_MD * scale_D))
    assert there.value == pytest.approx(auroc(find_domains(first_ND, second_MD)).value, abs=1e-6)


def test_half_precision_will_do():
    halves = [features.astype(np.float16) for features in sets(0, moved=1.0)]
    assert auroc(find_domains(*halves)).value == pytest.approx(
        auroc(find_domains(*sets(0, moved=1.0))).value, abs=0.01
    )


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"same features.*\(9, 3\).*\(9, 4\)"):
        find_domains(np.ones((9, 3)), np.ones((9, 4)))
    with pytest.raises(ValueError, match=r"finite.*for 1 images"):
        find_domains(np.ones((9, 3)), np.array([[1, np.nan, 1]] + [[1, 2, 3]] * 8))


def subjects(seed, first=20, second=30, images=4, features=60, moved=0.0):
    """Sets of a few images of each subject, which look alike; the second set may be moved."""
    rng = np.random.default_rng(seed)
    spreads_D = 1 / np.sqrt(np.arange(1, features + 1))
    found = []
    for num_subjects in (first, second):
        of_subject = np.repeat(rng.normal(size=(num_subjects, features)), images, axis=0)
        own = rng.normal(size=of_subject.shape)
        groups_N = np.repeat(np.arange(num_subjects), images)
        found.append((spreads_D * (of_subject + own) / 2**0.5, groups_N))
    found[1][0][:, 0] += moved
    return [features_ND for features_ND, _ in found], tuple(groups_N for _, groups_N in found)


def test_images_of_one_subject_are_in_one_fold():
    features, groups = subjects(0)
    domains = find_domains(*features, groups=groups)
    for group in range(50):
        assert len(set(domains.fold_U[domains.group_U == group])) == 1
    # The same name in both sets is not the same subject.
    assert domains.group_U.max() == 49


def test_subjects_are_not_mistaken_for_a_shift():
    by_image, by_subject = [], []
    for seed in range(6):
        features, groups = subjects(seed)
        by_image.append(auroc(find_domains(*features)).value)
        by_subject.append(auroc(find_domains(*features, groups=groups)).value)
    assert np.mean(by_image) > 0.65
    assert np.mean(by_subject) == pytest.approx(0.5, abs=0.08)


def test_the_interval_of_few_subjects_is_wider_than_that_of_their_images():
    features, groups = subjects(0)
    by_subject = find_domains(*features, groups=groups)
    by_image = replace(by_subject, group_U=np.arange(200))
    wide, narrow = auroc(by_subject), auroc(by_image)
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_sets_of_the_same_subjects_at_large_are_seldom_told_apart():
    p_values = []
    for seed in range(20):
        features, groups = subjects(seed, 10, 10)
        p_values.append(permutation_p(find_domains(*features, groups=groups, seed=seed)))
    assert sum(p < 0.05 for p in p_values) <= binom.ppf(0.999, 20, 0.05)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.25)


def test_a_set_that_is_moved_is_told_apart_by_subject_as_well():
    features, groups = subjects(0, moved=3.0)
    assert permutation_p(find_domains(*features, groups=groups)) == 1 / 200


def test_other_shares_of_the_classes_are_no_shift():
    rng = np.random.default_rng(0)
    labels_U = np.concatenate([np.arange(60) < 12, np.arange(60) < 48]).astype(int)
    features_UD = rng.normal(size=(120, 5)) + 3.0 * labels_U[:, None]
    domains = find_domains(features_UD[:60], features_UD[60:])
    assert auroc(domains).low > 0.5
    assert permutation_p(domains) == 1 / 200
    assert permutation_p(domains, labels_U) > 0.05


def test_fewer_than_five_subjects_tell_nothing():
    features, groups = subjects(0, first=4, images=10)
    assert find_domains(*features, groups=groups) is None
    assert find_domains(*features) is not None
