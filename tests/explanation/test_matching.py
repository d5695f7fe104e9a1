"""Weights of images at each stage: classes keep their shares, matched images stay."""

from dataclasses import replace

import numpy as np
import pytest
from planted import evidence, seen

from studies.explanation.shift import Seen, Stage, check_seen, match


def matching(seed=0, num_resamples=3, add=True, **planted):
    val, test = seen(evidence(seed, **planted))
    return match(val, test, num_resamples=num_resamples, add=add, seed=seed)


def shares(found, share=0.3):
    return np.tile([1 - share, share], (len(found.counts_RU), 1))


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("shift", [0.0, 1.0, 9.0])
def test_classes_weigh_what_they_are_given(stage, shift):
    found = matching(shift=shift)
    weights_RU = found.weights(stage, shares(found))
    for label, share in enumerate((0.7, 0.3)):
        of_class_R = weights_RU[:, found.labels_U == label].sum(axis=1)
        np.testing.assert_allclose(of_class_R, share)


def test_validation_and_test_stages_have_their_own_images_alone():
    found = matching(shift=1.0)
    assert (found.weights(Stage.VALIDATION, shares(found))[:, found.is_test_U] == 0).all()
    assert (found.weights(Stage.TEST, shares(found))[:, ~found.is_test_U] == 0).all()


def test_what_is_replaced_grows_with_the_shift_in_its_class_alone():
    common = [matching(shift=shift).matched_RC[0] for shift in (0.0, 1.0, 2.0, 9.0)]
    moved, other = np.transpose(common)
    assert list(moved) == sorted(moved, reverse=True) and moved[-1] < 0.02
    assert min(other) > 0.7


def test_replaced_by_unmatched_test_images_in_their_share():
    found = matching(shift=2.0)
    weights_RU = found.weights(Stage.MATCHED, np.tile([1.0, 0.0], (4, 1)))
    np.testing.assert_allclose(
        weights_RU[:, found.is_test_U].sum(axis=1), 1 - found.matched_RC[:, 0]
    )


def test_a_resample_fits_its_own_domain_classifier():
    found = matching(shift=1.0)
    assert len({tuple(row) for row in found.matched_RU.round(6).tolist()}) == 4


def test_images_added_count_in_resamples_alone_and_are_as_matched_as_the_average():
    found, plain = matching(shift=1.0), matching(shift=1.0, add=False)
    added = np.arange(len(found.labels_U)) >= len(plain.labels_U)
    assert added.sum() == 8
    assert (found.counts_RU[0, added] == 0).all() and found.counts_RU[1:, added].any()
    np.testing.assert_array_equal(found.matched_RU[0, ~added], plain.matched_RU[0])
    right = found.probabilities_SUC[:, added].argmax(axis=2) == found.labels_U[added]
    np.testing.assert_array_equal(right, [[True, False] * 4] * 2)
    for is_test in (False, True):
        mine = (found.labels_U == 0) & (found.is_test_U == is_test)
        average = found.matched_RU[0, mine & ~added].mean()
        assert found.matched_RU[0, mine & added] == pytest.approx([average] * 2)


@pytest.mark.parametrize("missing", ["val", "test"])
def test_a_class_that_one_set_lacks_has_nothing_in_common(missing):
    val, test = seen(evidence(0))

    def only_class_1(given):
        keep = given.labels_N == 1
        return Seen(
            labels_N=given.labels_N[keep],
            probabilities_SNC=given.probabilities_SNC[:, keep],
            features_ND=given.features_ND[keep],
        )

    pair = (only_class_1(val), test) if missing == "val" else (val, only_class_1(test))
    found = match(*pair, num_resamples=2, add=True, seed=0)
    assert (found.matched_RC[:, 0] == 0).all() and (found.matched_RC[:, 1] > 0.5).all()
    assert np.isfinite(found.weights(Stage.MATCHED, np.full((3, 2), 0.5))).all()


def test_a_class_of_two_images_can_not_be_told_apart_and_counts_as_matched():
    found = matching(num_val=100, val_share=0.02, shift=3.0)
    np.testing.assert_allclose(found.matched_RC[:, 1], 1)


def test_images_of_which_something_is_missing_are_refused():
    val, _ = seen(evidence(0))
    with pytest.raises(ValueError, match="99 images and 100 labels"):
        check_seen(replace(val, features_ND=val.features_ND[1:]))
    with pytest.raises(ValueError, match="three axes"):
        check_seen(replace(val, probabilities_SNC=val.probabilities_SNC[0]))
