"""What a study's database has for its report. Reads; changes nothing. Never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from studies.data_card import SAMPLES
from studies.database.artifacts import (
    TEST_PREDICTIONS,
    TEST_THUMBNAILS,
    artifact_bytes,
    best_epoch,
    read_arrays,
    read_predictions,
)
from studies.database.beside import beside
from studies.database.ledger import Opening, openings
from studies.database.storage import (
    StudyStorage,
    latest_study,
    load_study,
    open_existing,
    storage_option,
    study_names,
)
from studies.database.study import StudyRecord, read_data_card, read_study
from studies.database.trials import TrialRecord, best_trials, count_states, read_trials, records_of
from studies.errors import UserError
from studies.results.choice import (
    CONFIRM,
    Candidate,
    Confirmed,
    confirm_progress,
    read_confirmed,
    read_repeats,
)
from studies.results.comparison import (
    Comparison,
    ConfirmSummary,
    compare_on_validation,
)
from studies.results.controls import CONTROLS_STUDY
from studies.results.forecasts import forecast_of_candidate
from studies.settings import StudyOptions, chooser_words
from studies.statistics.calibration import uncalibrated
from studies.statistics.forecast import Forecast
from studies.statistics.intervals import Interval, stratified_bootstrap
from studies.statistics.metrics import METRICS, Floats, Labels
from transfer.config import Strategy


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A study with all that was stored beside it; what is not there is None or empty.

    ``stored`` are Optuna's own trials of the search, read once: it takes a second for a thousand.
    ``confirming`` is how many trainings over seeds are finished, of how many that are wanted.
    """

    storage: StudyStorage
    name: str
    study: StudyRecord
    card: Mapping[str, object] | None
    samples: bytes | None
    stored: Sequence[FrozenTrial]
    trials: Sequence[TrialRecord]
    confirmed: Confirmed | None
    confirming: tuple[int, int]
    controls: Sequence[TrialRecord]
    openings: Sequence[Opening]

    @property
    def metric(self) -> str:
        return str(self.study.settings["metric"])

    @property
    def chooser(self) -> str:
        """What chose epochs, trials and candidates on validation images, in words."""
        return chooser_words(self.metric, str(self.study.settings.get("choose_by", "metric")))

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Images by split and class."""
        found: Mapping[str, Mapping[str, int]] = self.study.identity["data"]["counts"]
        return found

    @property
    def classes(self) -> list[str]:
        return list(self.study.identity["data"]["classes"])

    def num_images(self, split: str) -> int:
        return sum(self.counts[split].values())

    @property
    def subjects(self) -> Mapping[str, int] | None:
        """How many subjects each split has images of; None where nobody knows."""
        found: Mapping[str, int] | None = self.study.identity["data"].get("subjects")
        return found

    @property
    def strategies(self) -> list[str]:
        """Those that were searched, feature extraction first."""
        searched = {trial.strategy for trial in self.trials if trial.strategy}
        return [str(strategy) for strategy in Strategy if strategy in searched]

    @property
    def backbones(self) -> list[str]:
        found: list[str] = next(
            list(p["choices"])
            for p in self.study.identity["space"]["parameters"]
            if p["name"] == "backbone"
        )
        return found

    @property
    def evaluation(self) -> Opening | None:
        """The last final test evaluation of this study that came to its end."""
        search_id = self.study.search_id
        mine = [o for o in self.openings if o.is_finished and o.is_of(self.name, search_id)]
        return mine[-1] if mine else None

    @property
    def test_was_seen(self) -> bool:
        """Whether a result on these test images was known before the evaluation began."""
        mine = self.evaluation
        return mine is not None and any(
            o.is_finished and o.number < mine.number for o in self.openings
        )

    def test_predictions(self, opening: Opening) -> Mapping[str, Any] | None:
        """What was stored of an evaluation, arrays by name; None where it is gone."""
        return self._of_opening(opening, TEST_PREDICTIONS, "test predictions")

    def test_thumbnails(self, opening: Opening) -> Mapping[str, Any] | None:
        """Small pictures of the test images; None where they are gone."""
        return self._of_opening(opening, TEST_THUMBNAILS, "thumbnails")

    def _of_opening(self, opening: Opening, file: str, what: str) -> Mapping[str, Any] | None:
        artifacts = (opening.result or {}).get("artifacts", {})
        try:
            return read_arrays(self.storage, artifacts.get(file), what)
        except UserError:
            return None

    @property
    def states(self) -> dict[str, int]:
        """How many trials of the search are in which state."""
        return count_states(self.trials)

    @property
    def storage_option(self) -> str:
        """The database as ``--storage`` takes it, without a password."""
        return storage_option(self.storage)

    def ranked(self, strategy: str) -> list[TrialRecord]:
        """Its complete trials, the best first."""
        return [t for t in best_trials(self.trials, self.metric) if t.strategy == strategy]

    def of_strategy(self, strategy: str) -> list[TrialRecord]:
        """Its trials that count."""
        return [trial for trial in self.trials if trial.counts and trial.strategy == strategy]

    def best(self, strategy: str, backbone: str | None = None) -> TrialRecord | None:
        """The best trial of the search."""
        for trial in best_trials(self.trials, self.metric):
            is_of_backbone = backbone in (None, trial.params.get("backbone"))
            if trial.strategy == strategy and is_of_backbone:
                return trial
        return None

    def candidate(self, strategy: str) -> Candidate | None:
        """The confirmed choice."""
        return None if self.confirmed is None else self.confirmed.chosen.get(strategy)

    def best_epoch(self, run: TrialRecord) -> tuple[Labels, Floats] | None:
        """Labels (N,) and probabilities (N, C) of validation images; None where they are gone."""
        found = best_epoch(self.storage, run)
        return None if found is None else found[:2]

    def epochs(self, run: TrialRecord) -> tuple[Labels, Floats] | None:
        """The same of every epoch: probabilities (E, N, C)."""
        try:
            stored = read_predictions(self.storage, run)
        except UserError:
            return None
        return stored.labels_N, uncalibrated(stored.logits_ENC)

    def groups(self, run: TrialRecord) -> Labels | None:
        """Whose picture each of a training's validation images is; None where nobody knows."""
        try:
            return read_predictions(self.storage, run).groups_N
        except UserError:
            return None

    def interval(self, run: TrialRecord) -> Interval | None:
        """The validation metric of one training, with its interval for further images."""
        found = self.best_epoch(run)
        if found is None:
            return None
        try:
            return stratified_bootstrap(METRICS[self.metric], *found, groups_N=self.groups(run))
        except ValueError:
            return None

    def over_seeds(self, candidate: Candidate) -> tuple[Labels, Floats] | None:
        """Labels (N,) and probabilities (S, N, C) of the validation images that its seeds share.

        None where each seed had images of its own, or predictions are gone.
        """
        if self.confirmed is None or self.confirmed.resplit:
            return None
        found = [self.best_epoch(run) for run in candidate.runs]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        return known[0][0], np.stack([probabilities_NC for _, probabilities_NC in known])

    @cached_property
    def forecasts(self) -> dict[str, Forecast]:
        """What each confirmed choice lets expect of the test images, the mean over its seeds."""
        found = {}
        for strategy, candidate in (
            {} if self.confirmed is None else self.confirmed.chosen
        ).items():
            try:
                found[strategy] = forecast_of_candidate(
                    self.storage,
                    self.trials,
                    candidate,
                    metric=self.metric,
                    num_test=self.num_images("test"),
                )
            except (UserError, ValueError):
                continue
        return found

    @property
    def is_confirmed(self) -> bool:
        """Whether every training over seeds is finished: before that nothing is chosen."""
        done, wanted = self.confirming
        return self.confirmed is not None and done == wanted

    @cached_property
    def comparison(self) -> Comparison | None:
        """The two choices on validation images; None before confirming is finished."""
        if self.confirmed is None or not self.is_confirmed:
            return None
        return compare_on_validation(self.storage, self.confirmed, self.trials, self.forecasts)


