"""Which fields of a training run may be searched, and the law each value obeys.

Knows names and laws only. That the names are those of ``transfer.TransferConfig`` is a test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Value = str | int | float

StrategyName = Literal["feature_extraction", "fine_tuning"]
STRATEGIES: tuple[StrategyName, ...] = ("feature_extraction", "fine_tuning")


@dataclass(frozen=True, kw_only=True)
class Field:
    """The kind of a field's values and the law they obey, as a predicate and in words.

    ``default`` is what a training run takes where nothing is said; None where it must be said.
    ``fine_tuning_only`` marks what means nothing to a backbone that is all frozen.
    """

    kind: type[str] | type[int] | type[float]
    holds: Callable[[Value], bool]
    law: str
    default: Value | None = None
    fine_tuning_only: bool = False


def one_of(*names: str, default: str | None = None, fine_tuning_only: bool = False) -> Field:
    return Field(
        kind=str,
        holds=lambda value: value in names,
        law=f"one of {', '.join(names)}",
        default=default,
        fine_tuning_only=fine_tuning_only,
    )


def number(
    kind: type[int] | type[float],
    low: float,
    law: str,
    *,
    open_low: bool = False,
    below: float = float("inf"),
    at_most: float = float("inf"),
    default: Value | None = None,
    fine_tuning_only: bool = False,
) -> Field:
    def holds(value: Value) -> bool:
        assert not isinstance(value, str)
        return (value > low if open_low else value >= low) and value < below and value <= at_most

    return Field(
        kind=kind, holds=holds, law=law, default=default, fine_tuning_only=fine_tuning_only
    )


FIELDS: dict[str, Field] = {
    "backbone": Field(kind=str, holds=lambda value: True, law="the name of a backbone"),
    "strategy": one_of(*STRATEGIES),
    "learning_rate": number(float, 0.0, "> 0", open_low=True),
    "batch_size": number(int, 1, ">= 1"),
    "num_unfrozen_layers": number(
        int, 1, ">= 1 (feature extraction is always 0)", fine_tuning_only=True
    ),
    "optimizer": one_of("adamw", "adam", "sgd", default="adamw"),
    "weight_decay": number(float, 0.0, ">= 0", default=0.01),
    "dropout": number(float, 0.0, "in [0, 1)", below=1.0, default=0.2),
    "head_init": one_of("random", "probe", default="random", fine_tuning_only=True),
    "head_rate_factor": number(
        float, 0.0, "> 0", open_low=True, default=1.0, fine_tuning_only=True
    ),
    "layer_decay": number(
        float, 0.0, "in (0, 1]", open_low=True, at_most=1.0, default=1.0, fine_tuning_only=True
    ),
    "gradual_unfreezing": number(
        float, 0.0, "in [0, 1)", below=1.0, default=0.0, fine_tuning_only=True
    ),
    "batch_norm": one_of("train", "frozen", default="train", fine_tuning_only=True),
    "label_smoothing": number(float, 0.0, "in [0, 1)", below=1.0, default=0.0),
    "class_weights": one_of("none", "balanced", default="none"),
    "mixup": number(float, 0.0, ">= 0", default=0.0),
    "ema_decay": number(float, 0.0, "in [0, 1)", below=1.0, default=0.0),
    "num_views": number(int, 1, ">= 1", default=1),
}


def is_default(name: str, value: object) -> bool:
    """Whether a training run takes this value where nothing is said of the field."""
    return name in FIELDS and FIELDS[name].default is not None and value == FIELDS[name].default
