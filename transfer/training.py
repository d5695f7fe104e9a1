"""Train one ``TransferConfig``. Knows nothing of Optuna or of the command line.

Legend: E epochs, N validation images, B images of a batch, C classes, D features.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from transfer.activations import Activations, Positions
from transfer.backbones import TransferNetwork, pool
from transfer.catalog import backbone_spec
from transfer.config import TransferConfig, is_better
from transfer.data.loading import Split
from transfer.device import memory_bytes, reset_peak_memory
from transfer.freezing import freeze, num_trainable_parameters, trainable_parameters
from transfer.metrics import classification_metrics

VAL_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch, counted from 1. ``train`` is measured while training (dropout and all)."""

    epoch: int
    train: dict[str, float]
    val: dict[str, float]
    val_logits_NC: NDArray[np.float32]
    training_seconds: float
    validation_seconds: float


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
    the lower validation loss. Same configuration, data, device and threads: same numbers.

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
        if on_epoch(record) or epoch - best >= config.patience:
            break
    return TrainingResult(
        history=tuple(history),
        best_epoch=best,
        num_trainable_parameters=num_trainable_parameters(run.network),
        activation_seconds=activations.seconds - seconds_before,
        peak_memory_bytes=peak_bytes,
        trained_state=best_state,
    )


class _Run:
    """The state of one training: network, optimiser, and the stream that orders the batches."""

    def __init__(self, config: TransferConfig, activations: Activations) -> None:
        spec = backbone_spec(config.backbone)
        self.data, self.device = activations.data, activations.device
        self.batch_size = config.batch_size
        self.boundary = spec.depth - config.num_unfrozen_layers
        torch.manual_seed(config.seed)
        self.network = TransferNetwork(
            activations.blocks(config.backbone, self.boundary),
            spec.num_features,
            len(self.data.classes),
            config.dropout,
        ).to(self.device)
        freeze(self.network, config.num_unfrozen_layers)
        self.inputs = activations.inputs(config.backbone, self.boundary)
        self.optimizer = _optimizer(config, self.network)
        # Drawn apart from dropout, so that the order of the batches doesn't depend on the network.
        self.order = np.random.default_rng(config.seed)

    def epoch(self, epoch: int) -> EpochRecord:
        started = perf_counter()
        train_metrics = self._train(epoch)
        trained = perf_counter()
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
        )

    def _train(self, epoch: int) -> dict[str, float]:
        """One pass over the training images; returns the metrics seen on the way."""
        labels_N = self._labels(self.data.train)
        self.network.train()
        logits, labels = [], []
        for index_B in _batches(len(self.data.train), self.batch_size, self.order):
            labels_B = labels_N[index_B]
            logits_BC = self._forward(self.data.train.positions_N[index_B])
            loss = cross_entropy(logits_BC, labels_B)
            if not torch.isfinite(loss):
                raise DivergedError(epoch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            logits.append(logits_BC.detach())
            labels.append(labels_B)
        return classification_metrics(torch.cat(logits), torch.cat(labels))

    @torch.inference_mode()
    def predict(self, positions_N: Positions) -> Tensor:
        """Logits in eval mode: (N, C), float32."""
        self.network.eval()
        starts = range(0, len(positions_N), VAL_BATCH_SIZE)
        return torch.cat(
            [self._forward(positions_N[start : start + VAL_BATCH_SIZE]) for start in starts]
        )

    def _forward(self, positions_B: Positions) -> Tensor:
        x = self.inputs.at(positions_B)
        with torch.no_grad():
            for block in self.network.blocks[self.inputs.start : self.boundary]:
                x = block(x)
        for block in self.network.blocks[self.boundary :]:
            x = block(x)
        logits_BC: Tensor = self.network.head(x if x.ndim == 2 else pool(x))
        return logits_BC

    def _labels(self, split: Split) -> Tensor:
        return torch.from_numpy(split.labels_N).to(self.device)

    def trained_state(self) -> dict[str, Tensor]:
        """A copy of the tensors above the boundary: trained blocks, buffers too, and the head."""
        frozen = tuple(f"blocks.{i}." for i in range(self.boundary))
        state = self.network.state_dict()
        return {k: v.detach().clone() for k, v in state.items() if not k.startswith(frozen)}


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
    """The epoch with the best ``metric``; ties go to the lower validation loss."""
    best = history[0]
    for record in history[1:]:
        value, than = record.val[metric], best.val[metric]
        tie = value == than and record.val["loss"] < best.val["loss"]
        best = record if tie or is_better(metric, value, than) else best
    return best.epoch


def _optimizer(config: TransferConfig, network: TransferNetwork) -> torch.optim.Optimizer:
    parameters = trainable_parameters(network)
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
    kinds: dict[str, type[torch.optim.Adam]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    return kinds[config.optimizer](parameters, lr=rate, weight_decay=decay)
