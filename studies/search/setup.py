"""From options to all a study needs: settings, space, weights, data, and the check on resuming.

Knows what identifies a study, and refuses to go on with another one, naming what differs. Runs no
trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from search_spaces import SearchSpace
from studies.backbone_module import OwnBackbones, check_stored, run_module
from studies.data_check import ALLOWANCES, Checked, finding_lines, flag, load_checked
from studies.database.study import StudyRecord
from studies.errors import UserError
from studies.search.places import find_last_weights, open_last_source
from studies.search.suggest import opening
from studies.settings import DEFAULTS, FIXED, StudyOptions, StudySettings, decide
from studies.spaces import chosen_space
from studies.watchers import Progress
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import (
    check_image_size,
    find_backbone,
    has_batch_norm,
    interpolations_of,
)
from transfer.cache import cache_folder, default_limit
from transfer.config import Strategy
from transfer.data.loading import ImageData
from transfer.data.sources.open import Source, open_source
from transfer.device import choose_device, make_deterministic, num_threads
from transfer.messages import printable
from transfer.training.precision import choose_precision, describe_precision
from transfer.weights.find import WeightFile, WeightsNotFoundError


def chosen_precision(
    settings: StudySettings,
    space: SearchSpace,
    device: torch.device,
    cache_dir: Path,
    stored: StudyRecord | None,
    progress: Progress,
) -> dict[str, str]:
    """The precision of each backbone: as stored, whatever this machine would choose, or anew.

    Raises:
        ValueError: this device can't train in the precision that was asked for.
    """
    precision: dict[str, str] = {}
    if stored is not None:
        precision = stored.identity["precision"]
    elif Strategy.FINE_TUNING in space.strategies:
        for backbone in space.backbones:
            precision[backbone] = choose_precision(
                settings.precision,
                backbone,
                device,
                image_size=settings.image_size,
                cache_dir=cache_dir,
                on_progress=progress.work,
            )
    said = describe_precision(precision)
    if said is not None:
        way_out = "" if stored else " (--precision fp32 turns it off)"
        progress.message(f"{said}{way_out}.")
    return precision


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A study that can run. ``identity`` is what is stored with it and never changes.

    ``places`` says where data and weights are now, for whoever goes on with it without flags.
    ``cache_limit`` is how many bytes of activations may be kept; ``decoding_seconds`` went into
    finding, decoding and checking the images; ``checked`` has them with what was found.
    """

    settings: StudySettings
    space: SearchSpace
    weights: Mapping[str, WeightFile]
    data: ImageData
    device: torch.device
    cache_dir: Path
    cache_limit: int
    decoding_seconds: float
    checked: Checked
    identity: Mapping[str, Any]
    places: Mapping[str, Any]


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
    before = stored.identity.get("backbone_module") if stored else None
    check_stored(before, options.backbone_module, study_name(options, source))
    own = (
        run_module(options.backbone_module, progress.message) if options.backbone_module else None
    )
    space, by_name = choose_space(options, source, stored, own)
    settings = settings_for(options, source, space, stored)
    if stored is not None:
        refuse_other_settings(options, stored, settings.name)
    if options.num_views and _searches_views(space):
        raise UserError(
            f"Space '{space.name}' searches num_views: leave --views out, "
            f"or fix it with --set num_views={options.num_views}."
        )
    weights, left_out = _weights(options, settings, space, by_name, stored)
    if left_out:
        space = space.narrowed(backbones=tuple(weights))
        for message in left_out.values():
            progress.message(f"Left out: {message}")
    for backbone in space.backbones:
        check_image_size(backbone, settings.image_size)
    if stored is None:
        _check_batch_sizes(space)
    make_deterministic(stored.identity["threads"] if stored else num_threads(), device)
    started = perf_counter()
    checked = load_checked(
        source,
        allowances(options, stored, settings.name),
        image_size=settings.image_size,
        seed=settings.seed,
        cache_dir=cache_dir,
        resize=settings.resize,
        interpolations=interpolations_of(space.backbones),
        with_views=settings.num_views > 1 or _searches_views(space),
        on_progress=progress.work,
    )
    data = checked.data
    if stored is None:
        # Of a study that goes on it is first asked whether its data are still the same.
        _tell(checked, progress)
        checked.refuse()
    decoding_seconds = perf_counter() - started
    identity = {
        "settings": {key: getattr(settings, key) for key in FIXED},
        "space": space.model_dump(mode="json"),
        "data": {
            "source": source.text,
            "group_pattern": _group_pattern(options, stored),
            "window": None if data.window is None else list(data.window),
            "classes": list(data.classes),
            "counts": data.counts,
            "subjects": data.subjects,
            "fingerprint": data.fingerprint,
            "test_fingerprint": data.test_fingerprint,
            "check": checked.record(),
        },
        "weights": {name: file.sha256 for name, file in weights.items()},
        "backbones": {name: _what_computes(name) for name in space.backbones},
        "backbone_module": None if own is None else own.as_json(),
        "left_out": left_out,
        "threads": torch.get_num_threads(),
        "precision": chosen_precision(settings, space, device, cache_dir, stored, progress),
        "opening": stored.opening if stored else opening(space),
    }
    if stored is not None:
        refuse_other_data(identity, stored, settings.name)
        checked.refuse()
    limit = options.cache_limit
    return Prepared(
        settings=settings,
        space=space,
        weights=weights,
        data=data,
        device=device,
        cache_dir=cache_dir,
        cache_limit=default_limit(cache_dir) if limit is None else limit,
        decoding_seconds=decoding_seconds,
        checked=checked,
        identity=stored.identity if stored else identity,
        places={
            "data": source.text,
            "weights": {
                name: str(file.path.resolve())
                for name, file in weights.items()
                if file.path is not None
            },
        },
    )


