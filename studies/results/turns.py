"""Whose turn it is: each strategy is searched on its own, by equal shares of trials or seconds.

Knows records alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.fields import STRATEGIES
from studies.database.trials import TrialRecord
from transfer.config import TITLES


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a strategy has had: ``trials`` of the total and those that run, and its ``seconds``."""

    trials: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {"trials": self.trials, "seconds": self.seconds}


def spent_on(strategy: str, records: Iterable[TrialRecord]) -> Spent:
    """What ``strategy`` has had; a running trial is taken to last as long as the mean of others.

    Else several workers would all turn to a strategy whose first trial takes long.
    """
    mine = [r for r in records if r.strategy == strategy]
    finished = [r.seconds or 0.0 for r in mine if r.counts]
    num_running = sum(r.state == "RUNNING" for r in mine)
    mean = sum(finished) / len(finished) if finished else 0.0
    return Spent(trials=len(finished) + num_running, seconds=sum(finished) + num_running * mean)


def next_strategy(share: str, strategies: Iterable[str], records: Sequence[TrialRecord]) -> str:
    """The one of ``strategies`` that has had less; of equals feature extraction, which is faster.

    Args:
        share: ``trials`` or ``seconds``: of what each has an equal share.
    """

    order: tuple[str, ...] = STRATEGIES

    def rank(strategy: str) -> tuple[float, int, int]:
        spent = spent_on(strategy, records)
        less = spent.seconds if share == "seconds" else spent.trials
        return less, spent.trials, order.index(strategy)

    return min(strategies, key=rank)


def share_of(settings: Mapping[str, Any]) -> str:
    """Of what each strategy has an equal share, by a study's stored settings."""
    return str(settings.get("share", "trials"))


def share_lines(share: str, records: Sequence[TrialRecord]) -> list[str]:
    """What each strategy has had, as a line; none of a study that has one strategy."""
    parts = [
        f"{TITLES[name]} {spent.trials} ({spent.seconds:.1f} s)"
        for name, spent in _spent_by_strategy(records).items()
    ]
    told = f"Trials of each strategy, in turn by {share}: {', '.join(parts)}."
    return [told] if len(parts) > 1 else []


def share_json(share: str, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """The same for `--json`: ``of`` what, and each strategy's ``trials`` and ``seconds``."""
    spent = _spent_by_strategy(records)
    return {"of": share, **{name: spent[name].as_json() for name in spent}}


def _spent_by_strategy(records: Sequence[TrialRecord]) -> dict[str, Spent]:
    found = {strategy: spent_on(strategy, records) for strategy in STRATEGIES}
    return {strategy: spent for strategy, spent in found.items() if spent.trials}
