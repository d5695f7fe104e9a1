"""Who watches a study: what happens is told to them.

They are handed in by whoever runs a study; what runs it knows none of them.

Legend: N images, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from studies.database.storage import StudyStorage
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


class Publisher(Protocol):
    """Somebody who shows a study elsewhere, told when there may be something new to show."""

    def publish(self, *, wait_seconds: float = ...) -> None: ...
    def publish_if_due(self) -> None: ...


class Pictures(Protocol):
    """Draws a training: PNG files by name."""

    def __call__(
        self,
        history: Sequence[Mapping[str, Any]],
        *,
        metric: str,
        strategy: str,
        best_epoch: int,
        logits_NC: NDArray[np.float32],
        labels_N: NDArray[np.int64],
        classes: Sequence[str],
    ) -> Mapping[str, bytes]: ...


class _Nobody:
    """Shows a study nowhere."""

    def __init__(self, storage: StudyStorage, name: str, say: Callable[[str], None]) -> None: ...
    def publish(self, *, wait_seconds: float = 0.0) -> None: ...
    def publish_if_due(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Faces:
    """How a study is shown while it runs; by default nowhere.

    ``publisher`` takes the storage, the study's name, and where to say what could not be shown.
    """

    publisher: Callable[[StudyStorage, str, Callable[[str], None]], Publisher] = _Nobody
    pictures: Pictures | None = None


NOWHERE = Faces()
