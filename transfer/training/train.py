"""Train one ``TransferConfig``. Knows nothing of Optuna or of the command line.

Legend: E epochs, N validation images, B images of a batch, C classes, D features.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from transfer.activations.activations import Activations, Positions
from transfer.activations.frozen import CHUNK_SIZES
from transfer.backbones.find import TransferNetwork, find_spec
from transfer.config import CALIBRATED_LOSS, TransferConfig
from transfer.data.loading import Split
from transfer.device import PeakMemory, retained_memory
from transfer.network import batch_norm_trains, freeze, num_trainable_parameters
from transfer.probe import Probe, solve_probe
from transfer.training.batch_norm import num_statistics_images, statistics_names, take_statistics
from transfer.training.calibrated_loss import calibrated_loss
from transfer.training.metrics import classification_metrics
from transfer.training.micro_batches import (
    MemoryLimits,
    StepMemoryError,
    equal_parts,
    full_batches,
    halved_sizes,
    memory_errors_of_a_step,
    micro_batches,
    shuffled_batches,
)
from transfer.training.optimizer import Stepping, features_above, logits_above
from transfer.training.recipes import (
    Mixing,
    WeightAverage,
    loss_function,
    num_layers_unfrozen,
    start_head_from_probe,
)
from transfer.training.result import EpochRecord, TrainingResult, best_epoch

# Images a validation batch, as in frozen passes: on a CPU 16 are twice as fast as 64.
VAL_BATCH_SIZES = CHUNK_SIZES


class DivergedError(ArithmeticError):
    """A loss or a logit became NaN or infinite."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"diverged at epoch {epoch}")
        self.epoch = epoch


OnEpoch = Callable[[EpochRecord], bool]
# From a network, the number of its first block to run, what goes into it, and the precision.
Output = Callable[[TransferNetwork, int, Tensor, str], Tensor]


def train(
    config: TransferConfig,
    activations: Activations,
    on_epoch: OnEpoch = lambda record: False,
    limits: MemoryLimits | None = None,
    num_epochs: int | None = None,
) -> TrainingResult:
    """Train ``config`` on the data of ``activations`` until epochs, patience or caller end it.

    The best epoch is the one with the best ``config.criterion`` on the validation images; ties go
    to the lower validation loss. Epochs before all layers train don't count, nor does patience:
    what comes out is what was asked for, not a probe. Same configuration, data, device and
    threads: same numbers.

    Where memory is short the run starts anew, its batches split into micro-batches whose
    gradients add up to the batch's: exact but for dropout, and for BatchNorm where it trains.

    Args:
        on_epoch: called behind every epoch, from 1 again in a new start; True ends the run.
        limits: what earlier runs found no memory for.
        num_epochs: train for exactly so many and keep the last one's weights: for a training
            whose validation images say nothing, as it trains on them as well.

    Raises:
        DivergedError: the training loss or a validation logit is not finite.
        OutOfMemoryError: of torch: there is no memory even for one image at a time.
        ValueError: ``num_unfrozen_layers`` is more than the backbone has, or BatchNorm would train
            on batches of one image.
    """
    limits = MemoryLimits() if limits is None else limits
    # A run that is short of memory at its third epoch starts anew from its first: what it gives
    # then depends on the micro-batches alone, not on when and where memory was short.
    return limits.first_that_fits(
        (config.backbone, config.num_unfrozen_layers, config.precision),
        halved_sizes(config.batch_size, len(activations.data.train)),
        lambda size: _train(config, activations, on_epoch, size, num_epochs),
        activations.device,
        remembered=StepMemoryError,
    )


def _train(
    config: TransferConfig,
    activations: Activations,
    on_epoch: OnEpoch,
    micro_batch_size: int,
    num_epochs: int | None = None,
) -> TrainingResult:
    seconds_before = activations.seconds
    history: list[EpochRecord] = []
    # What trainings share is no cost of the first of them.
    activations.load(config.backbone, with_views=config.num_views > 1)
    with retained_memory(), PeakMemory(activations.device) as peak:
        run = _Run(config, activations, micro_batch_size)
        peak.restart()  # Behind what computing kept outputs took for a moment.
        best, best_state = 0, run.trained_state()
        for epoch in range(1, (num_epochs or config.epochs) + 1):
            record = run.epoch(epoch)
            history.append(record)
            if epoch == (num_epochs or best_epoch(history, config.criterion)):
                best, best_state = epoch, run.trained_state()
            patience = math.inf if num_epochs else config.patience
            ended = on_epoch(record)
            if ended or (record.all_layers_train and epoch - best >= patience):
                break
        started = run.clock()
        train_metrics = None if ended else run.metrics_on_training_images(best_state)
        train_metrics_seconds = run.clock() - started
    return TrainingResult(
        history=tuple(history),
        best_epoch=best,
        num_trainable_parameters=run.num_trainable_parameters,
        activation_seconds=activations.seconds - seconds_before,
        peak_memory_bytes=peak.num_bytes,
        micro_batch_size=run.micro_batch_size,
        batch_norm_trains=run.batch_norm_trains,
        start_boundary=run.inputs.start,
        kept_bytes=run.inputs.num_bytes,
        was_at_hand=run.inputs.was_at_hand,
        train_metrics=train_metrics,
        train_metrics_seconds=train_metrics_seconds,
        trained_state=best_state,
    )


