"""A worker: what every training of a study shares, its data, activations and memory limits.

Knows how an objective is put together; nothing of which configuration comes next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import optuna
from optuna.storages._rdb.models import NOT_FOUND_MSG

from studies.database.owners import at_work, owner_lock
from studies.database.storage import StudyStorage, load_study, study_is_there
from studies.database.study import read_study
from studies.errors import StudyFailedError
from studies.search.objective import Objective
from studies.search.setup import Prepared
from studies.signals import StopSignals
from studies.watchers import Faces, Pictures, Progress, Publisher
from transfer.activations.activations import Activations
from transfer.data.loading import ImageData
from transfer.device import describe_device, versions
from transfer.training.micro_batches import MemoryLimits


@dataclass(frozen=True, kw_only=True)
class Worker:
    """All it takes to train configurations of the study with this ``search_id``.

    ``name`` is written to the trials that it owns.
    """

    storage: StudyStorage
    prepared: Prepared
    name: str
    progress: Progress
    signals: StopSignals
    activations: Activations
    publisher: Publisher
    pictures: Pictures | None = None
    search_id: str | None = None
    limits: MemoryLimits = field(default_factory=MemoryLimits)

    @property
    def fingerprints(self) -> dict[str, object]:
        """What is stored with every trial of its data and weights."""
        prepared = self.prepared
        return {
            "data": prepared.data.fingerprint,
            "test": prepared.data.test_fingerprint,
            "weights": prepared.identity["weights"],
        }

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
            precision=self.prepared.identity["precision"],
            progress=self.progress,
            signals=self.signals,
            limits=self.limits,
            pictures=self.pictures,
            keep_weights=keep_weights,
        )

    def activations_of(self, data: ImageData) -> Activations:
        """Those of the same images with another validation split: what is kept is shared."""
        return make_activations(self.prepared, data, self.progress)

    def _provenance(self) -> dict[str, object]:
        return {
            "versions": {**versions(), "optuna": optuna.__version__},
            "device": describe_device(self.prepared.device),
            "threads": self.prepared.identity["threads"],
            "worker": self.name,
            "fingerprints": self.fingerprints,
        }


@contextmanager
def open_worker(
    storage: StudyStorage,
    prepared: Prepared,
    progress: Progress,
    signals: StopSignals,
    faces: Faces,
) -> Iterator[Worker]:
    """A worker that holds its owner lock until the end of the block.

    At its beginning and at its end what the study is shown by is brought up to date.

    Raises:
        StudyFailedError: the study was deleted or renamed meanwhile.
    """
    name = prepared.settings.name
    publisher = faces.publisher(storage, name, progress.message)
    record = read_study(load_study(storage, name))
    assert record is not None
    with owner_lock(storage) as owner, at_work(storage, name, owner):
        publisher.publish(wait_seconds=0)
        is_gone = False
        try:
            yield Worker(
                storage=storage,
                prepared=prepared,
                name=owner,
                progress=progress,
                signals=signals,
                activations=make_activations(prepared, prepared.data, progress),
                publisher=publisher,
                pictures=faces.pictures,
                search_id=record.search_id,
            )
        except KeyError as error:  # Optuna's word for what is not in the database any more.
            is_gone = not study_is_there(storage, name)
            if is_gone:
                message = f"Study '{name}' was deleted or renamed while it ran."
            elif error.args == (NOT_FOUND_MSG,):
                message = f"A study beside '{name}' was deleted or renamed while it ran."
            else:
                raise
            raise StudyFailedError(message) from None
        finally:
            if not is_gone:
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
