"""Train a configuration again, on the same data and from the same weights, or not at all.

Whatever differs is refused with the way out. What a bundle tells of its validation metric is
compared with what comes out.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studies.bundle.bundle import Bundle
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
from transfer.device import choose_device, make_deterministic, versions
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


SCRIPT = """\
#!/usr/bin/env bash
# Trains this model again and compares its validation {metric} with the one in config.json, which
# is {value!r}: exit code 0 where the two are equal, 1 where not.
#
# Made with python {python}, torch {torch}, {threads} thread(s). Other versions, machines and
# numbers of threads may give other last digits.
#{refit}
# It needs transfer-studies {version} and the data; where they are elsewhere now:
#   bash reproduce.sh --data DATA --weights-dir DIR{module}
set -euo pipefail
bundle="$(cd -- "$(dirname -- "${{BASH_SOURCE[0]}}")" && pwd)"
exec "${{PYTHON:-python}}" -m studies reproduce "$bundle" "$@"
"""

REFIT = """
# The model in this folder was trained once more, on validation images too; what is reproduced is
# the training before, which has the validation metric.
#"""


def script_text(recipe: Recipe, value: float, *, refit: bool, has_module: bool) -> str:
    """``reproduce.sh``. Nothing in it comes from outside but numbers and names of this program."""
    told = versions()
    return SCRIPT.format(
        metric=recipe.config.metric,
        value=value,
        python=told["python"],
        torch=told["torch"],
        threads=recipe.study.threads,
        version=told["transfer-studies"],
        refit=REFIT if refit else "",
        module=" --backbone-module FILE" if has_module else "",
    )


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """The value that is told, the one that came out now, and the versions that differ."""

    metric: str
    expected: float
    value: float
    expected_epoch: int
    best_epoch: int
    other_versions: dict[str, tuple[str, str]]

    @property
    def is_equal(self) -> bool:
        return self.value == self.expected and self.best_epoch == self.expected_epoch

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "expected": self.expected,
            "value": self.value,
            "expected_epoch": self.expected_epoch,
            "best_epoch": self.best_epoch,
            "is_equal": self.is_equal,
            "other_versions": {key: list(pair) for key, pair in self.other_versions.items()},
        }

    def lines(self) -> list[str]:
        """In words."""
        what = f"validation {self.metric} {self.value!r} at epoch {self.best_epoch}"
        if self.is_equal:
            return [f"Reproduced: {what}, as in the bundle."]
        told = f"Not reproduced: {what}, but the bundle has {self.expected!r} at epoch"
        others = ", ".join(
            f"{name} {here} (was {was})" for name, (was, here) in self.other_versions.items()
        )
        why = f"; other versions here: {others}" if others else "; is this another machine?"
        return [f"{told} {self.expected_epoch}{why}"]


def reproduce(bundle: Bundle, places: Places, progress: Progress) -> Reproduced:
    """Train again what the bundle was made from.

    Raises:
        UserError, ValueError: the data or the weights are not at hand, or not the same.
        StudyFailedError: the training failed.
    """
    config, recipe = bundle.config, Recipe.of(bundle.config)
    weight_file = find_same_weights(recipe, places)
    data = load_same_data(recipe, places, progress)
    result = train_again(recipe, data, weight_file, places, progress)
    here = versions()
    return Reproduced(
        metric=config.validation.metric,
        expected=config.validation.value,
        value=result.best.val[config.validation.metric],
        expected_epoch=config.validation.best_epoch,
        best_epoch=result.best_epoch,
        other_versions={
            name: (was, here[name])
            for name, was in config.versions.items()
            if name in here and here[name] != was
        },
    )
