"""``TransferConfig``: everything that fixes one training run. Knows neither torch nor Optuna."""

import math
from dataclasses import dataclass
from enum import StrEnum

METRICS = ("accuracy", "balanced_accuracy", "auroc", "f1", "loss")
OPTIMIZERS = ("adamw", "adam", "sgd")


class Strategy(StrEnum):
    """The two ways to transfer: train a new head alone, or the last blocks as well."""

    FEATURE_EXTRACTION = "feature_extraction"
    FINE_TUNING = "fine_tuning"


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """One training run of one backbone on one data set.

    ``num_unfrozen_layers`` counts blocks from the output side; ``epochs`` is the most that are
    trained and ``patience`` how many epochs without a better one end the run.

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
    epochs: int = 15
    patience: int = 5
    metric: str = "accuracy"
    seed: int = 0

    def __post_init__(self) -> None:
        _choice("strategy", self.strategy, tuple(Strategy))
        object.__setattr__(self, "strategy", Strategy(self.strategy))
        k = self.num_unfrozen_layers
        if self.strategy is Strategy.FEATURE_EXTRACTION:
            _law(
                k == 0, "num_unfrozen_layers == 0", "feature extraction", "num_unfrozen_layers", k
            )
        else:
            _law(k >= 1, "num_unfrozen_layers >= 1", "fine-tuning", "num_unfrozen_layers", k)
        rate_is_right = math.isfinite(self.learning_rate) and self.learning_rate > 0
        _law(rate_is_right, "learning_rate > 0", "every run", "learning_rate", self.learning_rate)
        for name in ("batch_size", "epochs", "patience"):
            _law(getattr(self, name) >= 1, f"{name} >= 1", "every run", name, getattr(self, name))
        _law(
            self.weight_decay >= 0,
            "weight_decay >= 0",
            "every run",
            "weight_decay",
            self.weight_decay,
        )
        _law(0 <= self.dropout < 1, "0 <= dropout < 1", "every run", "dropout", self.dropout)
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        _choice("metric", self.metric, METRICS)


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether ``value`` of ``metric`` is strictly better: lower for the loss, higher otherwise."""
    return value < than if metric == "loss" else value > than


def _law(holds: bool, law: str, where: str, name: str, value: object) -> None:
    if not holds:
        raise ValueError(f"`{law}` must hold for {where}, but got {name}={value}.")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Unknown {name} '{value}'; choose from {', '.join(choices)}.")
