"""`data`: a source as it is found, and what `run` would do with it. Trains and stores nothing."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from search_spaces import SearchSpace
from studies.data_card import check_preview, describe, save_preview
from studies.data_check import ALLOWANCES, Checked, load_checked
from studies.search.places import run_module
from studies.search.resume import asked_allowances
from studies.search.setup import choose_space, find_source, settings_for
from studies.settings import StudyOptions, StudySettings
from studies.terminal.backbones import backbone_rows
from studies.watchers import Progress
from transfer.cache import cache_folder
from transfer.data.decoding import RESIZED
from transfer.data.loading import ImageData
from transfer.data.sources.open import Source

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
    own = run_module(options.backbone_module, progress) if options.backbone_module else None
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


def print_outlook(console: Console, shown: Mapping[str, Any]) -> None:
    """Print what ``outlook`` returned, in sentences."""
    lines = [
        f"{shown['command']} will make study '{shown['study']}':",
        *(f"no, it will be refused: {error}" for error in shown["refused"]),
        *shown["splits"],
        f"{shown['trials']} trials of at most {shown['epochs']} epochs at {shown['image_size']} x "
        f"{shown['image_size']} px, space '{shown['space']}' ({', '.join(shown['strategies'])})",
        f"images are {RESIZED[shown['resize']]}",
        f"backbones: {_backbones(shown['backbones'])}",
    ]
    if shown["without_weights"]:
        lines.append(f"tried for a download, else left out: {', '.join(shown['without_weights'])}")
    lines.append("the test images stay sealed")
    console.print("")
    head, *others = lines
    console.print(head, markup=False, soft_wrap=True)  # A command: to be copied whole.
    for line in others:
        console.print(Padding(Text(f"- {line}"), (0, 0, 0, 2)))


def _backbones(weights: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({hint})" for name, hint in weights.items()) or "none at hand"
