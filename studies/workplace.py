"""What every training of a study shares: its data, activations, memory limits, and who works.

Knows how an objective is put together; nothing of which configuration comes next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import optuna

from studies.dashboard.publish import Publisher
from studies.objective import Objective
from studies.preparation import Prepared
from studies.progress import Progress
from studies.signals import StopSignals
from studies.storage import StudyStorage
from studies.workers import owner_lock
from transfer.activations import Activations
from transfer.data.loading import ImageData
from transfer.device import describe_device, versions
from transfer.micro_batches import MemoryLimits


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """A worker with all it needs to train configurations of one study."""

    storage: StudyStorage
    prepared: Prepared
    worker: str
    progress: Progress
    signals: StopSignals
    activations: Activations
    publisher: Publisher
    limits: MemoryLimits = field(default_factory=MemoryLimits)

    def objective(
        self,
        study: optuna.Study,
        *,
        seed: int | None = None,
        activations: Activations | None = None,
        keep_weights: bool = False,
    ) -> Objective:
        """Runs trials of ``study`` with the settings of the search.

        Args:
            seed: of another training than the search's; such a one is never pruned.
            activations: of the same images split otherwise.
            keep_weights: store the trained part of every training.
        """
        settings = self.prepared.settings
        if seed is not None:
            settings = replace(settings, seed=seed, pruner="none")
        return Objective(
            storage=self.storage,
            study=study,
            settings=settings,
            activations=activations or self.activations,
            provenance=self._provenance(),
            precision=self.prepared.identity.get("precision", {}),
            progress=self.progress,
            signals=self.signals,
            limits=self.limits,
            keep_weights=keep_weights,
        )

    def activations_of(self, data: ImageData) -> Activations:
        """Those of the same images with another validation split: what is kept is shared."""
        return make_activations(self.prepared, data, self.progress)

    def _provenance(self) -> dict[str, object]:
        data, identity = self.prepared.data, self.prepared.identity
        return {
            "versions": {**versions(), "optuna": optuna.__version__},
            "device": describe_device(self.prepared.device),
            "threads": identity["threads"],
            "worker": self.worker,
            "fingerprints": {
                "data": data.fingerprint,
                "test": data.test_fingerprint,
                "weights": identity["weights"],
            },
        }


@contextmanager
def open_workplace(
    storage: StudyStorage, prepared: Prepared, progress: Progress, signals: StopSignals
) -> Iterator[Workplace]:
    """A workplace whose worker holds its owner lock until the end of the block.

    At its beginning and at its end the dashboard's notes and figures are brought up to date.
    """
    publisher = Publisher(storage, prepared.settings.name, progress.message)
    with owner_lock(storage) as worker:
        publisher.publish(wait_seconds=0)
        try:
            yield Workplace(
                storage=storage,
                prepared=prepared,
                worker=worker,
                progress=progress,
                signals=signals,
                activations=make_activations(prepared, prepared.data, progress),
                publisher=publisher,
            )
        finally:
            publisher.publish()


def make_activations(prepared: Prepared, data: ImageData, progress: Progress) -> Activations:
    """The activations of a study's backbones on these data."""
    return Activations(
        data=data,
        weights=prepared.weights,
        cache_dir=prepared.cache_dir,
        device=prepared.device,
        limit_bytes=prepared.cache_limit,
        boundaries={name: prepared.space.boundaries(name) for name in prepared.space.backbones},
        on_progress=progress.work,
    )
