"""The probe is a regularised logistic regression, given back for features as they are.

Legend: N images, C classes, D features.
"""

import numpy as np
import pytest

from transfer.probe import solve_probe


def features_and_labels(num_classes, num_images=120, scale=1.0, offset=0.0):
    rng = np.random.default_rng(0)
    labels_N = np.arange(num_images) % num_classes
    features_ND = rng.normal(size=(num_images, 6)).astype(np.float32)
    features_ND[:, :num_classes] += 2 * np.eye(num_classes, dtype=np.float32)[labels_N]
    return (features_ND * scale + offset).astype(np.float32), labels_N


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_the_probe_tells_the_classes_apart(num_classes):
    features_ND, labels_N = features_and_labels(num_classes)
    weight_CD, bias_C = solve_probe(features_ND, labels_N)
    assert weight_CD.shape == (num_classes, 6) and bias_C.shape == (num_classes,)
    logits_NC = features_ND @ weight_CD.T + bias_C
    assert (logits_NC.argmax(axis=1) == labels_N).mean() > 1 / num_classes + 0.3


def test_two_classes_get_the_probabilities_of_the_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    features_ND = features_and_labels(2, num_images=4)[0]
    few_ND = np.concatenate([features_ND, features_ND[:1] * -1])
    few_N = np.array([0, 0, 0, 0, 1])  # One image of a class: no cross-validation.
    weight_CD, bias_C = solve_probe(few_ND, few_N)
    logits_NC = few_ND @ weight_CD.T + bias_C
    standardised_ND = (few_ND - few_ND.mean(axis=0)) / few_ND.std(axis=0)
    model = LogisticRegression(C=0.01, max_iter=1000).fit(standardised_ND, few_N)
    expected_NC = model.predict_proba(standardised_ND)
    exponentials = np.exp(logits_NC)
    found_NC = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found_NC, expected_NC, atol=1e-5)


def test_the_probe_does_not_care_for_the_scale_of_the_features():
    labels_N = features_and_labels(3)[1]
    plain_ND, scaled_ND = features_and_labels(3)[0], features_and_labels(3, scale=1e4, offset=7)[0]
    plain, scaled = (
        x @ w.T + b for x in (plain_ND, scaled_ND) for w, b in [solve_probe(x, labels_N)]
    )
    np.testing.assert_allclose(plain, scaled, atol=1e-2)


def test_a_feature_that_never_changes_does_no_harm():
    features_ND, labels_N = features_and_labels(2)
    features_ND[:, 5] = 3.0
    weight_CD, bias_C = solve_probe(features_ND, labels_N)
    assert np.isfinite(weight_CD).all() and np.isfinite(bias_C).all()


def of_subjects(num_subjects, images, seed=0):
    """Images that tell their subject, and little of its class."""
    rng = np.random.default_rng(seed)
    groups_N = rng.permutation(np.repeat(np.arange(num_subjects), images))
    own_GD = rng.normal(size=(num_subjects, 30))
    own_GD[:, 0] += np.arange(num_subjects) % 2
    features_ND = own_GD[groups_N] + 0.1 * rng.normal(size=(len(groups_N), 30))
    return features_ND.astype(np.float32), groups_N % 2, groups_N


def test_the_penalty_is_not_chosen_by_recognising_subjects():
    features_ND, labels_N, groups_N = of_subjects(24, 8)
    further_ND, further_N, _ = of_subjects(200, 1, seed=1)

    def loss(groups_N):
        weight_CD, bias_C = solve_probe(features_ND, labels_N, groups_N)
        logits_NC = further_ND @ weight_CD.T + bias_C
        odds_N = logits_NC[:, 1] - logits_NC[:, 0]
        return np.logaddexp(0, np.where(further_N == 1, -odds_N, odds_N)).mean()

    assert loss(groups_N) < 0.8 * loss(None)


def test_groups_of_one_image_change_nothing():
    features_ND, labels_N, _ = of_subjects(24, 8)
    alone = solve_probe(features_ND, labels_N, np.arange(len(labels_N)))
    plain = solve_probe(features_ND, labels_N)
    assert all(np.array_equal(a, b) for a, b in zip(alone, plain, strict=True))


@pytest.mark.parametrize("num_subjects", [2, 3, 4, 5])
def test_few_subjects_give_a_probe_all_the_same(num_subjects):
    features_ND, labels_N, groups_N = of_subjects(num_subjects, 5)
    weight_CD, _ = solve_probe(features_ND, labels_N, groups_N)
    assert weight_CD.shape == (2, 30) and np.isfinite(weight_CD).all()
