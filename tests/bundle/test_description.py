"""What a bundle says of its model is what the study has of it."""

import pytest
from bundles import run_study

from studies.bundle.config import MODEL, SCRIPT
from studies.bundle.export import best_predictions, config_of, find_chosen_run, recipe_of
from studies.database.storage import open_existing
from studies.statistics.calibration import Calibration


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    storage = open_existing(run_study(tmp_path_factory.mktemp("home")))
    chosen = find_chosen_run(storage, "s", None)
    return chosen, best_predictions(storage, chosen.run)


def test_a_recipe_has_all_that_fixes_the_numbers(found):
    chosen, _ = found
    recipe, identity = recipe_of(chosen, "s", "sqlite:////x.db"), chosen.study.identity
    assert recipe.config == chosen.config and recipe.image_size == 32
    assert (recipe.study.seed, recipe.study.split_seed) == (1, 0)
    assert recipe.study.threads == identity["threads"]
    assert recipe.data.fingerprint == identity["data"]["fingerprint"]
    assert recipe.weights.sha256 == identity["weights"][chosen.config.backbone]


def test_a_config_has_the_numbers_of_the_run_and_of_the_search(found):
    chosen, (logits_NC, labels_N) = found
    recipe = recipe_of(chosen, "s", "sqlite:////x.db")
    config = config_of(
        chosen,
        recipe,
        logits_NC,
        labels_N,
        {MODEL: "0" * 64, SCRIPT: "0" * 64},
        calibration=Calibration(scale=0.5, biases=(0.0, 0.1)),
        module=None,
        refit=False,
    )
    assert (config.calibration.scale, config.calibration.biases) == (0.5, (0.0, 0.1))
    assert 0 < config.threshold < 1
    assert config.validation.value == chosen.run.value
    assert config.validation.values == tuple(chosen.candidate.values)
    assert config.validation.num_images == len(labels_N) == 12
    assert config.search.num_trials == 4 and config.classes == ("NORMAL", "OPACITY")