def _searches_views(space: SearchSpace) -> bool:
    return any(parameter.name == "num_views" for parameter in space.parameters)


def settings_for(
    options: StudyOptions, source: Source, space: SearchSpace, stored: StudyRecord | None
) -> StudySettings:
    """The settings of a study of ``source``, with what the space and the data suggest."""
    return decide(
        options,
        name=study_name(options, source),
        stored=_stored_settings(stored),
        suggested={"image_size": source.natural_size, **space.suggested},
    )


def find_source(options: StudyOptions, stored: StudyRecord | None) -> Source:
    """The data asked for, else those of the stored study, else the phantom."""
    group_pattern = _group_pattern(options, stored)
    if options.data is not None:
        return open_source(options.data, group_pattern=group_pattern)
    if stored is not None:
        return open_last_source(stored.data_place, group_pattern)
    return open_source("phantom", group_pattern=group_pattern)


def _group_pattern(options: StudyOptions, stored: StudyRecord | None) -> str | None:
    if options.group_pattern is not None or stored is None:
        return options.group_pattern
    pattern: str | None = stored.identity["data"].get("group_pattern")
    return pattern


def _tell(checked: Checked, progress: Progress) -> None:
    """Say what was found, once: when the study is created or its data are refused."""
    for line in finding_lines(checked):
        progress.message(line)


def choose_space(
    options: StudyOptions,
    source: Source,
    stored: StudyRecord | None,
    own: OwnBackbones | None,
) -> tuple[SearchSpace, bool]:
    """The space, and whether its backbones were asked for by name."""
    asked = options.space or options.backbones or options.strategies or options.set
    if stored is not None and not asked:
        return SearchSpace(**stored.identity["space"]), True
    default = "demo" if source.kind == "phantom" and not options.backbones else "default"
    space = chosen_space(options, default=default, own=() if own is None else own.names)
    by_name = bool(options.space or options.backbones) or default == "demo"
    return space, by_name


def _check_batch_sizes(space: SearchSpace) -> None:
    """Raise UserError where BatchNorm would train on one image, which has no batch statistics."""
    for backbone in space.backbones if "fine_tuning" in space.strategies else ():
        values = {p.name: p.values() or () for p in space.below(backbone, "fine_tuning")}
        if 1 not in values["batch_size"] or "train" not in values.get("batch_norm", ("train",)):
            continue
        if has_batch_norm(backbone, max(map(int, values["num_unfrozen_layers"]))):
            raise UserError(
                "`batch_size >= 2` must hold where BatchNorm trains, as it does in fine-tuning of "
                f"{backbone}, but the space has batch_size=1: give larger ones with "
                "--set batch_size@fine_tuning=.., or --set batch_norm=frozen."
            )


