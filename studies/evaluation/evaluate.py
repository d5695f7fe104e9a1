"""The final test evaluation: forecast, entry in the ledger, one look at the test images, results.

The order is what makes it honest: the forecast is written before the seal is broken, the opening
before its result. Knows the order of things; metrics, networks and words are others' to know.

Legend: N test images, C classes, S seeds.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studies.backbone_module import check_stored, run_module
from studies.bundle.bundle import Bundle, read_bundle
from studies.bundle.card import card_paragraphs, with_test_section
from studies.bundle.config import CARD, MODEL
from studies.bundle.reproduce import Places
from studies.database.ledger import (
    OpenedMeanwhileError,
    Opening,
    close_entry,
    images_opened,
    open_entry,
    openings,
)
from studies.database.storage import StudyStorage, open_existing, open_storage
from studies.errors import UserError
from studies.evaluation.images import open_test_images, store
from studies.evaluation.result import evaluated
from studies.evaluation.setup import Finalists, Ready, find_finalists, forecast_of, get_ready
from studies.results.evaluation import forecast_sentence, overlap, refusal
from studies.signals import Interrupted, StopSignals
from studies.watchers import NOWHERE, Faces, Progress
from transfer.device import choose_device, make_deterministic


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Which bundle, and why again. ``storage`` is the bundle's where it is None.

    ``prevalence`` is the share of the second of two classes where the model will be used.
    """

    bundle: Path
    again: bool = False
    reason: str | None = None
    prevalence: float | None = None
    storage: str | None = None
    backbone_module: Path | None = None
    places: Places = field(default_factory=Places)


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What came out; ``result`` is JSON and what the ledger keeps."""

    bundle: Path
    opening: Opening
    openings: list[Opening]

    @property
    def result(self) -> dict[str, Any]:
        assert self.opening.result is not None
        return self.opening.result

    def as_json(self) -> dict[str, Any]:
        """`evaluate --json`."""
        return {
            "bundle": str(self.bundle),
            **self.opening.as_json(),
            "predicted": self.opening.predicted,
            **self.result,
        }


def evaluate_bundle(
    options: EvaluateOptions,
    progress: Progress,
    signals: StopSignals,
    faces: Faces = NOWHERE,
) -> Evaluated:
    """Open the test images of a bundle's study once and evaluate everything on them.

    Args:
        faces: how the study is shown, told once its test images were opened.

    Raises:
        UserError, ValueError: something is missing, is not the study's, or the test images were
            opened before and ``again`` with a ``reason`` was not asked for.
        Interrupted: a signal came; the same command goes on with the opening, if there is one.
    """
    _check(options)
    bundle = read_bundle(
        options.bundle, backbone_module=options.backbone_module, progress=progress
    )
    storage = _open(options, bundle)
    if options.prevalence is not None and len(bundle.classes) != 2:
        raise UserError(f"--prevalence is for two classes; this bundle has {len(bundle.classes)}.")
    found = find_finalists(storage, bundle.config)
    with _alone(storage, found):
        begun = _begun(storage, found, options)  # Refused before anything that takes time.
        _run_own(found, options, progress)
        make_deterministic(bundle.config.study.threads, choose_device(options.places.device))
        progress.message(
            f"Evaluating {options.bundle}: forecast from the validation images first."
        )
        with signals.interruptible():
            predicted = _predicted(storage, found)
        if begun is not None and begun.predicted not in (predicted, _without_id(predicted)):
            # Others have been confirmed since: it is not the evaluation that was begun.
            if not options.again:
                raise UserError(refusal(found.name, openings(storage, begun.test_fingerprint)))
            begun = None
        progress.message(forecast_sentence(found.metric, predicted))
        with signals.interruptible():
            ready = get_ready(storage, bundle, found, options.places, progress)
        opening = _recorded(storage, found, options, predicted, ready, begun)
        if begun is not None:
            progress.message(f"Going on with opening {begun.number}, which had no result.")
        try:
            with signals.interruptible():
                said = open_test_images(storage, bundle, found, ready, progress)
                result = evaluated(storage, bundle, found, said, progress, options.prevalence)
            result["artifacts"] = store(storage, found, ready, said)
            close_entry(storage, opening, result)
        except Interrupted:
            progress.message(
                "Stopped with the opening recorded; the same command goes on with it."
            )
            raise
        finally:  # Whoever shows the study says of test images that were opened that they were.
            faces.publisher(storage, found.name, progress.message).publish()
    every = openings(storage, found.bundle.data.test_fingerprint)
    _write_card(options.bundle, card_paragraphs(every, bundle.config), progress)
    return Evaluated(
        bundle=options.bundle, opening=next(o for o in every if o.id == opening), openings=every
    )


def _check(options: EvaluateOptions) -> None:
    if options.again != bool(options.reason and options.reason.strip()):
        raise UserError(
            '--again and --reason "..." belong together: a second look at test images is recorded '
            "with its reason."
        )
    if options.prevalence is not None and not 0 < options.prevalence < 1:
        raise UserError(f"--prevalence must lie between 0 and 1, but is {options.prevalence:g}.")


def _open(options: EvaluateOptions, bundle: Bundle) -> StudyStorage:
    """The database of the bundle's study; one that is not there is not created."""
    url = options.storage or bundle.config.study.storage
    try:
        open_existing(url)
        return open_storage(url)
    except UserError as error:
        if options.storage is not None:
            raise
        raise UserError(f"{error} Name the study's database with --storage.") from None


