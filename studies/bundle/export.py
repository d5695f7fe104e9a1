"""Export: from a confirmed study to the bundle of one model.

The model is the training with the first of the seeds that were declared before any of them ran,
whatever the others gave. Knows the study's database and what a bundle consists of.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.engine import make_url
from torch import Tensor

from studies.bundle.bundle import refuse_to_replace, write_bundle
from studies.bundle.card import card_paragraphs, model_card
from studies.bundle.chosen_run import ChosenRun, best_predictions, find_chosen_run, read_trained
from studies.bundle.config import (
    MODEL,
    BundleConfig,
    ModuleOrigin,
)
from studies.bundle.description import config_of, recipe_of
from studies.bundle.onnx_export import require_onnx, write_onnx
from studies.bundle.reproduce import script_text
from studies.bundle.retraining import (
    Places,
    Recipe,
    find_same_weights,
    load_same_data,
    train_again,
    with_validation_images,
)
from studies.database.ledger import openings
from studies.database.storage import (
    DEFAULT_STORAGE,
    StudyStorage,
    latest_study,
    open_existing,
)
from studies.results.choice import seed_remarks
from studies.search.backbone_module import check_stored, run_module
from studies.statistics.calibration import find_calibration
from studies.watchers import Progress
from transfer.config import TITLES
from transfer.data.loading import ImageData
from transfer.weights.find import WeightFile
from transfer.weights.whole import HEAD, whole_network

# Images that the ONNX network is held against.
MOST_COMPARED = 33


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and where to. Without a name: the only study, or the latest one."""

    name: str | None = None
    strategy: str | None = None
    out: Path | None = None
    refit: bool = False
    onnx: bool = False
    storage: str = DEFAULT_STORAGE
    backbone_module: Path | None = None
    places: Places = field(default_factory=Places)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The bundle that was written; ``onnx_difference`` is the largest one of a probability.

    ``remarks`` say which trainings over seeds failed, and which of them were done again.
    """

    folder: Path
    config: BundleConfig
    onnx_difference: float | None
    remarks: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        values = self.config.model_dump(mode="json")
        return {
            "bundle": str(self.folder),
            "onnx_difference": self.onnx_difference,
            **{
                key: values[key]
                for key in ("study", "configuration", "calibration", "threshold", "validation")
            },
            "refit": self.config.refit,
            "remarks": list(self.remarks),
        }

    def lines(self) -> list[str]:
        """In words."""
        config, found = self.config, self.config.validation
        lines = [
            f"Bundle: {self.folder}",
            f"Trial {config.study.trial} ({config.backbone}, {config.config.strategy}), seed "
            f"{config.study.seed}: validation {found.metric} {found.value:.4f}, "
            f"{np.mean(found.values):.4f} in the mean of {len(found.values)} seed(s).",
        ]
        if config.refit:
            lines.append(
                f"Refit on training and validation images for {found.best_epoch} epochs; these "
                "numbers, calibration and threshold are of the model before."
            )
        lines += self.remarks
        if self.onnx_difference is not None:
            lines.append(f"ONNX: probabilities differ by {self.onnx_difference:.1e} at most.")
        folder = shlex.quote(str(self.folder))
        return [
            *lines,
            f"Final test, once: python -m studies evaluate {folder}",
            f"Use it: python -m studies predict {folder} IMAGE...",
        ]


def export_study(options: ExportOptions, progress: Progress) -> Exported:
    """Write the bundle of the configuration that confirming has chosen.

    Raises:
        UserError, ValueError: nothing is confirmed, or something asked for is wrong or missing.
        StudyFailedError: the refit, or writing the network as ONNX, failed.
    """
    if options.onnx:
        require_onnx()
    storage = open_existing(options.storage)
    name = options.name or latest_study(storage)
    found = find_chosen_run(storage, name, options.strategy)
    shown = _shown_storage(storage)
    out = Path(options.out or _folder_name(name, options.strategy)).resolve()
    refuse_to_replace(out, name, shown, found.study.search_id)
    module = _run_own(found, name, options.backbone_module, progress)
    recipe = recipe_of(found, name, shown)
    weight_file = find_same_weights(recipe, options.places)
    data = None
    if options.refit or options.onnx:
        data = load_same_data(recipe, options.places, progress)
    if options.refit:
        assert data is not None
        trained = _refit(found, recipe, data, weight_file, options.places, progress)
    else:
        trained = read_trained(storage, found.run)
    tensors = whole_network(weight_file, trained)
    logits_NC, labels_N = best_predictions(storage, found.run)
    calibration = find_calibration(logits_NC, labels_N)
    config = partial(
        config_of,
        found,
        recipe,
        logits_NC,
        labels_N,
        calibration=calibration,
        module=module,
        refit=options.refit,
    )
    difference: list[float] = []

    def add_onnx(path: Path) -> None:
        assert data is not None
        images_BHWC = data.images(data.train.positions_N[:MOST_COMPARED])
        written = replace(weight_file, path=path.parent / MODEL, source="bundle")
        head = {key: tensors[key] for key in HEAD}
        difference.append(write_onnx(path, written, head, images_BHWC, calibration))

    written = write_bundle(
        out,
        config,
        tensors,
        script=script_text(
            recipe,
            float(found.run.value or 0.0),
            refit=options.refit,
            has_module=module is not None,
        ),
        card=lambda written: model_card(
            written,
            card_paragraphs(openings(storage, recipe.data.test_fingerprint), written),
        ),
        add_onnx=add_onnx if options.onnx else None,
    )
    return Exported(
        folder=out,
        config=written,
        onnx_difference=difference[0] if difference else None,
        remarks=seed_remarks(found.confirmed, TITLES),
    )


def _folder_name(name: str, strategy: str | None) -> str:
    return "-".join(part for part in (name, strategy, "bundle") if part)


def _shown_storage(storage: StudyStorage) -> str:
    """The database as a bundle names it: a file by its whole path, no password."""
    if storage.path is not None:
        return f"sqlite:///{storage.path.resolve()}"
    return make_url(storage.url).render_as_string(hide_password=True)


def _run_own(
    found: ChosenRun, name: str, given: Path | None, progress: Progress
) -> ModuleOrigin | None:
    """Run the file that the backbone comes from, where it comes from one."""
    stored = found.study.identity.get("backbone_module")
    backbone = found.study.identity["backbones"][found.config.backbone]
    if stored is None or backbone["code"] != f"file {stored['sha256']}":
        return None
    check_stored(stored, given, name)
    assert given is not None
    run_module(given, progress)
    return ModuleOrigin(**stored)


def _refit(
    found: ChosenRun,
    recipe: Recipe,
    data: ImageData,
    weight_file: WeightFile,
    places: Places,
    progress: Progress,
) -> Mapping[str, Tensor]:
    """Train once more, on validation images too, for the epochs that were best before."""
    together = with_validation_images(data)
    epochs = found.run.best_epoch
    progress.message(f"Training on {len(together.train)} images for {epochs} epochs.")
    return train_again(
        recipe, together, weight_file, places, progress, num_epochs=epochs
    ).trained_state
