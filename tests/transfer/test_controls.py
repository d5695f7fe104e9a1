"""Classifiers that every network must beat: fitted to training features alone.

Shapes: N images, D features, C classes.
"""

import numpy as np
import pytest
from bundles import run_study

from studies.cli.search import main
from studies.results.study import open_study
from studies.search.controls import controls_of, log_probabilities
from transfer.controls import CONTROLS, NUM_NEIGHBOURS, ON_FEATURES


def blobs(num_images=60, num_classes=2, seed=0):
    """Features whose classes stand apart."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_images) % num_classes
    centres_CD = 4 * np.eye(num_classes, 5)
    features_ND = centres_CD[labels_N] + rng.normal(size=(num_images, 5))
    return features_ND.astype(np.float32), labels_N


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_control_gives_probabilities_of_every_class(name, num_classes):
    features_ND, labels_N = blobs(num_classes=num_classes)
    probabilities_NC = CONTROLS[name](features_ND, labels_N, num_classes)(features_ND[:7])
    assert probabilities_NC.shape == (7, num_classes)
    assert np.allclose(probabilities_NC.sum(axis=1), 1) and (probabilities_NC >= 0).all()


@pytest.mark.parametrize("name", ["knn", "logistic_regression"])
def test_classes_that_stand_apart_are_told_on_other_images(name):
    predict = CONTROLS[name](*blobs(seed=0), 2)
    others_ND, labels_N = blobs(seed=1)
    assert (predict(others_ND).argmax(axis=1) == labels_N).mean() > 0.9


def test_the_majority_is_that_of_the_training_images_whatever_the_image():
    predict = CONTROLS["majority"](np.zeros((4, 0), np.float32), np.array([1, 1, 0, 1]), 3)
    assert predict(np.zeros((2, 0), np.float32)).tolist() == [[0.25, 0.75, 0.0]] * 2


def test_a_feature_on_a_large_scale_does_not_decide_alone_on_neighbours():
    features_ND, labels_N = blobs()
    noise_N = 1e4 * np.random.default_rng(0).normal(size=len(labels_N))
    wide_ND = np.column_stack([features_ND, noise_N]).astype(np.float32)
    predict = CONTROLS["knn"](wide_ND, labels_N, 2)
    assert (predict(wide_ND).argmax(axis=1) == labels_N).mean() > 0.9


def test_fewer_images_than_neighbours_are_enough():
    features_ND, labels_N = blobs(num_images=4)
    assert NUM_NEIGHBOURS > 4
    assert CONTROLS["knn"](features_ND, labels_N, 2)(features_ND).tolist() == [[0.5, 0.5]] * 4


def test_logits_of_probabilities_give_them_back():
    probabilities_NC = np.array([[0.25, 0.75], [1.0, 0.0]])
    exponentials_NC = np.exp(log_probabilities(probabilities_NC).astype(np.float64))
    softmax_NC = exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True)
    assert np.allclose(softmax_NC, probabilities_NC, atol=1e-5)


def test_every_backbone_has_its_controls_pretrained_and_random():
    found = controls_of(("a", "b"), "imagenet")
    assert len(found) == len(set(found)) == 1 + 2 * 2 * 2
    assert {c.weights for c in found if c.backbone == "a"} == {"imagenet", "random"}
    assert len(controls_of(("a",), "random")) == 1 + 2


def test_a_control_that_is_new_joins_those_of_a_stored_study(tmp_path, monkeypatch):
    """As a parameter of Optuna's it could not: the values of one must not change."""
    url = run_study(tmp_path, trials=2)
    before = open_study("s", url).controls
    more = {**ON_FEATURES, "centroids": ON_FEATURES["knn"]}
    monkeypatch.setattr("studies.search.controls.ON_FEATURES", more)
    monkeypatch.setattr("studies.search.controls.CONTROLS", {**CONTROLS, **more})
    assert main(["confirm", "s", "--storage", url, "--cache-dir", str(tmp_path / "cache")]) == 0
    after = open_study("s", url).controls
    new = [run.params for run in after if run.number not in {run.number for run in before}]
    assert [params["control"] for params in new] == ["centroids"]
    assert all(old in after for old in before)