class _Run:
    """The state of one training: network, optimiser, and the streams that order and mix."""

    def __init__(
        self,
        config: TransferConfig,
        activations: Activations,
        micro_batch_size: int,
    ) -> None:
        spec = find_spec(config.backbone)
        self.config, self.activations = config, activations
        # Of validation's batches: other trainings begin with whole ones again.
        self.limits = MemoryLimits()
        self.data, self.device = activations.data, activations.device
        self.boundary = spec.depth - config.num_unfrozen_layers
        torch.manual_seed(config.seed)
        self.network = TransferNetwork(
            activations.blocks(config.backbone, self.boundary),
            spec.num_features,
            len(self.data.classes),
            config.dropout,
        ).to(self.device)
        self.num_unfrozen_layers: int | None = None
        self._freeze(config.num_unfrozen_layers)
        self.num_trainable_parameters = num_trainable_parameters(self.network)
        self.inputs = activations.inputs(
            config.backbone,
            self.boundary,
            num_views=config.num_views,
            flip=config.flip,
            passes=config.epochs,
        )
        self.batch_norm_trains = batch_norm_trains(self.network)
        if self.batch_norm_trains and config.batch_size < 2:
            raise ValueError(
                "`batch_size >= 2` must hold where BatchNorm trains, but got "
                f"batch_size={config.batch_size}; with batch_norm=frozen one image is enough."
            )
        # BatchNorm can't train on one image.
        smallest = min(config.batch_size, 2) if self.batch_norm_trains else 1
        self.micro_batch_size = max(micro_batch_size, smallest)
        self.stepping = Stepping(config, self.network)
        train, labels_N = self.data.train, self._labels(self.data.train)
        self.loss = loss_function(config, labels_N, len(self.data.classes))
        self.mixing = Mixing(config.mixup, config.seed)
        # Drawn apart from dropout, so that the order of the batches doesn't depend on the network.
        self.order = np.random.default_rng(config.seed)
        # Every image goes through its views in turn, from one of its own: an epoch has them all.
        self.first_view_N = np.random.default_rng([config.seed, 2]).integers(
            config.num_views, size=len(train)
        )
        # Drawn once, so that epochs differ in their weights alone; shuffled, as folders of images
        # are in the order of their classes.
        shuffled_N = np.random.default_rng([config.seed, 3]).permutation(train.positions_N)
        self.statistics_positions_N = shuffled_N[: num_statistics_images(len(train))]
        if config.head_init == "probe":
            start_head_from_probe(self.network.head, self._probe())
        decay = config.ema_decay
        self.average = WeightAverage(self._averaged_tensors(), decay) if decay else None

    def _probe(self) -> Probe:
        """A probe of the features that the first step sees.

        Where BatchNorm trains these are not the pretrained ones: it normalises by these images.
        """
        if not self.batch_norm_trains:
            return self.activations.probe(self.config.backbone)
        self._take_statistics()
        train = self.data.train
        features_ND = self._in_eval_mode(features_above, train.positions_N).cpu().numpy()
        return solve_probe(features_ND, train.labels_N, train.groups_N)

    def _freeze(self, num_unfrozen_layers: int) -> None:
        if num_unfrozen_layers == self.num_unfrozen_layers:
            return
        self.num_unfrozen_layers = num_unfrozen_layers
        freeze(self.network, num_unfrozen_layers, batch_norm=self.config.batch_norm)

    def clock(self) -> float:
        """Seconds, without those that frozen blocks take."""
        return perf_counter() - self.activations.seconds

    def epoch(self, epoch: int) -> EpochRecord:
        started = self.clock()
        train_metrics = self._train(epoch)
        with self._averaged():
            self._take_statistics()
            trained = self.clock()
            val_logits_NC = self.predict(self.data.val.positions_N)
        if not torch.isfinite(val_logits_NC).all():
            raise DivergedError(epoch)
        val, said_NC = self.data.val, val_logits_NC.cpu().numpy()
        val_metrics = classification_metrics(val_logits_NC, self._labels(val))
        val_metrics[CALIBRATED_LOSS] = calibrated_loss(said_NC, val.labels_N)
        return EpochRecord(
            epoch=epoch,
            train=train_metrics,
            val=val_metrics,
            val_logits_NC=said_NC,
            training_seconds=trained - started,
            validation_seconds=self.clock() - trained,
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
        batches = list(shuffled_batches(len(self.data.train), self.config.batch_size, self.order))
        inputs = self.inputs.batches(
            [self.data.train.positions_N[index_B] for index_B in batches],
            [views_N[index_B] for index_B in batches],
        )
        for index_B, x in zip(batches, inputs, strict=True):
            # Mixed before it is split: partners may lie in different micro-batches.
            batch = self.mixing(x, labels_N[index_B])
            for images in micro_batches(len(index_B), self.micro_batch_size):
                part = batch.part(images)
                with memory_errors_of_a_step():
                    logits_BC = self._logits(part.x, self.config.precision)
                    loss = part.loss(self.loss, logits_BC)
                    if not torch.isfinite(loss):
                        raise DivergedError(epoch)
                    # The loss is a mean over images: these have this share in the batch's.
                    self.stepping.add_gradients(loss * (len(part.x) / len(index_B)))
                logits.append(logits_BC.detach())
            with memory_errors_of_a_step():
                has_stepped = self.stepping.step()
            if has_stepped and self.average is not None:
                self.average.update()
            labels.append(batch.labels_B)
        return classification_metrics(torch.cat(logits), torch.cat(labels))

    def _take_statistics(self) -> None:
        """Of BatchNorm, in the arithmetic of training and of the weights as they are validated."""
        if not self.batch_norm_trains:
            return
        positions_N = self.statistics_positions_N
        parts = equal_parts(len(positions_N), self.micro_batch_size)
        batches = self.inputs.batches([positions_N[part] for part in parts])
        take_statistics(self.network, self.boundary, batches, self.config.precision)

    def predict(self, positions_N: Positions) -> Tensor:
        """Logits in eval mode: (N, C), float32."""
        return self._in_eval_mode(logits_above, positions_N)

    def _in_eval_mode(self, output: Output, positions_N: Positions) -> Tensor:
        self.network.eval()
        largest = VAL_BATCH_SIZES[self.device.type]
        return self.limits.first_that_fits(
            (self.config.backbone, self.boundary, "validation"),
            halved_sizes(largest, largest),
            lambda size: self._predict(output, positions_N, size),
            self.device,
        )

    @torch.inference_mode()
    def _predict(self, output: Output, positions_N: Positions, batch_size: int) -> Tensor:
        batches = self.inputs.batches(full_batches(positions_N, batch_size))
        outputs = [output(self.network, self.boundary, x, "fp32") for x in batches]
        return torch.cat(outputs)[: len(positions_N)]

    def metrics_on_training_images(self, state: Mapping[str, Tensor]) -> dict[str, float] | None:
        """Of the network that was kept, as on validation images; None if a logit isn't finite."""
        self.network.load_state_dict(dict(state), strict=False)
        train = self.data.train
        logits_NC = self.predict(train.positions_N)
        if not torch.isfinite(logits_NC).all():
            return None
        return classification_metrics(logits_NC, self._labels(train))

    def _logits(self, x: Tensor, precision: str) -> Tensor:
        return logits_above(self.network, self.boundary, x, precision)

    def _labels(self, split: Split) -> Tensor:
        return torch.from_numpy(split.labels_N).to(self.device)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.average else nullcontext()

    def trained_state(self) -> dict[str, Tensor]:
        """A copy of the tensors above the boundary as they are validated."""
        with self._averaged():
            return {key: tensor.clone() for key, tensor in self._trained_tensors().items()}

    def _averaged_tensors(self) -> dict[str, Tensor]:
        """All of them but the statistics of BatchNorm, which are taken of the averaged weights."""
        statistics = statistics_names(self.network)
        return {k: tensor for k, tensor in self._trained_tensors().items() if k not in statistics}

    def _trained_tensors(self) -> dict[str, Tensor]:
        """The tensors above the boundary themselves: trained blocks, buffers too, and the head."""
        found: dict[str, Tensor] = {}
        for index in range(self.boundary, len(self.network.blocks)):
            found |= self.network.blocks[index].state_dict(prefix=f"blocks.{index}.")
        return found | self.network.head.state_dict(prefix="head.")
