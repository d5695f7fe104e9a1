"""From options to all a study needs: settings, space, weights, data, and the check on resuming.

Knows what identifies a study and refuses to go on with another one. Runs no trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search_spaces import SearchSpace, load_space
from search_spaces.checks import check
from studies.errors import UserError
from studies.handout import opening
from studies.progress import Progress
from studies.records import StudyRecord
from studies.settings import DEFAULTS, FIXED, StudyOptions, StudySettings, decide
from transfer.cache import cache_folder
from transfer.catalog import depths
from transfer.data.loading import ImageData, load_data
from transfer.data.sources import Source, open_source
from transfer.device import choose_device, make_deterministic, num_threads
from transfer.weights import WeightFile, WeightsNotFoundError, find_weights


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A study that can run. ``identity`` is what is stored with it and never changes."""

    settings: StudySettings
    space: SearchSpace
    weights: Mapping[str, WeightFile]
    data: ImageData
    device: torch.device
    cache_dir: Path
    identity: Mapping[str, Any]


def study_name(options: StudyOptions, source: Source) -> str:
    return options.name or source.name


def prepare(
    options: StudyOptions, source: Source, stored: StudyRecord | None, progress: Progress
) -> Prepared:
    """Check and load everything before the first trial.

    Raises:
        UserError, ValueError: something asked for is wrong, out of reach, or different from what
            the stored study was created with.
    """
    device = choose_device(options.device or DEFAULTS["device"])
    cache_dir = cache_folder(options.cache_dir)
    space, by_name = _space(options, source, stored)
    settings = decide(
        options,
        name=study_name(options, source),
        stored=_stored_settings(stored),
        suggested={"image_size": source.natural_size, **space.suggested},
    )
    if stored is not None:
        _refuse_differences(_asked(options), stored.settings, settings.name)
    weights, left_out = _weights(options, settings, space, by_name)
    if left_out:
        space = space.narrowed(backbones=tuple(weights))
        for message in left_out.values():
            progress.message(f"Left out: {message}")
    make_deterministic(stored.identity["threads"] if stored else num_threads())
    data = load_data(
        source,
        image_size=settings.image_size,
        seed=settings.seed,
        cache_dir=cache_dir,
        on_progress=progress.work,
    )
    identity = {
        "settings": {key: getattr(settings, key) for key in FIXED},
        "space": space.model_dump(mode="json"),
        "data": {
            "source": source.text,
            "classes": list(data.classes),
            "counts": data.counts,
            "fingerprint": data.fingerprint,
            "test_fingerprint": data.test_fingerprint,
        },
        "weights": {name: file.sha256 for name, file in weights.items()},
        "left_out": left_out,
        "threads": torch.get_num_threads(),
        "opening": stored.opening if stored else opening(space, settings.trials),
    }
    if stored is not None:
        _refuse_changes(identity, stored, settings.name)
    return Prepared(
        settings=settings,
        space=space,
        weights=weights,
        data=data,
        device=device,
        cache_dir=cache_dir,
        identity=stored.identity if stored else identity,
    )


def find_source(options: StudyOptions, stored: StudyRecord | None) -> Source:
    """The data asked for, else those of the stored study, else the phantom."""
    given = options.data
    return open_source(given or (stored.identity["data"]["source"] if stored else "phantom"))


def _space(
    options: StudyOptions, source: Source, stored: StudyRecord | None
) -> tuple[SearchSpace, bool]:
    """The space, and whether its backbones were asked for by name."""
    asked = options.space or options.backbones or options.strategies
    if stored is not None and not asked:
        return SearchSpace(**stored.identity["space"]), True
    default = "demo" if source.name == "phantom" and not options.backbones else "default"
    space = load_space(options.space or default, depths())
    space = space.narrowed(backbones=options.backbones, strategies=options.strategies)
    check(space)
    by_name = bool(options.space or options.backbones) or default == "demo"
    return space, by_name


def _weights(
    options: StudyOptions, settings: StudySettings, space: SearchSpace, by_name: bool
) -> tuple[dict[str, WeightFile], dict[str, str]]:
    """The weights of each backbone, and why a backbone has none.

    Raises:
        WeightsNotFoundError: a backbone that was asked for by name has none, or no backbone has.
    """
    found: dict[str, WeightFile] = {}
    left_out: dict[str, str] = {}
    for backbone in space.backbones:
        try:
            found[backbone] = find_weights(
                backbone,
                weights=settings.weights,
                weights_dir=options.weights_dir,
                seed=settings.seed,
            )
        except WeightsNotFoundError as error:
            if by_name:
                raise
            left_out[backbone] = str(error)
    if not found:
        raise WeightsNotFoundError(next(iter(left_out.values())))
    return found, left_out


def _stored_settings(stored: StudyRecord | None) -> dict[str, Any]:
    if stored is None:
        return {}
    return {**stored.settings, "trials": stored.trials, "timeout": stored.timeout_seconds}


def _asked(options: StudyOptions) -> dict[str, Any]:
    asked = {key: getattr(options, key) for key in FIXED}
    return {key: value for key, value in asked.items() if value is not None}


def _refuse_differences(asked: Mapping[str, Any], stored: Mapping[str, Any], name: str) -> None:
    different = [
        f"{key} (stored {stored[key]}, asked for {value})"
        for key, value in asked.items()
        if value != stored[key]
    ]
    if different:
        raise UserError(_refusal(name, different))


def _refuse_changes(identity: Mapping[str, Any], stored: StudyRecord, name: str) -> None:
    old, different = stored.identity, []
    if identity["data"]["fingerprint"] != old["data"]["fingerprint"]:
        different.append("data (other training images or labels)")
    if identity["data"]["test_fingerprint"] != old["data"]["test_fingerprint"]:
        different.append("data (other test images or labels)")
    different += [
        f"space ({part})" for part in _space_differences(identity["space"], old["space"])
    ]
    for backbone, sha256 in identity["weights"].items():
        if old["weights"].get(backbone, sha256) != sha256:
            different.append(f"weights of {backbone} (another file)")
    if different:
        raise UserError(_refusal(name, different))


def _space_differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    def by_key(space: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{p['name']} {p['strategy'] or ''}".strip(): p for p in space["parameters"]}

    ours, theirs = by_key(new), by_key(old)
    return [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]


def _refusal(name: str, different: list[str]) -> str:
    return (
        f"Study '{name}' was created with other settings: {'; '.join(different)}. "
        "Leave them out to go on with it, or choose another --name."
    )
