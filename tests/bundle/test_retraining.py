"""A training is repeated on the same data from the same weights, or refused."""

from dataclasses import replace

import numpy as np
import pytest
from bundles import bundle_config

from studies.bundle.config import MODEL, SCRIPT
from studies.bundle.reproduce import (
    Places,
    Recipe,
    find_same_weights,
    load_same_data,
    train_again,
    with_validation_images,
)
from studies.errors import UserError
from studies.terminal.progress import LineProgress
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source

HASHES = {MODEL: "0" * 64, SCRIPT: "0" * 64}
TEXT = "phantom:train=40,test=10,size=32"


@pytest.fixture
def places(tmp_path):
    return Places(cache_dir=tmp_path / "cache", device="cpu")


@pytest.fixture
def recipe(places):
    """A recipe of the phantom's data as they are."""
    given = Recipe.of(bundle_config(HASHES))
    data = load_data(open_source(TEXT), image_size=32, seed=0, cache_dir=places.cache_dir)
    origin = given.data.model_copy(update={"source": TEXT, "fingerprint": data.fingerprint})
    weights = given.weights.model_copy(update={"kind": "random", "sha256": "random-0", "seed": 0})
    return replace(given, data=origin, weights=weights)


def test_the_same_data_are_split_as_the_study_split_them(recipe, places):
    data = load_same_data(recipe, places, LineProgress())
    other = recipe.study.model_copy(update={"split_seed": 5})
    again = load_same_data(replace(recipe, study=other), places, LineProgress())
    assert data.fingerprint == again.fingerprint
    assert not np.array_equal(data.val.positions_N, again.val.positions_N)


def test_other_data_are_refused_with_both_fingerprints(recipe, places):
    elsewhere = replace(places, data="phantom:train=42,test=10,size=32")
    expected = recipe.data.fingerprint[:12]
    with pytest.raises(UserError, match=f"expected {expected}.*--data"):
        load_same_data(recipe, elsewhere, LineProgress())


def test_other_weights_are_refused(recipe, places):
    assert find_same_weights(recipe, places).sha256 == "random-0"
    other = recipe.weights.model_copy(update={"sha256": "abc"})
    with pytest.raises(UserError, match=r"are not those that the study had.*--weights-dir"):
        find_same_weights(replace(recipe, weights=other), places)


def test_training_and_validation_images_together_are_all_in_their_order(recipe, places):
    data = load_same_data(recipe, places, LineProgress())
    together = with_validation_images(data)
    assert together.train.positions_N.tolist() == list(range(len(data)))
    assert together.val is data.val
    for split in (data.train, data.val):
        assert np.array_equal(together.train.labels_N[split.positions_N], split.labels_N)


def test_so_many_epochs_as_are_asked_for_and_the_last_one_counts(recipe, places):
    data = load_same_data(recipe, places, LineProgress())
    given = (recipe, data, find_same_weights(recipe, places), places, LineProgress())
    result = train_again(*given, num_epochs=3)
    assert len(result.history) == result.best_epoch == 3
