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
    """The kind of a field's values and the law they obey, as a predicate and in words."""

    kind: type[str] | type[int] | type[float]
    holds: Callable[[Value], bool]
    law: str


def one_of(*names: str) -> Field:
    return Field(kind=str, holds=lambda value: value in names, law=f"one of {', '.join(names)}")


def number(
    kind: type[int] | type[float],
    low: float,
    law: str,
    *,
    open_low: bool = False,
    below: float = float("inf"),
) -> Field:
    def holds(value: Value) -> bool:
        assert not isinstance(value, str)
        return (value > low if open_low else value >= low) and value < below

    return Field(kind=kind, holds=holds, law=law)


FIELDS: dict[str, Field] = {
    "backbone": Field(kind=str, holds=lambda value: True, law="the name of a backbone"),
    "strategy": one_of(*STRATEGIES),
    "learning_rate": number(float, 0.0, "> 0", open_low=True),
    "batch_size": number(int, 1, ">= 1"),
    "num_unfrozen_layers": number(int, 1, ">= 1 (feature extraction is always 0)"),
    "optimizer": one_of("adamw", "adam", "sgd"),
    "weight_decay": number(float, 0.0, ">= 0"),
    "dropout": number(float, 0.0, "in [0, 1)", below=1.0),
}
