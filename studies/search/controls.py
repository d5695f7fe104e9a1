"""Controls: what a study's result must beat to mean anything, in ``NAME/controls``.

The majority class; nearest neighbours and logistic regression on each backbone's frozen features,
pretrained and random; the default recipe without a search, by every seed of confirming. Knows
validation images alone; the test split is `final_test`'s to open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from studies.database.beside import open_beside
from studies.database.owners import hand_out_lock
from studies.database.trials import (
    TrialRecord,
    read_trials,
    write_control,
    write_owner,
    write_result,
)
from studies.results.controls import CONTROLS_STUDY, KEYS, NONE
from studies.search.loop import Repeat, run_repeats
from studies.search.objective import upload_history, upload_predictions
from studies.search.suggest import fixed_sampler
from studies.search.worker import Worker, make_activations
from transfer.controls import CONTROLS, ON_FEATURES
from transfer.similarity import linear_cka
from transfer.training.metrics import classification_metrics
from transfer.weights.find import find_weights


@dataclass(frozen=True, kw_only=True)
class Control:
    """A classifier on features, or of the majority class, which needs none."""

    name: str
    backbone: str = NONE
    weights: str = NONE

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is known by, in the order of ``KEYS``."""
        return self.name, self.backbone, self.weights

    def is_of(self, record: TrialRecord) -> bool:
        """Whether ``record`` is this control's."""
        return tuple(map(record.keyed_params.get, KEYS)) == self.key


def controls_of(backbones: Sequence[str], weights: str) -> list[Control]:
    """All controls of a study whose backbones have these weights."""
    found = [Control(name="majority")]
    for source in dict.fromkeys((weights, "random")):
        found += [
            Control(name=name, backbone=backbone, weights=source)
            for backbone in backbones
            for name in ON_FEATURES
        ]
    return found


def run_controls(
    worker: Worker, seeds: Sequence[int], *, retry_failed: bool = False
) -> list[TrialRecord]:
    """Fit and store the controls that are not there yet.

    Args:
        seeds: by which the default recipes are trained.
        retry_failed: train recipes that have failed once more, with the same seed.

    Raises:
        Interrupted: a signal came; what is finished is stored.
    """
    settings, space = worker.prepared.settings, worker.prepared.space
    study = open_beside(
        worker.storage,
        settings.name,
        CONTROLS_STUDY,
        worker.search_id,
        metric=settings.metric,
        say=worker.progress.message,
    )
    wanted = controls_of(space.backbones, settings.weights)
    for number, control in enumerate(wanted, start=1):
        worker.signals.check()
        if not any(control.is_of(r) and r.counts for r in read_trials(study)):
            _run(worker, study, control)
        worker.progress.work("controls", number, len(wanted))
    return run_repeats(
        worker,
        study,
        [
            Repeat(candidate=number, configuration=configuration, seed=seed)
            for number, configuration in enumerate(_recipes(worker))
            for seed in seeds
        ],
        lambda seed: worker.objective(study, seed=seed, keep_weights=True),
        retry_failed=retry_failed,
    )


def _recipes(worker: Worker) -> list[dict[str, Any]]:
    """The default recipe of each strategy: the last of its baselines, on the first backbone."""
    space = worker.prepared.space
    last = {baseline.strategy: baseline for baseline in space.baselines}
    return [space.baseline_configuration(b, space.backbones[0]) for b in last.values()]


def _run(worker: Worker, study: optuna.Study, control: Control) -> None:
    started = perf_counter()
    data = worker.activations.data
    features_ND = control_features(worker, control)
    num_classes = len(data.classes)
    similarity = _similarity(worker, control, features_ND)
    predict = CONTROLS[control.name](
        features_ND[data.train.positions_N],
        data.train.labels_N,
        num_classes,
        data.train.groups_N,
    )
    logits = {
        name: log_probabilities(predict(features_ND[split.positions_N]))
        for name, split in (("train", data.train), ("val", data.val))
    }
    metrics = {
        name: classification_metrics(
            torch.from_numpy(logits[name]), torch.from_numpy(split.labels_N)
        )
        for name, split in (("train", data.train), ("val", data.val))
    }
    # Only what is stored at once may be seen: two processes may fit, one of them stores.
    with hand_out_lock(worker.storage):
        if any(control.is_of(r) and r.counts for r in read_trials(study)):
            return
        study.sampler = fixed_sampler({}, 0)  # Nothing of it is drawn.
        trial = study.ask()
        write_owner(trial, worker=worker.name, logical_number=trial.number)
        write_control(trial, dict(zip(KEYS, control.key, strict=True)))
        value = metrics["val"][worker.prepared.settings.metric]
        trial.report(value, 1)
        seconds = perf_counter() - started
        spent = {"training_seconds": seconds, "validation_seconds": 0.0}
        history = [{"epoch": 1, "all_layers_train": True, **metrics, **spent}]
        upload_history(worker.storage, trial, history)
        write_result(
            trial,
            history=history,
            best_epoch=1,
            num_trainable_parameters=None,
            peak_memory_bytes=None,
            micro_batch_size=None,
            batch_norm_trains=None,
            cache={},
            timing={"total": seconds, "training": seconds, "validation": 0.0, "activations": 0.0},
            predictions=upload_predictions(worker.storage, trial, [logits["val"]], data.val),
            similarity=similarity,
            train_metrics=metrics["train"],
        )
        study.tell(trial, value)


def control_features(worker: Worker, control: Control) -> NDArray[np.float32]:
    """Frozen features of all images, (N, D); none are needed for the majority class: (N, 0)."""
    prepared = worker.prepared
    if control.backbone == NONE:
        return np.zeros((len(prepared.data), 0), np.float32)
    activations = worker.activations
    if control.weights == "random" and prepared.settings.weights != "random":
        file = find_weights(control.backbone, weights="random", seed=prepared.settings.seed)
        with_random = replace(prepared, weights={control.backbone: file})
        activations = make_activations(with_random, prepared.data, worker.progress)
    features_ND: NDArray[np.float32] = activations.features(control.backbone).cpu().numpy()
    return features_ND


def _similarity(
    worker: Worker, control: Control, features_ND: NDArray[np.float32]
) -> float | None:
    """How alike random weights' features are to the pretrained ones."""
    if control.weights != "random" or worker.prepared.settings.weights == "random":
        return None
    val_N = worker.activations.data.val.positions_N
    pretrained_ND = worker.activations.features(control.backbone).cpu().numpy()
    try:
        return linear_cka(pretrained_ND[val_N], features_ND[val_N])
    except ValueError:
        return None  # Too few images, or features that do not vary.


def log_probabilities(probabilities_NC: NDArray[np.float64]) -> NDArray[np.float32]:
    """As logits: their softmax gives the probabilities back. A share of 0 counts as 1e-6."""
    return np.log(np.maximum(probabilities_NC, 1e-6)).astype(np.float32)
