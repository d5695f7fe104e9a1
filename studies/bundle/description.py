"""What a bundle says of its model, gathered from the study that it comes from.

Knows a chosen run and the values of `bundle_config`; writes nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from studies.bundle.chosen_run import ChosenRun
from studies.bundle.config import (
    BundleConfig,
    DataOrigin,
    ModuleOrigin,
    Preprocessing,
    Scaling,
    Search,
    StudyOrigin,
    Validation,
    WeightsOrigin,
    configuration_of,
)
from studies.bundle.retraining import Recipe
from studies.data_check import ALLOWANCES
from studies.database.trials import SEED, count_states
from studies.statistics.calibration import (
    Calibration,
    Labels,
    find_threshold,
    negative_log_likelihood,
)


def recipe_of(found: ChosenRun, name: str, storage: str) -> Recipe:
    """The training that is exported, with all that fixes its numbers."""
    identity, settings = found.study.identity, found.study.settings
    data, check = identity["data"], found.study.data_check or {}
    seed = int(found.run.params[SEED])
    resplit = found.confirmed.resplit
    backbone = found.config.backbone
    return Recipe(
        config=found.config,
        image_size=settings["image_size"],
        resize=settings["resize"],
        study=StudyOrigin(
            name=name,
            search_id=found.study.search_id,
            storage=storage,
            trial=found.candidate.number,
            confirm_trial=found.run.number,
            seeds=tuple(found.confirmed.seeds),
            seed=seed,
            split_seed=seed if resplit else settings["seed"],
            resplit=resplit,
            threads=identity["threads"],
        ),
        data=DataOrigin(
            source=found.study.data_place,
            group_pattern=data.get("group_pattern"),
            fingerprint=data["fingerprint"],
            test_fingerprint=data["test_fingerprint"],
            counts=data["counts"],
            flags=check.get("flags", dict.fromkeys(ALLOWANCES, False)),
            allowed=tuple(check.get("allowed", ())),
            warnings=tuple(check.get("warnings", ())),
            left_out=check.get("left_out", {}),
        ),
        weights=WeightsOrigin(
            kind=settings["weights"],
            sha256=identity["weights"][backbone],
            seed=settings["seed"],
            path=found.study.weight_places.get(backbone),
        ),
    )


def config_of(
    found: ChosenRun,
    recipe: Recipe,
    logits_NC: NDArray[np.float32],
    labels_N: Labels,
    files: Mapping[str, str],
    *,
    calibration: Calibration,
    module: ModuleOrigin | None,
    refit: bool,
) -> BundleConfig:
    """The bundle's config; the threshold is found on these logits, calibrated."""
    identity, run, confirmed = found.study.identity, found.run, found.confirmed
    assert run.best is not None and run.value is not None and run.best_epoch is not None
    window = identity["data"].get("window")
    backbone = identity["backbones"][recipe.config.backbone]
    counts = count_states(found.records)
    return BundleConfig(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        configuration=configuration_of(recipe.config),
        classes=tuple(identity["data"]["classes"]),
        preprocessing=Preprocessing(
            image_size=recipe.image_size,
            resize=recipe.resize,
            interpolation=backbone["interpolation"],
            mean=tuple(backbone["mean"]),
            std=tuple(backbone["std"]),
            window=None if window is None else tuple(window),
        ),
        calibration=Scaling(scale=calibration.scale, biases=calibration.biases),
        threshold=find_threshold(calibration.probabilities(logits_NC), labels_N),
        refit=refit,
        validation=Validation(
            metric=confirmed.metric,
            value=run.value,
            values=tuple(found.candidate.values),
            metrics={k: v for k, v in run.best["val"].items() if np.isfinite(v)},
            best_epoch=run.best_epoch,
            num_images=len(labels_N),
            loss_calibrated=negative_log_likelihood(logits_NC, labels_N, calibration),
        ),
        study=recipe.study,
        search=Search(
            space=identity["space"]["name"],
            num_trials=counts["complete"] + counts["pruned"] + counts["fail"],
            num_pruned=counts["pruned"],
            num_failed=counts["fail"],
            num_confirmed=len(confirmed.candidates),
            choose=confirmed.how,
        ),
        data=recipe.data,
        weights=recipe.weights,
        backbone_module=module,
        versions=run.versions,
        files=dict(files),
    )
