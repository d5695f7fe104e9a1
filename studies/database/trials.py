"""``TrialRecord``: what is stored of a trial, written and read, and which failures count.

Some failures say nothing of a configuration: a device that is gone, a disk that is full. With
`study` the only module that knows the keys of stored attributes. Never imports torch.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.database.storage import StudyStorage, load_study, open_existing
from studies.database.study import SCHEMA
from studies.settings import DEFAULT_STORAGE
from transfer.config import TITLES, score_of

if TYPE_CHECKING:
    import pandas

INTERRUPTED = "interrupted"
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
PREDICTIONS = "predictions.npz"
WEIGHTS = "trained.safetensors"
# Under which a repeat stores whose configuration it has, and by which seed it trained.
CANDIDATE, SEED = "candidate", "seed"

_CONTROL = "control"  # with a trial of NAME/controls: which it is
_CLAIM = "claim"  # schema, worker, logical number: written first
_PROVENANCE = "provenance"  # configuration, versions, fingerprints: before training
_RESULT = "result"  # history and what came of it
_REASON = "reason"
_DUPLICATE_OF = "duplicate_of"
# What only this program reads. The rest of a trial's attributes are columns of the dashboard.
RECORD_ATTRIBUTES = (_CLAIM, _PROVENANCE, _RESULT)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One stored trial. ``params`` has field names; ``values`` the reported metric by epoch.

    Of a control ``params`` has what it is known by, which is stored as an attribute.

    ``logical_number`` counts trials in the order in which they are handed out, an interrupted one
    and the one that replaces it having the same; it is None before a trial has an owner.
    ``micro_batch_size`` is less than the batch size where memory was too short for a batch.
    ``cache`` says what a trial started from: boundary ``start`` (0: the images), the ``bytes``
    that are kept of it, and whether it ``was_at_hand``. ``similarity`` is that of the features of
    validation images (linear CKA): of a repeat before and after fine-tuning, of a control with
    random weights to the pretrained ones. ``train_metrics`` are those of the kept network on the
    training images, measured as on the validation images; None where nobody measured them: of
    pruned and failed trials, and of earlier versions. ``fingerprints`` are of ``data``, ``test``
    images and, by backbone, ``weights``. ``void`` marks a failure that says nothing of the
    configuration, or that was run again: read off the other trials, not stored.
    """

    number: int
    state: str
    value: float | None
    worker: str | None
    logical_number: int | None
    keyed_params: dict[str, Any]
    values: dict[int, float]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    best_epoch: int | None
    seconds: float | None
    timing: dict[str, float]
    peak_memory_bytes: int | None
    micro_batch_size: int | None
    batch_norm_trains: bool | None
    cache: dict[str, Any]
    num_trainable_parameters: int | None
    reason: str | None
    duplicate_of: int | None
    predictions: str | None
    weights: str | None = None
    similarity: float | None = None
    train_metrics: dict[str, float] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, Any] = field(default_factory=dict)
    started: datetime | None
    ended: datetime | None
    void: bool = False

    @property
    def params(self) -> dict[str, Any]:
        """The searched values by field name, ``num_unfrozen_layers`` of feature extraction too."""
        params = {key.partition("@")[0]: value for key, value in self.keyed_params.items()}
        if params.get("strategy") == "feature_extraction":
            params["num_unfrozen_layers"] = 0
        return params

    @property
    def strategy(self) -> str | None:
        strategy = self.params.get("strategy")
        return None if strategy is None else str(strategy)

    @property
    def chosen_by(self) -> str | None:
        """What chose its epoch and orders it among others, where that is not the metric."""
        by = self.config.get("choose_by", "metric")
        return None if by == "metric" else str(by)

    def score(self, metric: str) -> float:
        """What a complete trial is chosen by, larger the better: the metric, or what replaces it.

        Args:
            metric: the study's.
        """
        assert self.value is not None
        if self.chosen_by is None:
            return score_of(metric, self.value)
        assert self.best is not None
        return score_of(self.chosen_by, self.best["val"][self.chosen_by])

    def scores(self, metric: str) -> dict[int, float]:
        """The same by epoch; where it is not the metric, empty while the trial is running."""
        by = self.chosen_by
        if by is None:
            return {epoch: score_of(metric, value) for epoch, value in self.values.items()}
        return {e["epoch"]: score_of(by, e["val"][by]) for e in self.history}

    @property
    def is_interrupted(self) -> bool:
        return self.state == "FAIL" and self.reason == INTERRUPTED

    @property
    def is_of_search(self) -> bool:
        """Whether this is a configuration of the search: no repeat by a seed, no control."""
        return self.strategy is not None and CANDIDATE not in self.keyed_params

    @property
    def counts(self) -> bool:
        """Whether the trial is one of the study's total: finished, for a reason of its own."""
        passing = self.is_interrupted or self.void
        return self.state in FINISHED and not passing and self.duplicate_of is None

    @property
    def best(self) -> dict[str, Any] | None:
        """The best epoch: ``epoch``, ``train`` and ``val`` metrics, seconds."""
        return None if self.best_epoch is None else self.history[self.best_epoch - 1]

    @property
    def train_val_gap(self) -> float | None:
        """Training minus validation accuracy of the kept network, both in eval mode."""
        return None if self.best is None else _gap(self.train_metrics, self.best["val"])


