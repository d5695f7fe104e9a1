"""A default recipe that was trained by several seeds is one control among the others."""

from types import SimpleNamespace

import numpy as np
import pytest

from studies.evaluation.result import _controls
from studies.results.controls import KEYS

LABELS_N = np.arange(20) % 2


def logits(num_wrong):
    called_N = np.where(np.arange(20) < num_wrong, 1 - LABELS_N, LABELS_N)
    return np.where(np.arange(2) == called_N[:, None], 2.0, -2.0)


def recipe(number, seed):
    params = {"candidate": 0, "seed": seed, "backbone": "resnet18"}
    return SimpleNamespace(
        number=number, keyed_params=params, params=params, strategy="fine_tuning"
    )


def test_its_metrics_are_the_mean_over_its_seeds():
    keyed = dict(zip(KEYS, ("majority", "none", "none"), strict=True))
    majority = SimpleNamespace(number=3, keyed_params=keyed, params=keyed)
    found = SimpleNamespace(on_features=[majority], recipes=[recipe(4, 1), recipe(5, 2)])
    said = SimpleNamespace(
        labels_N=LABELS_N, controls={3: logits(10), 4: logits(2), 5: logits(4)}, groups_N=None
    )
    first, second = _controls(found, said, ("a", "b"))
    assert (first["trial"], first["control"]) == (3, "majority") and "seeds" not in first
    assert (second["trial"], second["seeds"]) == (4, [1, 2])
    assert second["control"] == "default_recipe (fine_tuning)"
    assert second["metrics"]["accuracy"]["value"] == pytest.approx((18 + 16) / 40)
