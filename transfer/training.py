"""Train one ``TransferConfig``. Knows nothing of Optuna or of the command line.

Legend: E epochs, N validation images, B images of a batch, C classes, D features.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfer.activations import Activations, Positions
from transfer.backbones import TransferNetwork, find_spec, pool
from transfer.config import TransferConfig, is_better
from transfer.data.loading import Split
from transfer.device import memory_bytes, reset_peak_memory
from transfer.freezing import freeze, num_trainable_parameters
from transfer.metrics import classification_metrics
from transfer.recipes import (
    Mixing,
    WeightAverage,
    loss_function,
    num_layers_unfrozen,
    parameter_groups,
    start_head_from_probe,
)

VAL_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch, counted from 1. ``train`` is measured on the way: dropout, views and mixup.

    ``all_layers_train`` is false while layers are still being unfrozen gradually.
    """

    epoch: int
    train: dict[str, float]
    val: dict[str, float]
    val_logits_NC: NDArray[np.float32]
    training_seconds: float
    validation_seconds: float
    all_layers_train: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run leaves: ``trained_state`` holds the best epoch's trained blocks and head."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    num_trainable_parameters: int
    activation_seconds: float
    peak_memory_bytes: int
    trained_state: dict[str, Tensor] = field(repr=False)

    @property
    def best(self) -> EpochRecord:
        return self.history[self.best_epoch - 1]


