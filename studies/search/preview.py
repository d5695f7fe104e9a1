"""What `run` would do with data and backbones, looked at before. Trains and stores nothing."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search_spaces import SearchSpace
from studies.backbone_module import run_module
from studies.data_card import check_preview, describe, save_preview
from studies.data_check import ALLOWANCES, Checked, load_checked
from studies.search.setup import asked_allowances, choose_space, find_source, settings_for
from studies.settings import DEFAULTS, StudyOptions, StudySettings, read_options
from studies.watchers import Progress
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.custom import installed_names
from transfer.backbones.find import find_spec
from transfer.cache import cache_folder
from transfer.data.loading import ImageData
from transfer.data.sources.open import Source
from transfer.device import choose_device
from transfer.training.throughput import OnProgress, measure_throughput
from transfer.weights.find import weights_at_hand, weights_hint

MADE = {
    "val": "about 20 % of the training images are set aside for validation, stratified",
    "test": "about 20 % become the test set, stratified; the same in every study of these images",
}


def look_at_data(
    options: StudyOptions, preview: Path | None, progress: Progress
) -> dict[str, Any]:
    """The card of the data asked for, with ``run`` for what a study of them would be.

    Args:
        preview: where to save a picture of training images, if anywhere.

    Raises:
        ValueError: the source is wrong, or the preview can't be written.
    """
    if preview is not None:
        check_preview(preview)
    source = find_source(options, None)
    own = (
        run_module(options.backbone_module, progress.message) if options.backbone_module else None
    )
    space, _ = choose_space(options, source, stored=None, own=own)
    settings = settings_for(options, source, space, stored=None)
    checked = _checked(options, source, settings, progress)
    if any(error.kind == "unreadable" for error in checked.errors):
        checked.refuse()
    if preview is not None:
        save_preview(checked.data, preview)
    return {
        **describe(source, checked.data, checked.findings),
        "run": {
            **outlook(options, settings, space, checked.data),
            "refused": [f"{error.text}: {error.remedy}" for error in checked.errors],
        },
    }


def check_data(options: StudyOptions, progress: Progress) -> Checked:
    """The data asked for with all that was found in them.

    Raises:
        ValueError: the source is wrong.
    """
    source = find_source(options, None)
    space, _ = choose_space(StudyOptions(), source, stored=None, own=None)
    settings = settings_for(options, source, space, stored=None)
    return _checked(options, source, settings, progress)


def _checked(
    options: StudyOptions, source: Source, settings: StudySettings, progress: Progress
) -> Checked:
    return load_checked(
        source,
        asked_allowances(options),
        image_size=settings.image_size,
        resize=settings.resize,
        seed=settings.seed,
        cache_dir=cache_folder(options.cache_dir),
        on_progress=progress.work,
    )


def outlook(
    options: StudyOptions, settings: StudySettings, space: SearchSpace, data: ImageData
) -> dict[str, Any]:
    """What a study of these data would be: settings, space, backbones and their weights."""
    rows = backbone_rows(space.backbones, weights_dir=options.weights_dir)
    return {
        "study": settings.name,
        "command": _command(options),
        "space": space.name,
        "strategies": list(space.strategies),
        "backbones": {row["name"]: row["weights"] for row in rows if row["at_hand"]},
        "without_weights": {row["name"]: row["weights"] for row in rows if not row["at_hand"]},
        "trials": settings.trials,
        "epochs": settings.epochs,
        "image_size": settings.image_size,
        "resize": settings.resize,
        "splits": [MADE[name] for name in data.made_splits],
    }


def _command(options: StudyOptions) -> str:
    shown = {
        "data",
        "group_pattern",
        *ALLOWANCES,
        "image_size",
        "resize",
        "backbone_module",
        "weights_dir",
        "cache_dir",
    }
    given = options.model_dump(include=shown, exclude_none=True)
    flags = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for key, value in given.items()
    ]
    return f"python -m studies run {' '.join(flags)}".rstrip()


def look_at_backbones(
    names: Sequence[str],
    *,
    module: Path | None,
    weights_dir: Path | None,
    measure: bool,
    image_size: int | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return the rows of `backbone_rows`, those of the file `module` with them.

    The file's code is run, and `progress` says so. Raises ValueError as `backbone_rows` does, and
    for an image size that no study takes.
    """
    given = {} if image_size is None else {"image_size": image_size}
    size = read_options(given).image_size or DEFAULTS["image_size"]
    own = () if module is None else run_module(module, progress.message).names
    return backbone_rows(
        names or (*BACKBONES, *own, *installed_names()),
        weights_dir=weights_dir,
        measure=measure,
        image_size=size,
        on_progress=progress.work,
    )


def backbone_rows(
    names: Iterable[str] = (),
    *,
    weights_dir: Path | None = None,
    measure: bool = False,
    image_size: int = 224,
    device: str = "auto",
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[dict[str, Any]]:
    """Return one row for each backbone, for the whole table if no names are given.

    Keys: `name`, `layers`, `parameters`, `gmacs` (10^9 at 224 x 224, or at the only size it
    takes), `imagenet_accuracy` (percent or None), `weights` (where they are or how to get them),
    `at_hand`; with `measure` also `images_per_second_frozen` and `images_per_second_training` at
    `image_size` pixels. Raises ValueError, one line, for an unknown backbone.
    """
    rows = [_described(name, weights_dir) for name in names or BACKBONES]
    if measure:
        chosen = choose_device(device)
        for row in rows:
            measured = measure_throughput(
                row["name"], image_size=image_size, device=chosen, on_progress=on_progress
            )
            row |= vars(measured)
    return rows


def _described(name: str, weights_dir: Path | None) -> dict[str, Any]:
    spec = find_spec(name)
    return {
        "name": name,
        "layers": spec.depth,
        "parameters": spec.num_parameters,
        "gmacs": spec.gmacs,
        "imagenet_accuracy": spec.imagenet_accuracy,
        "weights": weights_hint(name, weights_dir),
        "at_hand": weights_at_hand(name, weights_dir),
    }
