"""One trial: configuration -> training -> stored result and state. Failures get a name.

Knows what a trial writes, its files too, and how it ends; nothing of which configuration comes
next.

Legend: E epochs, N validation images, C classes.
"""

import csv
import gc
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState
from safetensors.torch import save_file
from torch import Tensor

from studies.database.artifacts import upload
from studies.database.storage import StudyStorage
from studies.database.trials import (
    DIVERGED,
    INTERRUPTED,
    PREDICTIONS,
    WEIGHTS,
    kills_device,
    replace_value,
    write_duplicate,
    write_provenance,
    write_reason,
    write_result,
)
from studies.search.pruning import should_prune
from studies.search.suggest import Suggestion
from studies.settings import StudySettings
from studies.signals import Interrupted, StopSignals
from studies.watchers import Pictures, Progress
from transfer.activations.activations import Activations
from transfer.config import Strategy, TransferConfig, score_of
from transfer.data.loading import Split
from transfer.device import free_memory
from transfer.inference import trained_features
from transfer.similarity import linear_cka
from transfer.training.micro_batches import MemoryLimits, NoRoomError, is_out_of_memory
from transfer.training.result import EpochRecord, TrainingResult, best_epoch
from transfer.training.train import train

HISTORY = "history.csv"


def history_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """A row an epoch: its number, metrics of training and validation images, seconds.

    Args:
        history: as a trial stores it; see ``trials.write_result``.
    """
    rows = [
        {
            "epoch": epoch["epoch"],
            **{f"train_{name}": value for name, value in epoch["train"].items()},
            **{f"val_{name}": value for name, value in epoch["val"].items()},
            "training_seconds": epoch["training_seconds"],
            "validation_seconds": epoch["validation_seconds"],
            "all_layers_train": epoch["all_layers_train"],
        }
        for epoch in history
    ]
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(rows[0]) if rows else ["epoch"])
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def upload_history(
    storage: StudyStorage, trial: optuna.Trial, history: Sequence[Mapping[str, Any]]
) -> None:
    """Store the metrics and seconds of every epoch as CSV."""
    text = history_csv(history)
    upload(storage, trial, HISTORY, lambda path: path.write_text(text, "utf-8"))


def upload_predictions(
    storage: StudyStorage,
    trial: optuna.Trial,
    logits: Sequence[NDArray[np.float32]],
    val: Split,
) -> str:
    """Store logits with labels, positions and known groups (N,); returns the artifact's id.

    Args:
        logits: of every epoch (N, C); stored as one array (E, N, C).
    """
    arrays: dict[str, Any] = {
        "logits_ENC": np.stack(logits),
        "labels_N": val.labels_N,
        "positions_N": val.positions_N,
    }
    if val.groups_N is not None:
        arrays["groups_N"] = val.groups_N
    return upload(storage, trial, PREDICTIONS, lambda path: np.savez(path, **arrays))


def upload_weights(
    storage: StudyStorage, trial: optuna.Trial, trained_state: Mapping[str, Tensor]
) -> str:
    """Store trained blocks and head as safetensors; returns the id."""
    # Contiguous copies: safetensors refuses tensors in channels-last order.
    tensors = {key: tensor.cpu().contiguous() for key, tensor in trained_state.items()}
    return upload(storage, trial, WEIGHTS, lambda path: save_file(tensors, path))


def upload_pictures(
    storage: StudyStorage, trial: optuna.Trial, pictures: Mapping[str, bytes]
) -> None:
    """Store PNG files by name."""
    for name, png in pictures.items():
        upload(storage, trial, name, partial(_write, content=png))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


Train = Callable[..., TrainingResult]


