"""``TransferConfig``: everything that fixes one training run. Knows neither torch nor Optuna."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

METRICS = ("accuracy", "balanced_accuracy", "auroc", "f1", "loss")
CALIBRATED_LOSS = "calibrated_loss"
CHOOSE_BY = ("metric", CALIBRATED_LOSS)
OPTIMIZERS = ("adamw", "adam", "sgd")
HEAD_INITS = ("random", "probe")
CLASS_WEIGHTS = ("none", "balanced")
BATCH_NORMS = ("train", "frozen")
FLIPS = ("none", "horizontal", "both")
PRECISIONS = ("fp32", "bf16", "fp16")


class Strategy(StrEnum):
    """The two ways to transfer: train a new head alone, or the last blocks as well."""

    FEATURE_EXTRACTION = "feature_extraction"
    FINE_TUNING = "fine_tuning"


# What they are called.
TITLES: Mapping[str, str] = {
    Strategy.FEATURE_EXTRACTION: "feature extraction",
    Strategy.FINE_TUNING: "fine-tuning",
}


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """One training run of one backbone on one data set.

    ``num_unfrozen_layers`` counts blocks from the output side; ``epochs`` is the most that are
    trained and ``patience`` how many epochs without a better one end the run. ``choose_by`` says
    what makes an epoch the better one: ``metric``, or the calibrated loss.

    The recipe, off by default (``transfer.training.recipes`` has the sources):

    - ``head_init``: ``probe`` starts the head from a logistic regression on the frozen features.
    - ``head_rate_factor``: factor from ``learning_rate`` to the head's.
    - ``layer_decay``: factor of the learning rate from one layer to the one before it.
    - ``gradual_unfreezing``: share of ``epochs`` within which the layers are unfrozen one by one.
    - ``batch_norm``: ``frozen`` keeps the statistics of BatchNorm in trained layers as they are.
    - ``label_smoothing``: share of the target that is spread evenly over the classes.
    - ``class_weights``: ``balanced`` weighs the loss of a class by the inverse of its frequency.
    - ``mixup``: alpha of the Beta distribution that shares of mixed images are drawn from.
    - ``ema_decay``: decay of the moving average of the weights that is validated and kept.
    - ``num_views``: variants of every training image, itself included; an epoch shows one.
    - ``flip``: how variants may be mirrored; ``both`` turns them upside down as well.

    The first five belong to fine-tuning alone: with a frozen backbone they mean nothing. So does
    ``precision``, the number format in which unfrozen layers train; all else is float32.

    Raises:
        ValueError: a value breaks its law; the message states law and value.
    """

    backbone: str
    strategy: Strategy
    learning_rate: float
    batch_size: int
    num_unfrozen_layers: int = 0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    dropout: float = 0.2
    head_init: str = "random"
    head_rate_factor: float = 1.0
    layer_decay: float = 1.0
    gradual_unfreezing: float = 0.0
    batch_norm: str = "train"
    label_smoothing: float = 0.0
    class_weights: str = "none"
    mixup: float = 0.0
    ema_decay: float = 0.0
    num_views: int = 1
    flip: str = "horizontal"
    precision: str = "fp32"
    epochs: int = 15
    patience: int = 5
    metric: str = "accuracy"
    choose_by: str = "metric"
    seed: int = 0

    def __post_init__(self) -> None:
        _choice("strategy", self.strategy, tuple(Strategy))
        object.__setattr__(self, "strategy", Strategy(self.strategy))
        for name, choices in _CHOICES.items():
            _choice(name, getattr(self, name), choices)
        for name, (holds, law) in _LAWS.items():
            _law(holds(getattr(self, name)), law, "every run", name, getattr(self, name))
        k = self.num_unfrozen_layers
        if self.strategy is Strategy.FINE_TUNING:
            _law(k >= 1, "num_unfrozen_layers >= 1", "fine-tuning", "num_unfrozen_layers", k)
            return
        for name, only in _OF_FEATURE_EXTRACTION.items():
            value = getattr(self, name)
            _law(value == only, f"{name} == {only}", "feature extraction", name, value)

    @property
    def criterion(self) -> str:
        """The name of the validation value that chooses the epoch."""
        return criterion(self.metric, self.choose_by)


_CHOICES = {
    "optimizer": OPTIMIZERS,
    "head_init": HEAD_INITS,
    "batch_norm": BATCH_NORMS,
    "class_weights": CLASS_WEIGHTS,
    "metric": METRICS,
    "choose_by": CHOOSE_BY,
    "flip": FLIPS,
    "precision": PRECISIONS,
}
# Each predicate is written so that NaN breaks it.
_LAWS: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda v: 0 < v < math.inf, "learning_rate > 0"),
    "batch_size": (lambda v: v >= 1, "batch_size >= 1"),
    "weight_decay": (lambda v: 0 <= v < math.inf, "weight_decay >= 0"),
    "dropout": (lambda v: 0 <= v < 1, "0 <= dropout < 1"),
    "head_rate_factor": (lambda v: 0 < v < math.inf, "head_rate_factor > 0"),
    "layer_decay": (lambda v: 0 < v <= 1, "0 < layer_decay <= 1"),
    "gradual_unfreezing": (lambda v: 0 <= v < 1, "0 <= gradual_unfreezing < 1"),
    "label_smoothing": (lambda v: 0 <= v < 1, "0 <= label_smoothing < 1"),
    "mixup": (lambda v: 0 <= v < math.inf, "mixup >= 0"),
    "ema_decay": (lambda v: 0 <= v < 1, "0 <= ema_decay < 1"),
    "num_views": (lambda v: v >= 1, "num_views >= 1"),
    "epochs": (lambda v: v >= 1, "epochs >= 1"),
    "patience": (lambda v: v >= 1, "patience >= 1"),
}
# Fields that mean nothing where no layer of the backbone trains, and the value they then have.
_OF_FEATURE_EXTRACTION: dict[str, Any] = {
    "num_unfrozen_layers": 0,
    "head_init": "random",
    "head_rate_factor": 1.0,
    "layer_decay": 1.0,
    "gradual_unfreezing": 0.0,
    "batch_norm": "train",
    "precision": "fp32",
}


def criterion(metric: str, choose_by: str) -> str:
    """The name of the validation value that chooses."""
    return metric if choose_by == "metric" else choose_by


def score_of(criterion: str, value: float) -> float:
    """A value of a metric or of another criterion, turned so that larger is better."""
    return -value if criterion in ("loss", CALIBRATED_LOSS) else value


def _law(holds: bool, law: str, where: str, name: str, value: object) -> None:
    if not holds:
        raise ValueError(f"`{law}` must hold for {where}, but got {name}={value}.")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Unknown {name} '{value}'; choose from {', '.join(choices)}.")
