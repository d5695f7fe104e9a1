"""Train a configuration of a study again: on the same data, from the same weights, or not at all.

Knows what must be the same, and refuses anything else with the way out.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from studies.bundle.config import BundleConfig, DataOrigin, StudyOrigin, WeightsOrigin
from studies.errors import StudyFailedError, UserError
from studies.search.places import find_last_weights, open_last_source, were_last_at
from studies.watchers import Progress
from transfer.activations.activations import Activations
from transfer.backbones.find import interpolations_of
from transfer.cache import cache_folder, default_limit
from transfer.config import TransferConfig
from transfer.data.decoding import Resize
from transfer.data.loading import ImageData, Split, load_data
from transfer.data.sources.open import open_source
from transfer.device import choose_device, make_deterministic
from transfer.training.result import EpochRecord, TrainingResult
from transfer.training.train import DivergedError, train
from transfer.weights.find import WeightFile


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training of a study with all that fixes its numbers."""

    config: TransferConfig
    image_size: int
    resize: Resize
    study: StudyOrigin
    data: DataOrigin
    weights: WeightsOrigin

    @classmethod
    def of(cls, bundle: BundleConfig) -> "Recipe":
        """The training that a bundle comes from."""
        return cls(
            config=bundle.config,
            image_size=bundle.preprocessing.image_size,
            resize=bundle.preprocessing.resize,
            study=bundle.study,
            data=bundle.data,
            weights=bundle.weights,
        )


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are on this machine, where they aren't where the study had them."""

    data: str | None = None
    weights_dir: Path | None = None
    cache_dir: Path | None = None
    device: str = "auto"


def find_same_weights(recipe: Recipe, places: Places) -> WeightFile:
    """The weights that the training started from.

    Raises:
        UserError, ValueError: there are none, or they are others.
    """
    backbone, weights = recipe.config.backbone, recipe.weights
    found = find_last_weights(
        backbone,
        weights=weights.kind,
        seed=weights.seed,
        sha256=weights.sha256,
        last=weights.path,
        weights_dir=places.weights_dir,
    )
    if found.sha256 != weights.sha256:
        last = "" if weights.path is None else f" {were_last_at(backbone, weights.path)}"
        raise UserError(
            f"The weights of {backbone} ({found.source}) are not those that the study had: "
            f"hash {found.sha256[:12]}, expected {weights.sha256[:12]}; name their folder with "
            f"--weights-dir.{last}"
        )
    return found


def load_same_data(
    recipe: Recipe, places: Places, progress: Progress, *, backbones: Collection[str] = ()
) -> ImageData:
    """The data of the study, split as they were.

    Args:
        backbones: those that will look at the images beside the recipe's.

    Raises:
        UserError, ValueError: there are none, or they are others.
    """
    origin = recipe.data
    if places.data is None:
        source = open_last_source(origin.source, origin.group_pattern)
    else:
        source = open_source(places.data, group_pattern=origin.group_pattern)
    data = load_data(
        source,
        image_size=recipe.image_size,
        seed=recipe.study.split_seed,
        cache_dir=cache_folder(places.cache_dir),
        resize=recipe.resize,
        interpolations=interpolations_of([recipe.config.backbone, *backbones]),
        with_views=recipe.config.num_views > 1,
        skip_unreadable=True,
        drop_duplicates=bool(origin.flags.get("drop_duplicates")),
        on_progress=progress.work,
    )
    if data.fingerprint != origin.fingerprint:
        raise UserError(
            f"{source.text} has other training images or labels than the study "
            f"(fingerprint {data.fingerprint[:12]}, expected {origin.fingerprint[:12]}); name the "
            "study's data with --data."
        )
    return data


def with_validation_images(data: ImageData) -> ImageData:
    """The same images with those of validation among the ones to train on."""
    positions_N = np.concatenate([data.train.positions_N, data.val.positions_N])
    labels_N = np.concatenate([data.train.labels_N, data.val.labels_N])
    order, groups_N = np.argsort(positions_N), None
    if data.train.groups_N is not None and data.val.groups_N is not None:
        groups_N = np.concatenate([data.train.groups_N, data.val.groups_N])[order]
    train = Split(positions_N=positions_N[order], labels_N=labels_N[order], groups_N=groups_N)
    return replace(data, train=train)


def train_again(
    recipe: Recipe,
    data: ImageData,
    weight_file: WeightFile,
    places: Places,
    progress: Progress,
    *,
    num_epochs: int | None = None,
) -> TrainingResult:
    """Train the recipe's configuration on ``data`` with as many threads as the study.

    Args:
        num_epochs: exactly so many, the last one counting; None ends by patience as the study.

    Raises:
        StudyFailedError: the training diverged or had no memory.
    """
    device = choose_device(places.device)
    make_deterministic(recipe.study.threads, device)
    cache_dir = cache_folder(places.cache_dir)
    activations = Activations(
        data=data,
        weights={recipe.config.backbone: weight_file},
        cache_dir=cache_dir,
        device=device,
        limit_bytes=default_limit(cache_dir),
        on_progress=progress.work,
    )
    config, most = recipe.config, num_epochs or recipe.config.epochs

    def on_epoch(record: EpochRecord) -> bool:
        progress.work(f"training {config.backbone}", record.epoch, most)
        return False

    try:
        return train(config, activations, on_epoch, num_epochs=num_epochs)
    except (DivergedError, torch.OutOfMemoryError) as error:
        raise StudyFailedError(
            f"The training of {config.backbone} with seed {config.seed} failed: {error}."
        ) from None