@dataclass(kw_only=True)
class _Course:
    """What has become of a trial so far: it outlives a training that fails."""

    history: list[EpochRecord] = field(default_factory=list)
    last_reported: int = 0
    pruned: bool = False


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Runs the trials of one study. ``train`` is handed in so that a test can give a fake."""

    storage: StudyStorage
    study: optuna.Study
    settings: StudySettings
    activations: Activations
    provenance: Mapping[str, Any]
    precision: Mapping[str, str]  # of each backbone's trained layers; float32 where not named
    progress: Progress
    signals: StopSignals
    pictures: Pictures | None = None  # of a training; None draws none
    keep_weights: bool = False  # store the trained part of every complete training
    train: Train = field(default=train)
    limits: MemoryLimits = field(default_factory=MemoryLimits)

    def run(self, suggestion: Suggestion) -> None:
        """Run one trial to its end and store what it gave.

        Of a trial that another process has ended meanwhile nothing can be stored any more.

        Raises:
            Interrupted: a signal came; the trial is stored as failed, "interrupted".
        """
        try:
            self._run(suggestion)
        except optuna.exceptions.UpdateFinishedTrialError:
            self.progress.message(
                f"Another process has ended trial {suggestion.trial.number} meanwhile; what it "
                "gave here is not stored."
            )

    def _run(self, suggestion: Suggestion) -> None:
        if suggestion.duplicate_of is not None:
            self._repeat(suggestion)
            return
        trial, course = suggestion.trial, _Course()
        started, activation_seconds = perf_counter(), self.activations.seconds
        result: TrainingResult | None = None
        similarity: float | None = None
        state, reason, ended = TrialState.FAIL, None, False
        try:
            config = self._config(suggestion)
            write_provenance(trial, asdict(config), self.provenance)
            self.progress.trial_started(suggestion.logical_number, suggestion.fields)
            with self.signals.interruptible():
                result = self.train(
                    config,
                    self.activations,
                    on_epoch=lambda record: self._on_epoch(suggestion, record, course),
                    limits=self.limits,
                )
                similarity = self._similarity(config, result)
            state = TrialState.PRUNED if course.pruned else TrialState.COMPLETE
            if course.pruned:
                reason = f"worse than the median at epoch {len(course.history)}"
        except Interrupted:
            reason = INTERRUPTED
            raise
        except ArithmeticError as error:
            reason = str(error)
        except optuna.exceptions.StorageInternalError:
            reason = INTERRUPTED  # Nothing is wrong with the configuration.
            raise
        except optuna.exceptions.UpdateFinishedTrialError:
            ended = True
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
            if is_out_of_memory(error):
                reason = "out of memory"
        finally:
            if reason != INTERRUPTED and not ended:
                seconds = self.activations.seconds - activation_seconds
                timing = _timing(course.history, seconds, perf_counter() - started, result)
                self._write_result(trial, course.history, result, timing, similarity)
                if state == TrialState.COMPLETE:
                    self._draw(suggestion, course.history)
            if not ended:
                self._tell(trial, state, reason, course.history)
            if state == TrialState.FAIL:
                gc.collect()  # What raised may hold the network in a cycle; 0.1 s, so not always.
            if reason is None or not kills_device(reason):
                free_memory(self.activations.device)

    def _config(self, suggestion: Suggestion) -> TransferConfig:
        settings, fields = self.settings, suggestion.fields
        tuned = fields["strategy"] == Strategy.FINE_TUNING
        return TransferConfig(
            **{"num_views": settings.num_views, **fields},
            flip=settings.flip,
            precision=self.precision.get(fields["backbone"], "fp32") if tuned else "fp32",
            epochs=settings.epochs,
            patience=settings.patience,
            metric=settings.metric,
            choose_by=settings.choose_by,
            seed=settings.seed,
        )

    def _on_epoch(self, suggestion: Suggestion, record: EpochRecord, course: "_Course") -> bool:
        # No signal may break off a transaction: it would leave the database's session unusable.
        with self.signals.interruptible(False):
            # A training that is short of memory starts anew: what it told before is void.
            del course.history[record.epoch - 1 :]
            self._check(record)
            course.history.append(record)
            self._report(suggestion.trial, record, course)
            self.progress.epoch(record)
            course.pruned = self._is_pruned(course.history, suggestion.peers)
        self.signals.check()
        return course.pruned

    def _check(self, record: EpochRecord) -> None:
        """Refuse what is no number: Optuna would keep an infinite value as a result."""
        for name in (self.settings.metric, self.settings.criterion):
            value = record.val[name]
            if not math.isfinite(value):
                raise FloatingPointError(f"{DIVERGED} at epoch {record.epoch}: {name} is {value}")

    def _score(self, record: EpochRecord) -> float:
        """What sampler and pruner see of an epoch; larger is better."""
        by = self.settings.criterion
        return score_of(by, record.val[by])

    def _best(self, history: Sequence[EpochRecord]) -> EpochRecord:
        return history[best_epoch(history, self.settings.criterion) - 1]

    def _report(self, trial: optuna.Trial, record: EpochRecord, course: "_Course") -> None:
        value = record.val[self.settings.metric]
        if record.epoch <= course.last_reported:
            replace_value(self.storage, self.study, trial.number, value, record.epoch)
        else:
            trial.report(value, record.epoch)
            course.last_reported = record.epoch

    def _is_pruned(
        self,
        history: Sequence[EpochRecord],
        peers: Sequence[Mapping[int, float]],
    ) -> bool:
        if self.settings.pruner == "none" or len(history) >= self.settings.epochs:
            return False
        if not history[-1].all_layers_train:
            return False  # Still being unfrozen: no match for those that train all they have.
        return should_prune({record.epoch: self._score(record) for record in history}, peers)

    def _write_result(
        self,
        trial: optuna.Trial,
        history: Sequence[EpochRecord],
        result: TrainingResult | None,
        timing: Mapping[str, float],
        similarity: float | None,
    ) -> None:
        storage, shown = self.storage, [record.as_json() for record in history]
        predictions = None
        if history:
            upload_history(storage, trial, shown)
            said = [record.val_logits_NC for record in history]
            predictions = upload_predictions(storage, trial, said, self.activations.data.val)
        weights = None
        if result is not None and self.keep_weights:
            weights = upload_weights(storage, trial, result.trained_state)
        write_result(
            trial,
            history=shown,
            best_epoch=self._best(history).epoch if history else None,
            num_trainable_parameters=None if result is None else result.num_trainable_parameters,
            peak_memory_bytes=None if result is None else result.peak_memory_bytes,
            micro_batch_size=None if result is None else result.micro_batch_size,
            batch_norm_trains=None if result is None else result.batch_norm_trains,
            cache={} if result is None else _cache_use(result),
            timing=timing,
            predictions=predictions,
            weights=weights,
            similarity=similarity,
            train_metrics=None if result is None else result.train_metrics,
        )

    def _similarity(self, config: TransferConfig, result: TrainingResult) -> float | None:
        """How alike features are before and after fine-tuning, of a training that is kept."""
        if not self.keep_weights or not config.num_unfrozen_layers:
            return None
        positions_N = self.activations.data.val.positions_N
        try:
            after_ND = trained_features(
                config, self.activations, result.trained_state, positions_N
            )
            before_ND = self.activations.features(config.backbone).cpu().numpy()[positions_N]
            return linear_cka(before_ND, after_ND)
        except (ValueError, NoRoomError):
            return None  # Too few images, features that do not vary, or no memory for them.

    def _draw(self, suggestion: Suggestion, history: Sequence[EpochRecord]) -> None:
        """Store pictures of a trial that no earlier one of its strategy is better than.

        Each repeat over seeds has them: it has no rivals.
        """
        data, best = self.activations.data, self._best(history)
        if self.pictures is None:
            return
        if any(rival > self._score(best) for rival in suggestion.rivals):
            return
        try:
            pictures = self.pictures(
                [record.as_json() for record in history],
                metric=self.settings.metric,
                strategy=suggestion.fields["strategy"],
                best_epoch=best.epoch,
                logits_NC=best.val_logits_NC,
                labels_N=data.val.labels_N,
                classes=data.classes,
            )
            upload_pictures(self.storage, suggestion.trial, pictures)
        except Exception as error:
            # A trial is worth more than its pictures.
            self.progress.message(f"No pictures of trial {suggestion.trial.number}: {error}")

    def _tell(
        self,
        trial: optuna.Trial,
        state: TrialState,
        reason: str | None,
        history: Sequence[EpochRecord],
    ) -> None:
        if reason is not None:
            write_reason(self.storage, self.study, trial.number, reason)
        if state == TrialState.COMPLETE:
            self.study.tell(trial, self._best(history).val[self.settings.metric])
        else:
            self.study.tell(trial, state=state)

    def _repeat(self, suggestion: Suggestion) -> None:
        """Give a configuration that was tried before its earlier state and value."""
        assert suggestion.duplicate_of is not None
        earlier, trial = suggestion.duplicate_of, suggestion.trial
        write_duplicate(trial, earlier)
        if earlier.state == "COMPLETE":
            self.study.tell(trial, earlier.value)
        else:
            self.study.tell(trial, state=TrialState[earlier.state])


def _cache_use(result: TrainingResult) -> dict[str, Any]:
    return {
        "start": result.start_boundary,
        "bytes": result.kept_bytes,
        "was_at_hand": result.was_at_hand,
    }


def _timing(
    history: Sequence[EpochRecord],
    activation_seconds: float,
    total_seconds: float,
    result: TrainingResult | None,
) -> dict[str, float]:
    """Seconds of a trial; ``bookkeeping`` is what neither computing nor a network accounts for.

    Of a failed one nobody knows: what is left is the epoch in which it failed, mostly.
    """
    training = sum(record.training_seconds for record in history)
    validation = sum(record.validation_seconds for record in history)
    validation += 0.0 if result is None else result.train_metrics_seconds
    failed = result is None
    rest = total_seconds - activation_seconds - training - validation
    return {
        "total": total_seconds,
        "activations": activation_seconds,
        "training": training + rest if failed else training,
        "validation": validation,
        "bookkeeping": 0.0 if failed else rest,
    }