@contextmanager
def _alone(storage: StudyStorage, found: Finalists) -> Iterator[None]:
    """Of two processes on one host that evaluate on the same test images one is refused."""
    fingerprint = found.bundle.data.test_fingerprint
    try:
        with FileLock(storage.locks / f"evaluate-{fingerprint[:16]}.lock", blocking=False):
            yield
    except Timeout:
        raise UserError(
            f"Another process is evaluating on the test images of study '{found.name}'."
        ) from None


def _run_own(found: Finalists, options: EvaluateOptions, progress: Progress) -> None:
    """Run the file of backbones that finalists other than the bundle's come from."""
    stored = found.study.identity.get("backbone_module")
    if stored is None or found.bundle.backbone_module is not None:
        return
    check_stored(stored, options.backbone_module, found.name)
    assert options.backbone_module is not None
    run_module(options.backbone_module, progress.message)


def _predicted(storage: StudyStorage, found: Finalists) -> dict[str, Any]:
    """The forecast of the bundle's one model, with those of both strategies' means over seeds."""
    strategy = str(found.bundle.config.strategy)
    return {
        **forecast_of(storage, found, strategy, num_models=1).as_json(),
        "metric": found.metric,
        "search": found.study.search_id,
        "by_strategy": {
            name: forecast_of(storage, found, name).as_json() for name in found.candidates
        },
    }


def _without_id(predicted: Mapping[str, Any]) -> dict[str, Any]:
    """As a version wrote it whose studies had none."""
    return {key: value for key, value in predicted.items() if key != "search"}


def _begun(storage: StudyStorage, found: Finalists, options: EvaluateOptions) -> Opening | None:
    """The opening to go on with: the last one, of this bundle, and no result of any was seen.

    Raises:
        UserError: the test images were opened otherwise, and ``again`` was not asked for.
    """
    before = openings(storage, found.bundle.data.test_fingerprint)
    if not before:
        return None
    last = before[-1]
    is_mine = last.bundle == found.bundle.files[MODEL] and not last.is_finished
    if options.again:
        return last if is_mine and last.reason == options.reason else None
    if is_mine and not any(opening.is_finished for opening in before):
        return last
    raise UserError(refusal(found.name, before))


def _recorded(
    storage: StudyStorage,
    found: Finalists,
    options: EvaluateOptions,
    predicted: Mapping[str, Any],
    ready: Ready,
    begun: Opening | None,
) -> int:
    """The entry of this opening in the ledger: a new one, or the one that was begun.

    Raises:
        UserError: some of the images were opened before as another test set, and ``again`` was not
            asked for; or another process was quicker.
    """
    if begun is not None:
        return begun.id
    fingerprint = found.bundle.data.test_fingerprint
    digests = ready.data.kept["test"].digests
    others = images_opened(storage, digests, except_of=fingerprint)
    if others and not options.again:
        raise UserError(overlap(found.name, others, len(digests)))
    try:
        return open_entry(
            storage,
            test_fingerprint=fingerprint,
            study=found.name,
            bundle=found.bundle.files[MODEL],
            reason=options.reason,
            predicted=predicted,
            digests=digests,
            before=len(openings(storage, fingerprint)) if options.again else 0,
        )
    except OpenedMeanwhileError as error:
        raise UserError(str(error)) from None


def _write_card(folder: Path, test: list[str], progress: Progress) -> None:
    """Put the results into the bundle's card; what people wrote into it stays."""
    card = folder / CARD
    try:
        text = card.read_text(encoding="utf-8")
        card.write_text(with_test_section(text, test), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        progress.message(f"{shlex.quote(str(card))} could not be updated ({error}).")