def open_study(name: str | None, storage: str) -> StoredStudy:
    """Everything that is stored of a study; without a name of the only or the latest one.

    Args:
        storage: as ``--storage`` takes it.

    Raises:
        UserError: there is no such study, or it was not made by this program.
    """
    opened = open_existing(storage)
    return read_evidence(opened, name or latest_study(opened))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A study as a list shows it, one of an older version too; not ours without ``study``."""

    name: str
    study: StudyRecord | None
    trials: Sequence[TrialRecord]
    openings: Sequence[Opening]


def list_studies(storage: str, name: str | None = None) -> tuple[str, list[Listed]]:
    """Where the database is, without a password, and the studies in it, or the one of a name.

    Raises:
        UserError: there is no such database or study.
    """
    opened = open_existing(storage)
    names = study_names(opened) if name is None else [name]
    return opened.shown_url, [_listed(opened, each) for each in names]


def _listed(storage: StudyStorage, name: str) -> Listed:
    study = load_study(storage, name)
    record = read_study(study, allow_older=True)
    found: Sequence[Opening] = ()
    if record is not None:
        found = openings(storage, record.identity["data"]["test_fingerprint"])
    return Listed(name=name, study=record, trials=read_trials(study), openings=found)


def read_evidence(storage: StudyStorage, name: str) -> StoredStudy:
    """Everything that is stored of a study.

    Raises:
        UserError: there is none, or it was not made by this program.
    """
    study = load_study(storage, name)
    record = read_study(study)
    if record is None:
        raise UserError(f"Study '{name}' was not made by transfer-studies, or hardly begun.")
    stored = study.get_trials(deepcopy=False)
    trials = records_of(stored)
    confirm, controls = (
        beside(storage, name, purpose, record.search_id) for purpose in (CONFIRM, CONTROLS_STUDY)
    )
    metric = str(record.settings["metric"])
    card = read_data_card(study)
    return StoredStudy(
        storage=storage,
        name=name,
        study=record,
        card=card,
        samples=None if card is None else _samples(storage, card),
        stored=stored,
        trials=trials,
        confirmed=None if confirm is None else read_confirmed(confirm, trials, metric),
        confirming=(0, 0)
        if confirm is None
        else confirm_progress(confirm, read_repeats(confirm, trials)),
        controls=[] if controls is None else [r for r in read_trials(controls) if r.best],
        openings=openings(storage, record.identity["data"]["test_fingerprint"]),
    )


def _samples(storage: StudyStorage, card: Mapping[str, object]) -> bytes | None:
    artifacts = card["artifacts"]
    assert isinstance(artifacts, dict)
    try:
        return artifact_bytes(storage, artifacts.get(SAMPLES), "sample images")
    except UserError:
        return None


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A study at the end of `run`: ``num_new`` trials were added by this call.

    ``seal`` says whether its test images were ever opened; ``options`` are what it was asked for.
    """

    name: str
    storage: StudyStorage
    study: StudyRecord
    records: Sequence[TrialRecord]
    num_new: int
    seconds: float
    note: str | None
    seal: str
    verdict: ConfirmSummary | None = None
    options: StudyOptions | None = None

    @property
    def metric(self) -> str:
        return str(self.study.settings["metric"])

    @property
    def num_val(self) -> int:
        return sum(self.study.identity["data"]["counts"]["val"].values())