def write_owner(trial: optuna.Trial, *, worker: str, logical_number: int) -> None:
    """Write first who owns a trial: without it a killed worker's trial would run for ever."""
    claim = {"schema": SCHEMA, "worker": worker, "logical_number": logical_number}
    trial.set_user_attr(_CLAIM, claim)


def write_provenance(
    trial: optuna.Trial, config: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    """Written before training: a killed, pruned or failed trial can be traced as well."""
    trial.set_user_attr(_PROVENANCE, {"config": dict(config), **provenance})


def write_control(trial: optuna.Trial, control: Mapping[str, str]) -> None:
    """Write which control a trial is: no parameter, whose values Optuna lets nobody add to."""
    trial.set_user_attr(_CONTROL, dict(control))


def write_result(
    trial: optuna.Trial,
    *,
    history: list[dict[str, Any]],
    best_epoch: int | None,
    num_trainable_parameters: int | None,
    peak_memory_bytes: int | None,
    micro_batch_size: int | None,
    batch_norm_trains: bool | None,
    cache: Mapping[str, Any],
    timing: Mapping[str, float],
    predictions: str | None,
    weights: str | None = None,
    similarity: float | None = None,
    train_metrics: Mapping[str, float] | None = None,
) -> None:
    """Store what came out. ``history`` holds an entry an epoch: epoch, train, val, seconds.

    It is empty where a trial failed before the end of its first.
    """
    result = {
        "history": history,
        "best_epoch": best_epoch,
        "peak_memory_bytes": peak_memory_bytes,
        "micro_batch_size": micro_batch_size,
        "batch_norm_trains": batch_norm_trains,
        "cache": dict(cache),
        "timing": dict(timing),
        "predictions": predictions,
        "weights": weights,
        "similarity": similarity,
        "train_metrics": None if train_metrics is None else dict(train_metrics),
    }
    trial.set_user_attr(_RESULT, result)
    columns = {"seconds": round(timing["total"], 3)}
    if num_trainable_parameters is not None:
        columns["num_trainable_parameters"] = num_trainable_parameters
    if best_epoch is not None:
        gap = _gap(train_metrics, history[best_epoch - 1]["val"])
        if gap is not None:
            columns["train_val_gap"] = round(gap, 4)
    if peak_memory_bytes is not None:
        columns["peak_memory_mb"] = round(peak_memory_bytes / 1e6, 1)
    for key, value in columns.items():
        trial.set_user_attr(key, value)


def write_reason(storage: StudyStorage, study: optuna.Study, number: int, reason: str) -> None:
    """Say why a trial failed or was pruned."""
    storage.database.set_trial_user_attr(_trial_id(storage, study, number), _REASON, reason)


def replace_value(
    storage: StudyStorage, study: optuna.Study, number: int, value: float, epoch: int
) -> None:
    """Report an epoch's metric anew: `Trial.report` would keep what it was told first."""
    trial_id = _trial_id(storage, study, number)
    storage.database.set_trial_intermediate_value(trial_id, epoch, value)


def write_duplicate(trial: optuna.Trial, of: TrialRecord) -> None:
    """Mark a trial as the configuration of an earlier one, and repeat what that reported."""
    trial.set_user_attr(_DUPLICATE_OF, of.number)
    for epoch, value in of.values.items():
        trial.report(value, epoch)


def _trial_id(storage: StudyStorage, study: optuna.Study, number: int) -> int:
    study_id = storage.database.get_study_id_from_name(study.study_name)
    return storage.database.get_trial_id_from_study_id_trial_number(study_id, number)


def read_trials(study: optuna.Study, known: Iterable[TrialRecord] = ()) -> list[TrialRecord]:
    """All trials of a study in the order of their numbers, waiting ones left out.

    Args:
        known: read before from the same study. Those that were finished are taken as they are:
            they can't change, and to read a thousand again takes longer than to store a trial.
    """
    finished = {record.number: record for record in known if record.state in FINISHED}
    trials = study.get_trials(deepcopy=False)
    return _with_void_ones(
        finished.get(trial.number) or _read_trial(trial)
        for trial in trials
        if trial.state != TrialState.WAITING
    )


def records_of(trials: Iterable[FrozenTrial]) -> list[TrialRecord]:
    """The records of Optuna's trials, waiting ones left out."""
    return _with_void_ones(
        _read_trial(trial) for trial in trials if trial.state != TrialState.WAITING
    )


def _with_void_ones(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records, marked anew: the next failure may make those before it void."""
    read = list(records)
    void = void_numbers(read)
    return [r if r.void == (r.number in void) else replace(r, void=r.number in void) for r in read]


def _read_trial(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    claim, result = attributes.get(_CLAIM, {}), attributes.get(_RESULT, {})
    provenance = attributes.get(_PROVENANCE, {})
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        value=trial.value,
        worker=claim.get("worker"),
        logical_number=claim.get("logical_number"),
        keyed_params={**trial.params, **attributes.get(_CONTROL, {})},
        values=trial.intermediate_values,
        config=provenance.get("config", {}),
        history=result.get("history", []),
        best_epoch=result.get("best_epoch"),
        # The column is rounded; before a trial had a timing it was not.
        seconds=result.get("timing", {}).get("total", attributes.get("seconds")),
        timing=result.get("timing", {}),
        peak_memory_bytes=result.get("peak_memory_bytes"),
        micro_batch_size=result.get("micro_batch_size"),
        batch_norm_trains=result.get("batch_norm_trains"),
        cache=result.get("cache", {}),
        num_trainable_parameters=attributes.get("num_trainable_parameters"),
        reason=attributes.get(_REASON),
        duplicate_of=attributes.get(_DUPLICATE_OF),
        predictions=result.get("predictions"),
        weights=result.get("weights"),
        similarity=result.get("similarity"),
        train_metrics=result.get("train_metrics"),
        versions=dict(provenance.get("versions", {})),
        fingerprints=dict(provenance.get("fingerprints", {})),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def _gap(train: Mapping[str, float] | None, val: Mapping[str, float]) -> float | None:
    return None if train is None else float(train["accuracy"] - val["accuracy"])


def count_states(records: Iterable[TrialRecord]) -> dict[str, int]:
    """How many trials of the total are complete, pruned and failed, and how many are running."""
    counts = dict.fromkeys(("complete", "pruned", "fail", "running"), 0)
    for record in records:
        if record.counts or record.state == "RUNNING":
            counts[record.state.lower()] += 1
    return counts


def best_trials(records: Iterable[TrialRecord], metric: str) -> list[TrialRecord]:
    """The complete trials, best first; ties go to the lower validation loss, then the earlier.

    Best by what chose their epochs: the metric, or what replaces it.
    """
    complete = [r for r in records if r.state == "COMPLETE" and r.duplicate_of is None]

    def rank(record: TrialRecord) -> tuple[float, float, int]:
        assert record.best is not None
        return -record.score(metric), record.best["val"]["loss"], record.number

    return sorted(complete, key=rank)


def trials(name: str, storage: str = DEFAULT_STORAGE) -> "pandas.DataFrame":
    """The trials of study ``name`` as a table: a row a trial, field names as columns.

    Raises:
        UserError: there is no such database or study.
    """
    import pandas as pd

    records = read_trials(load_study(open_existing(storage), name))
    return pd.DataFrame([table_row(record) for record in records])


def table_row(record: TrialRecord) -> dict[str, Any]:
    """A trial as one flat row."""
    return {
        "number": record.number,
        "state": record.state,
        "value": record.value,
        **record.params,
        "best_epoch": record.best_epoch,
        "seconds": record.seconds,
        "num_trainable_parameters": record.num_trainable_parameters,
        "train_val_gap": record.train_val_gap,
        "reason": record.reason,
        "duplicate_of": record.duplicate_of,
    }


# So many equal failures of a strategy in a row are a fault of what the trials run on.
IN_A_ROW = 3
WAY_OUT = (
    "Such failures don't count to the total. Mend the cause, then give the same command with "
    "--retry-failed: it runs these configurations again."
)
# A configuration's own failure: the next one may do better.
DIVERGED = "diverged"

# After one of these every further call to the device fails, until the process ends.
_DEVICE = re.compile(r"(CUDA|HIP) error: |device-side assert|illegal memory access")
# A library that gets no memory for its workspace says so by one of the last two.
_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|NOT_INITIALIZED", re.IGNORECASE)
# What may differ between two failures for one reason: numbers, addresses, names of files.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\d+")


def kills_device(reason: str) -> bool:
    """Whether the error leaves a device behind that no further trial of this process can use."""
    return _DEVICE.search(reason) is not None and _MEMORY.search(reason) is None


def is_own_failure(record: TrialRecord) -> bool:
    """Whether a trial failed by its configuration: to run it again would end in the same way."""
    return record.state == "FAIL" and (record.reason or "").startswith(DIVERGED)


def to_retry(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The failed trials of a search whose configurations may be run again, earliest first.

    Each keeps its logical number. Those that diverged would do so again.
    """
    return [
        r
        for r in _failed(records)
        if r.logical_number is not None
        and not is_own_failure(r)
        and not any(_runs_again(later, r) for later in records)
    ]


def void_numbers(records: Sequence[TrialRecord]) -> set[int]:
    """Numbers of the failed trials of a search that don't count to its total.

    Those that were run again; those that killed their device; rows of equal failures of a
    strategy, with the other strategy's in between that failed in the same way.
    """
    failed = _failed(records)
    if not failed:
        return set()
    void = {r.number for r in failed if any(_runs_again(later, r) for later in records)}
    void |= {r.number for r in failed if r.reason and kills_device(r.reason)}
    for row in _rows(records):
        if len(row) >= IN_A_ROW:
            first, last, fault = row[0].number, row[-1].number, _fault(row[0])
            void |= {r.number for r in failed if first <= r.number <= last and _fault(r) == fault}
    return void


def why_stop(record: TrialRecord, records: Sequence[TrialRecord]) -> str | None:
    """Why no further trial should be begun after ``record``, in a sentence; None to go on.

    Every third failure of a row ends a run: so one that was stopped has three attempts again.
    """
    fault = _fault(record)
    if fault is None:
        return None
    reason = str(record.reason)
    if kills_device(reason):
        return f"Trial {record.number} left the device unusable ({_short(reason)})."
    row = next(row for row in _rows(records) if any(r.number == record.number for r in row))
    place = 1 + [r.number for r in row].index(record.number)
    if place % IN_A_ROW:
        return None
    strategy = TITLES[str(record.strategy)]
    return f"{place} trials of {strategy} in a row failed for one reason ({_short(reason)})."


def why_stop_repeats(done: TrialRecord) -> str | None:
    """Why no further training over seeds should be begun, in a sentence; None to go on.

    Seeds of one configuration that fail alike are no reason: the next configuration may do better.
    """
    if done.state != "FAIL" or done.reason is None or not kills_device(done.reason):
        return None
    return f"Trial {done.number} left the device unusable ({_short(done.reason)})."


def _short(reason: str) -> str:
    return reason if len(reason) <= 160 else f"{reason[:160]} ..."


def _fault(record: TrialRecord) -> str | None:
    """What makes failures equal; None of a trial that did not fail, or by its own fault."""
    if not _failed([record]) or record.reason is None or is_own_failure(record):
        return None
    return _PARTICULARS.sub("#", record.reason)


def _failed(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The failed trials of a search, interrupted ones and duplicates left out."""
    return [
        r
        for r in records
        if r.state == "FAIL" and r.is_of_search and not r.is_interrupted and r.duplicate_of is None
    ]


def _rows(records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Failures of a strategy that are equal and follow each other."""
    rows = []
    ended = [
        r
        for r in records
        if r.state in ("COMPLETE", "PRUNED", "FAIL")
        and not r.is_interrupted
        and r.duplicate_of is None
    ]
    for strategy in {r.strategy for r in ended}:
        mine = sorted((r for r in ended if r.strategy == strategy), key=lambda r: r.number)
        rows += [list(row) for fault, row in groupby(mine, key=_fault) if fault is not None]
    return rows


def _runs_again(later: TrialRecord, failed: TrialRecord) -> bool:
    return (
        later.number > failed.number
        and later.logical_number == failed.logical_number is not None
        and later.keyed_params == failed.keyed_params
        and not later.is_interrupted
    )
