"""Everything the final test evaluation needs, found while the seal is whole.

The finalists are the trainings of both strategies over seeds, the controls, and the forecast of
each from stored validation predictions; with them data, weights and trained parts. Opens no test
image.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from studies.bundle.bundle import Bundle
from studies.bundle.config import BundleConfig, StudyOrigin, configuration_of
from studies.bundle.export import read_trained
from studies.bundle.reproduce import Places, Recipe, find_same_weights, load_same_data
from studies.database.artifacts import check_artifact
from studies.database.beside import beside
from studies.database.storage import StudyStorage, load_study, study_is_there, study_names
from studies.database.study import StudyRecord, read_study
from studies.database.trials import TrialRecord, read_trials
from studies.errors import UserError
from studies.results.choice import (
    CONFIRM,
    Candidate,
    Confirmed,
    confirm_command,
    read_confirmed,
    read_repeats,
    refuse_unfinished,
)
from studies.results.controls import CONTROLS_STUDY, KEYS, NONE
from studies.results.forecasts import forecast_of_candidate
from studies.statistics.forecast import Forecast
from studies.watchers import Progress
from transfer.cache import cache_folder
from transfer.config import TransferConfig
from transfer.data.loading import ImageData
from transfer.device import choose_device
from transfer.messages import one_line
from transfer.weights.find import WeightFile, find_weights
from transfer.weights.whole import HEAD


@dataclass(frozen=True, kw_only=True)
class Finalists:
    """A bundle with its study, by the name that it has now.

    ``candidates`` are the confirmed choices, one a strategy.
    """

    name: str
    bundle: BundleConfig
    study: StudyRecord
    trials: Sequence[TrialRecord]
    confirmed: Confirmed
    controls: Sequence[TrialRecord]

    @property
    def metric(self) -> str:
        """The one that chose."""
        return self.confirmed.metric

    @property
    def candidates(self) -> Mapping[str, Candidate]:
        return self.confirmed.chosen

    @property
    def num_test(self) -> int:
        return sum(self.bundle.data.counts["test"].values())

    @property
    def recipes(self) -> list[TrialRecord]:
        """The controls that were trained."""
        return [run for run in self.controls if KEYS[0] not in run.keyed_params]

    @property
    def on_features(self) -> list[TrialRecord]:
        """The controls that were fitted to features, or to nothing."""
        return [run for run in self.controls if KEYS[0] in run.keyed_params]


def find_finalists(storage: StudyStorage, bundle: BundleConfig) -> Finalists:
    """What the database has for the final test evaluation of a bundle.

    Raises:
        UserError: the study is not there, is not the one that the bundle comes from, has chosen
            otherwise since, or its artifacts are missing.
    """
    origin = bundle.study
    name = _name_now(storage, origin)
    study = load_study(storage, name)
    record = read_study(study)
    trials = read_trials(study)
    search_id = None if record is None else record.search_id
    confirm = beside(storage, name, CONFIRM, search_id)
    runs = [] if confirm is None else read_repeats(confirm, trials)
    run = next((r for r in runs if r.number == origin.confirm_trial), None)
    if record is None or confirm is None or run is None or not _is_of(bundle, record, run):
        raise UserError(
            f"Study '{name}' in {storage.shown_url} is not the one that the bundle comes "
            "from; name its database with --storage."
        )
    # A provisional choice is not the one that was declared.
    metric = str(record.settings["metric"])
    refuse_unfinished(confirm, runs, trials, metric, confirm_command(name, storage))
    confirmed = read_confirmed(confirm, trials, metric)
    assert confirmed is not None
    strategy = str(bundle.config.strategy)
    now = confirmed.chosen.get(strategy)
    if now is None or now.number != origin.trial or tuple(confirmed.seeds) != origin.seeds:
        raise UserError(
            f"Since this bundle was exported, study '{name}' has confirmed otherwise; export it "
            f"again: `python -m studies export {shlex.quote(name)} --strategy {strategy}`."
        )
    controls = beside(storage, name, CONTROLS_STUDY, search_id)
    found = Finalists(
        name=name,
        bundle=bundle,
        study=record,
        trials=trials,
        confirmed=confirmed,
        controls=[]
        if controls is None
        else [r for r in read_trials(controls) if r.state == "COMPLETE"],
    )
    for run in [*(r for c in found.candidates.values() for r in c.runs), *found.recipes]:
        check_artifact(storage, run.weights, f"weights of trial {run.number} over seeds")
    return found


def _name_now(storage: StudyStorage, origin: StudyOrigin) -> str:
    """The name of the study that a bundle comes from: it may have been renamed since."""
    if origin.search_id is not None:
        for name in [origin.name, *study_names(storage)]:
            if study_is_there(storage, name):
                record = read_study(load_study(storage, name), allow_older=True)
                if record is not None and record.search_id == origin.search_id:
                    return name
    return origin.name


def _is_of(bundle: BundleConfig, study: StudyRecord, run: TrialRecord) -> bool:
    """Whether this study, and this training of it, are those of the bundle."""
    identity, validation = study.identity, bundle.validation
    data = identity["data"]
    return (
        (data["fingerprint"], data["test_fingerprint"])
        == (bundle.data.fingerprint, bundle.data.test_fingerprint)
        and study.search_id == (bundle.study.search_id or study.search_id)
        and study.settings["image_size"] == bundle.preprocessing.image_size
        and study.settings["resize"] == bundle.preprocessing.resize
        and identity["weights"].get(bundle.backbone) == bundle.weights.sha256
        and identity["threads"] == bundle.study.threads
        and configuration_of(TransferConfig(**run.config)) == configuration_of(bundle.config)
        and (run.value, run.best_epoch) == (validation.value, validation.best_epoch)
    )


def forecast_of(
    storage: StudyStorage, found: Finalists, strategy: str, *, num_models: int | None = None
) -> Forecast:
    """What to expect of a strategy's choice on the test images.

    Args:
        num_models: of how many trainings the result will be the mean, all of them if left out.

    Raises:
        UserError: predictions are missing.
    """
    return forecast_of_candidate(
        storage,
        found.trials,
        found.candidates[strategy],
        metric=found.metric,
        num_test=found.num_test,
        num_models=num_models,
    )


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
