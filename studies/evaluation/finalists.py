"""The finalists: what the database has for the final test evaluation of a bundle.

The trainings of both strategies over seeds, the controls, the forecast of each from stored
validation predictions. Knows the database; opens no image. Never imports torch.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.bundle.config import BundleConfig, StudyOrigin, configuration_of
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
from studies.results.controls import CONTROLS_STUDY, KEYS
from studies.results.forecasts import forecast_of_candidate
from studies.statistics.forecast import Forecast
from transfer.config import TransferConfig


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
