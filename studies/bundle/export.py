"""Export: from a confirmed study to the bundle of one model.

The model is the training with the first of the seeds that were declared before any of them ran,
whatever the others gave. Knows what a study's database has of it, and what a bundle says and
consists of.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import safetensors.torch
from numpy.typing import NDArray
from sqlalchemy.engine import make_url
from torch import Tensor

from studies.backbone_module import check_stored, run_module
from studies.bundle.bundle import refuse_to_replace, write_bundle
from studies.bundle.card import card_paragraphs, model_card
from studies.bundle.config import (
    MODEL,
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
from studies.bundle.onnx_export import require_onnx, write_onnx
from studies.bundle.reproduce import (
    Places,
    Recipe,
    find_same_weights,
    load_same_data,
    script_text,
    train_again,
    with_validation_images,
)
from studies.database.artifacts import artifact_bytes, read_predictions
from studies.database.beside import beside
from studies.database.ledger import openings
from studies.database.storage import StudyStorage, latest_study, load_study, open_existing
from studies.database.study import StudyRecord, read_study
from studies.database.trials import SEED, TrialRecord, count_states, read_trials
from studies.errors import UserError
from studies.results.choice import (
    CONFIRM,
    Candidate,
    Confirmed,
    confirm_command,
    read_confirmed,
    read_repeats,
    refuse_unfinished,
    seed_remarks,
)
from studies.settings import DEFAULT_STORAGE
from studies.statistics.calibration import (
    Calibration,
    find_calibration,
    find_threshold,
    negative_log_likelihood,
)
from studies.statistics.metrics import Labels
from studies.watchers import Progress
from transfer.config import TITLES, Strategy, TransferConfig
from transfer.data.loading import ImageData
from transfer.weights.find import WeightFile
from transfer.weights.whole import HEAD, whole_network


@dataclass(frozen=True, kw_only=True)
class ChosenRun:
    """What the database has of the model to export."""

    study: StudyRecord
    records: Sequence[TrialRecord]
    confirm: optuna.Study
    confirmed: Confirmed
    candidate: Candidate
    run: TrialRecord

    @property
    def config(self) -> TransferConfig:
        return TransferConfig(**self.run.config)


def find_chosen_run(storage: StudyStorage, name: str, strategy: str | None) -> ChosenRun:
    """The run to export.

    Raises:
        UserError: there is no such study, confirming has not been asked for or isn't finished,
            the strategy is unknown or has no confirmed configuration, or its first seed failed.
    """
    study = load_study(storage, name)
    record = read_study(study)
    if record is None:
        raise UserError(f"Study '{name}' was not made by transfer-studies, or hardly begun.")
    if strategy is not None and strategy not in tuple(Strategy):
        raise UserError(f"Unknown strategy '{strategy}'; choose from {', '.join(Strategy)}.")
    command = confirm_command(name, storage)
    records = read_trials(study)
    confirm = beside(storage, name, CONFIRM, record.search_id)
    metric = str(record.settings["metric"])
    confirmed = None if confirm is None else read_confirmed(confirm, records, metric)
    if confirm is None or confirmed is None:
        raise UserError(f"Study '{name}' is not confirmed: run `{command}` first.")
    runs = read_repeats(confirm, records)
    refuse_unfinished(confirm, runs, records, metric, command)
    candidate = confirmed.best if strategy is None else confirmed.chosen.get(strategy)
    if candidate is None:
        of = "" if strategy is None else f" of {strategy}"
        way_out = f"run `{command}`, which trains again what failed" if runs else "run more trials"
        raise UserError(
            f"No configuration{of} of study '{name}' has a complete training over seeds; "
            f"{way_out}."
        )
    seed = confirmed.seeds[0]
    run = _run_of(candidate, seed)
    if run is None:
        reasons = candidate.failures.get(seed, ["it is missing"])
        others = [c.strategy for c in confirmed.chosen.values() if _run_of(c, seed)]
        instead = f", or export the other strategy with --strategy {others[0]}" if others else ""
        raise UserError(
            f"The training of trial {candidate.number} with seed {seed} failed ({reasons[-1]}), "
            "and no other seed may take its place: it was declared beforehand. Run "
            f"`{command}` to train it again with that seed{instead}."
        )
    return ChosenRun(
        study=record,
        records=records,
        confirm=confirm,
        confirmed=confirmed,
        candidate=candidate,
        run=run,
    )


def _run_of(candidate: Candidate, seed: int) -> TrialRecord | None:
    return next((run for run in candidate.runs if run.params[SEED] == seed), None)


def read_trained(storage: StudyStorage, run: TrialRecord) -> dict[str, Tensor]:
    """The trained part of a run's best epoch.

    Raises:
        UserError: it is missing.
    """
    what = f"weights of trial {run.number} of the confirmed ones"
    return safetensors.torch.load(artifact_bytes(storage, run.weights, what))


def best_predictions(
    storage: StudyStorage, run: TrialRecord
) -> tuple[NDArray[np.float32], Labels]:
    """Logits (N, C) of the validation images at the best epoch, and their labels (N,).

    Raises:
        UserError: they are missing.
    """
    assert run.best_epoch is not None
    stored = read_predictions(storage, run)
    return stored.logits_ENC[run.best_epoch - 1], stored.labels_N


def recipe_of(found: ChosenRun, name: str, storage: str) -> Recipe:
    """The training that is exported, with all that fixes its numbers."""
    identity, settings = found.study.identity, found.study.settings
    data, check = identity["data"], found.study.data_check
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
            flags=check["flags"],
            allowed=tuple(check["allowed"]),
            warnings=tuple(check["warnings"]),
            left_out=check["left_out"],
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
    run_module(given, progress.message)
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