def _weights(
    options: StudyOptions,
    settings: StudySettings,
    space: SearchSpace,
    by_name: bool,
    stored: StudyRecord | None,
) -> tuple[dict[str, WeightFile], dict[str, str]]:
    """The weights of each backbone, and why a backbone has none.

    Raises:
        WeightsNotFoundError: a backbone that was asked for by name has none, or no backbone has.
        UserError: those of a stored study are gone.
    """
    found: dict[str, WeightFile] = {}
    left_out: dict[str, str] = {}
    for backbone in space.backbones:
        try:
            found[backbone] = find_last_weights(
                backbone,
                weights=settings.weights,
                seed=settings.seed,
                sha256=stored.identity["weights"].get(backbone) if stored else None,
                last=stored.weight_places.get(backbone) if stored else None,
                weights_dir=options.weights_dir,
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


def _what_computes(backbone: str) -> dict[str, Any]:
    """What must stay as it is beside the weights, for the same numbers to come out.

    The table's networks are this project's own to keep; other code has a version.
    """
    found = find_backbone(backbone)
    spec = found.spec
    return {
        "code": None if backbone in BACKBONES else found.code,
        "depth": spec.depth,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
    }


def refuse_other_settings(options: StudyOptions, stored: StudyRecord, name: str) -> None:
    """Refuse settings that are asked for and are not those that the study was created with.

    Raises:
        UserError: some differ.
    """
    asked, before = _asked(options), stored.settings
    different = [
        f"{key} (stored {before.get(key, DEFAULTS[key])}, asked for {value})"
        for key, value in asked.items()
        if value != before.get(key, DEFAULTS[key])
    ]
    if different:
        raise UserError(_refusal(name, different))


def _asked(options: StudyOptions) -> dict[str, Any]:
    asked = {key: getattr(options, key) for key in FIXED}
    return {key: value for key, value in asked.items() if value is not None}


def refuse_other_data(identity: Mapping[str, Any], stored: StudyRecord, name: str) -> None:
    """Refuse other data, space, weights or code than the study was created with.

    Raises:
        UserError: some differ.
    """
    old, different = stored.identity, []
    if identity["data"]["fingerprint"] != old["data"]["fingerprint"]:
        different.append(f"data (other training images, labels or groups{_files(identity, old)})")
    if identity["data"]["test_fingerprint"] != old["data"]["test_fingerprint"]:
        different.append(f"data (other test images or labels{_files(identity, old)})")
    if identity["data"]["classes"] != old["data"]["classes"]:
        different.append("data (other classes, or in another order)")
    different += [
        f"space ({part})" for part in _space_differences(identity["space"], old["space"])
    ]
    for backbone, sha256 in identity["weights"].items():
        if old["weights"].get(backbone, sha256) != sha256:
            last = stored.weight_places.get(backbone)
            where = "" if last is None else f", theirs was last at {last}; see --weights-dir"
            different.append(f"weights of {backbone} (another file{where})")
    before = old.get("backbones", {})
    for backbone, computed_by in identity["backbones"].items():
        changed = [
            f"{key} {before[backbone][key]}, now {value}"
            for key, value in computed_by.items()
            if backbone in before and before[backbone][key] != value
        ]
        if changed:
            different.append(f"code of {backbone} ({', '.join(changed)})")
    if different:
        raise UserError(_refusal(name, different))


def asked_allowances(options: StudyOptions) -> dict[str, bool]:
    """Which errors of the data check were allowed by flags."""
    return {name: bool(getattr(options, name)) for name in ALLOWANCES}


def allowances(options: StudyOptions, stored: StudyRecord | None, name: str) -> dict[str, bool]:
    """What was allowed when the study was created, or is now.

    Raises:
        UserError: something else was allowed then.
    """
    asked = asked_allowances(options)
    if stored is None:
        return asked
    before: dict[str, bool] = stored.data_check["flags"]
    new = [flag(key) for key in ALLOWANCES if asked[key] and not before[key]]
    if new:
        raise UserError(_refusal(name, [f"without {', '.join(new)}"]))
    return before


def _files(identity: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Files that could be read when the study was created and can't be now, or the reverse."""

    def unreadable(data: Mapping[str, Any]) -> set[str]:
        found: Mapping[str, list[str]] = (data.get("check") or {}).get("unreadable", {})
        return {name for names in found.values() for name in names}

    now, before = unreadable(identity["data"]), unreadable(old["data"])
    told = [
        f"; {len(names)} {what}: {printable(min(names))}"
        for names, what in (
            (now - before, "can't be read any more"),
            (before - now, "could not be read then"),
        )
        if names
    ]
    return "".join(told)


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
