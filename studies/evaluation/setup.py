"""Everything the final test evaluation needs, found while the seal is whole.

Knows data, weights and trained parts; opens no test image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from studies.bundle.bundle import Bundle
from studies.bundle.chosen_run import read_trained
from studies.bundle.retraining import Places, Recipe, find_same_weights, load_same_data
from studies.database.storage import StudyStorage
from studies.errors import UserError
from studies.evaluation.finalists import Finalists
from studies.results.controls import KEYS, NONE
from studies.watchers import Progress
from transfer.cache import cache_folder
from transfer.data.loading import ImageData
from transfer.device import choose_device
from transfer.messages import one_line
from transfer.weights.find import WeightFile, find_weights
from transfer.weights.whole import HEAD


@dataclass(frozen=True, kw_only=True)
class Ready:
    """All that the evaluation needs at hand, found before the seal is broken."""

    data: ImageData
    weights: Mapping[str, WeightFile]
    random_weights: Mapping[str, WeightFile]
    device: torch.device
    cache_dir: Path


def get_ready(
    storage: StudyStorage, bundle: Bundle, found: Finalists, places: Places, progress: Progress
) -> Ready:
    """Find data, weights and trained parts, so that nothing is missing once the seal is broken.

    Raises:
        UserError, ValueError: something is missing or not the study's.
    """
    device, cache_dir = choose_device(places.device), cache_folder(places.cache_dir)
    _check_trained(storage, bundle, found)
    recipe, settings = Recipe.of(found.bundle), found.study.settings
    weights = {}
    for backbone in _backbones(found):
        origin = recipe.weights.model_copy(
            update={
                "sha256": found.study.identity["weights"][backbone],
                "path": found.study.weight_places.get(backbone),
            }
        )
        config = replace(recipe.config, backbone=backbone)
        same = replace(recipe, config=config, weights=origin)
        weights[backbone] = find_same_weights(same, places)
    # Controls were fitted to the training images of the study, whatever split the bundle had.
    split = recipe.study.model_copy(update={"split_seed": settings["seed"]})
    here = recipe.data.model_copy(update={"source": found.study.data_place})
    same = replace(recipe, study=split, data=here)
    data = load_same_data(same, places, progress, backbones=weights)
    if data.test_fingerprint != found.bundle.data.test_fingerprint:
        raise ValueError(
            f"The test images or labels are not those of study '{found.name}' (fingerprint "
            f"{data.test_fingerprint[:12]}, expected {found.bundle.data.test_fingerprint[:12]}); "
            "name the study's data with --data."
        )
    deep = [fact for fact in data.kept["test"].facts if ";16" in fact.mode]
    if deep and data.window is None:
        raise ValueError(
            f"{len(deep)} test images have 16 bits, but the training images have 8, so that "
            "nothing says how they become images of 8 bits; convert them."
        )
    return Ready(
        data=data,
        weights=weights,
        random_weights={
            backbone: find_weights(backbone, weights="random", seed=settings["seed"])
            for backbone in weights
        },
        device=device,
        cache_dir=cache_dir,
    )


def _check_trained(storage: StudyStorage, bundle: Bundle, found: Finalists) -> None:
    """Read every trained part once, and see that the bundle's is the one that it says."""
    origin = found.bundle.study
    for run in [*(r for c in found.candidates.values() for r in c.runs), *found.recipes]:
        try:
            state = read_trained(storage, run)
        except SafetensorError as error:
            raise UserError(
                f"The weights of trial {run.number} over seeds are damaged ({one_line(error)}); "
                f"take the folder {storage.files} back from a copy."
            ) from None
        is_bundle = run in found.candidates[str(found.bundle.config.strategy)].runs
        if is_bundle and run.number == origin.confirm_trial and not found.bundle.refit:
            same = all(torch.equal(state[key].float(), bundle.head[key]) for key in HEAD)
            if not same:
                raise UserError(
                    f"The model in {bundle.folder} is not the training that it says it is (trial "
                    f"{run.number} of {origin.name}/confirm); export it again."
                )


def _backbones(found: Finalists) -> list[str]:
    trained = [run.config["backbone"] for c in found.candidates.values() for run in c.runs]
    trained += [run.config["backbone"] for run in found.recipes]
    looked_at = [run.keyed_params[KEYS[1]] for run in found.on_features]
    return [name for name in dict.fromkeys([*trained, *looked_at]) if name != NONE]
