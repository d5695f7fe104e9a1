"""Who watches a study: what happens is told to them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from studies.database.trials import TrialRecord


class EpochSeen(Protocol):
    """One epoch as far as the screen is concerned."""

    @property
    def epoch(self) -> int: ...
    @property
    def train(self) -> dict[str, float]: ...
    @property
    def val(self) -> dict[str, float]: ...


class Progress(Protocol):
    """What happens, as the runner tells it."""

    def message(self, text: str) -> None: ...
    def work(self, what: str, done: int, total: int) -> None: ...
    def study(
        self, name: str, metric: str, n_trials: int, records: Sequence[TrialRecord]
    ) -> None: ...
    def trial_started(self, number: int, fields: Mapping[str, Any]) -> None: ...
    def epoch(self, record: EpochSeen) -> None: ...
    def trial_finished(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None: ...