class DivergedError(ArithmeticError):
    """A loss or a logit became NaN or infinite."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"diverged at epoch {epoch}")
        self.epoch = epoch


OnEpoch = Callable[[EpochRecord], bool]


def train(
    config: TransferConfig,
    activations: Activations,
    on_epoch: OnEpoch = lambda record: False,
) -> TrainingResult:
    """Train ``config`` on the data of ``activations`` until epochs, patience or caller end it.

    The best epoch is the one with the best ``config.metric`` on the validation images; ties go to
    the lower validation loss. Epochs before all layers train don't count, nor does patience: what
    comes out is what was asked for, not a probe. Same configuration, data, device and threads:
    same numbers.

    Args:
        on_epoch: called behind every epoch; True ends the run.

    Raises:
        DivergedError: the training loss or a validation logit is not finite.
        ValueError: ``num_unfrozen_layers`` is more than the backbone has.
    """
    reset_peak_memory(activations.device)
    seconds_before = activations.seconds
    run = _Run(config, activations)
    history: list[EpochRecord] = []
    best, best_state = 0, run.trained_state()
    peak_bytes = 0
    for epoch in range(1, config.epochs + 1):
        record = run.epoch(epoch)
        history.append(record)
        peak_bytes = max(peak_bytes, memory_bytes(activations.device))
        if best_epoch(history, config.metric) == epoch:
            best, best_state = epoch, run.trained_state()
        if on_epoch(record) or (record.all_layers_train and epoch - best >= config.patience):
            break
    return TrainingResult(
        history=tuple(history),
        best_epoch=best,
        num_trainable_parameters=run.num_trainable_parameters,
        activation_seconds=activations.seconds - seconds_before,
        peak_memory_bytes=peak_bytes,
        trained_state=best_state,
    )


class _Run:
    """The state of one training: network, optimiser, and the streams that order and mix."""

    def __init__(self, config: TransferConfig, activations: Activations) -> None:
        spec = find_spec(config.backbone)
        self.config = config
        self.data, self.device = activations.data, activations.device
        self.boundary = spec.depth - config.num_unfrozen_layers
        torch.manual_seed(config.seed)
        self.network = TransferNetwork(
            activations.blocks(config.backbone, self.boundary),
            spec.num_features,
            len(self.data.classes),
            config.dropout,
        ).to(self.device)
        self._freeze(config.num_unfrozen_layers)
        self.num_trainable_parameters = num_trainable_parameters(self.network)
        self.inputs = activations.inputs(config.backbone, self.boundary, config.num_views)
        self.optimizer = _optimizer(config, self.network)
        train, labels_N = self.data.train, self._labels(self.data.train)
        if config.head_init == "probe":
            start_head_from_probe(self.network.head, activations.probe(config.backbone))
        self.loss = loss_function(config, labels_N, len(self.data.classes))
        self.mixing = Mixing(config.mixup, config.seed)
        # Drawn apart from dropout, so that the order of the batches doesn't depend on the network.
        self.order = np.random.default_rng(config.seed)
        # Every image goes through its views in turn, from one of its own: an epoch has them all.
        self.first_view_N = np.random.default_rng([config.seed, 2]).integers(
            config.num_views, size=len(train)
        )
        self.average = (
            WeightAverage(self._trained_tensors(), config.ema_decay) if config.ema_decay else None
        )

    def _freeze(self, num_unfrozen_layers: int) -> None:
        freeze(self.network, num_unfrozen_layers, batch_norm=self.config.batch_norm)

    def epoch(self, epoch: int) -> EpochRecord:
        started = perf_counter()
        train_metrics = self._train(epoch)
        trained = perf_counter()
        with self._averaged():
            val_logits_NC = self.predict(self.data.val.positions_N)
        if not torch.isfinite(val_logits_NC).all():
            raise DivergedError(epoch)
        val_metrics = classification_metrics(val_logits_NC, self._labels(self.data.val))
        return EpochRecord(
            epoch=epoch,
            train=train_metrics,
            val=val_metrics,
            val_logits_NC=val_logits_NC.cpu().numpy(),
            training_seconds=trained - started,
            validation_seconds=perf_counter() - trained,
            all_layers_train=num_layers_unfrozen(epoch, self.config)
            == self.config.num_unfrozen_layers,
        )

    def _train(self, epoch: int) -> dict[str, float]:
        """One pass over the training images; returns the metrics seen on the way."""
        labels_N = self._labels(self.data.train)
        views_N = (self.first_view_N + epoch - 1) % self.config.num_views
        self._freeze(num_layers_unfrozen(epoch, self.config))
        self.network.train()
        logits, labels = [], []
        batches = list(_batches(len(self.data.train), self.config.batch_size, self.order))
        inputs = self.inputs.batches(
            [self.data.train.positions_N[index_B] for index_B in batches],
            [views_N[index_B] for index_B in batches],
        )
        for index_B, x in zip(batches, inputs, strict=True):
            labels_B = labels_N[index_B]
            x, loss_of = self.mixing(x, labels_B, self.loss)
            logits_BC = self._above(x)
            loss = loss_of(logits_BC, labels_B)
            if not torch.isfinite(loss):
                raise DivergedError(epoch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            logits.append(logits_BC.detach())
            labels.append(labels_B)
        return classification_metrics(torch.cat(logits), torch.cat(labels))

    @torch.inference_mode()
    def predict(self, positions_N: Positions) -> Tensor:
        """Logits in eval mode: (N, C), float32."""
        self.network.eval()
        starts = range(0, len(positions_N), VAL_BATCH_SIZE)
        batches = [positions_N[start : start + VAL_BATCH_SIZE] for start in starts]
        return torch.cat([self._above(x) for x in self.inputs.batches(batches)])

    def _above(self, x: Tensor) -> Tensor:
        for block in self.network.blocks[self.boundary :]:
            x = block(x)
        logits_BC: Tensor = self.network.head(x if x.ndim == 2 else pool(x))
        return logits_BC

    def _labels(self, split: Split) -> Tensor:
        return torch.from_numpy(split.labels_N).to(self.device)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.average else nullcontext()

    def trained_state(self) -> dict[str, Tensor]:
        """A copy of the tensors above the boundary as they are validated."""
        with self._averaged():
            return {key: tensor.clone() for key, tensor in self._trained_tensors().items()}

    def _trained_tensors(self) -> dict[str, Tensor]:
        """The tensors above the boundary themselves: trained blocks, buffers too, and the head."""
        frozen = tuple(f"blocks.{i}." for i in range(self.boundary))
        state = self.network.state_dict()
        return {key: tensor for key, tensor in state.items() if not key.startswith(frozen)}


def _batches(
    num_images: int, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Shuffled batches. A last image alone joins the batch before: BatchNorm can't train on it."""
    order = rng.permutation(num_images)
    bounds = [*range(0, num_images, batch_size), num_images]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    for start, end in itertools.pairwise(bounds):
        yield order[start:end]


def best_epoch(history: Sequence[EpochRecord], metric: str) -> int:
    """The epoch with the best ``metric``; ties go to the lower validation loss.

    Epochs in which not all layers trained don't count; while there are no others, the last does.
    """
    best, *others = [record for record in history if record.all_layers_train] or history[-1:]
    for record in others:
        value, than = record.val[metric], best.val[metric]
        tie = value == than and record.val["loss"] < best.val["loss"]
        best = record if tie or is_better(metric, value, than) else best
    return best.epoch


def _optimizer(config: TransferConfig, network: TransferNetwork) -> torch.optim.Optimizer:
    """The optimiser over the trained parameters.

    ``adamw`` takes ``learning_rate * weight_decay`` of every weight in a step, apart from the
    gradient (Loshchilov and Hutter 2019, arXiv:1711.05101); ``adam`` and ``sgd`` add
    ``weight_decay`` times the weight to its gradient.
    """
    groups = parameter_groups(network, config.learning_rate, config.layer_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay)
    kinds: dict[str, type[torch.optim.Adam]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    return kinds[config.optimizer](groups, weight_decay=config.weight_decay)
