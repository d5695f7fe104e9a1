"""Predict: probabilities of a bundle's classes for image files.

What is not an image is refused before anything is told. Knows files and a bundle; no study.

Legend: N images, B images at a time, C classes.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.bundle.bundle import Bundle
from studies.bundle.config import Preprocessing
from studies.errors import UserError
from studies.statistics.metrics import Floats
from studies.watchers import Progress
from transfer.cache import written_whole
from transfer.data.decoding import (
    SUFFIXES,
    Pixels,
    UnreadableImageError,
    decode_image,
    resize,
    to_eight_bits,
)
from transfer.messages import printable

CHUNKS_AT_A_TIME = 4


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one image: the class it is called, and the probability of every one."""

    path: Path
    label: str
    probabilities: dict[str, float]


def image_paths(given: Sequence[Path]) -> list[Path]:
    """The files that are meant: files as they are, of folders all that are named as images.

    Folders are searched with those in them, hidden ones left out.

    Raises:
        UserError: a path is not there, or a folder holds no image.
    """
    if not given:
        raise UserError("No image is given; name files or a folder.")
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            below = _below(path)
            if not below:
                kinds = ", ".join(sorted(SUFFIXES))
                raise UserError(f"No image in {path}: none of its files ends in {kinds}.")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"No file or folder {path}.")
    return list(dict.fromkeys(found))


def _below(folder: Path) -> list[Path]:
    def is_image(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") for part in parts)
        return not is_hidden and path.suffix.lower() in SUFFIXES and path.is_file()

    return sorted(filter(is_image, folder.rglob("*")))


def predict(
    bundle: Bundle, paths: Sequence[Path], device: torch.device, progress: Progress
) -> list[Prediction]:
    """The predictions for these files, in their order; of each the same whatever the others are.

    Raises:
        UserError: some are no images that the model can take; all of them are named.
    """
    classifier = bundle.classifier(device)
    refused: dict[Path, str] = {}
    found: list[Floats] = []
    size = CHUNKS_AT_A_TIME * classifier.chunk_size
    for first in range(0, len(paths), size):
        images = []
        for path, image in _read(paths[first : first + size], bundle.config.preprocessing):
            if isinstance(image, str):
                refused[path] = image
            else:
                images.append(image)
        if images and not refused:
            logits_BC = classifier.logits(np.stack(images))
            found.append(bundle.probabilities(logits_BC))
        progress.work("predicting", min(first + size, len(paths)), len(paths))
    if refused:
        raise _refusal(refused, len(paths))
    probabilities_NC = np.concatenate(found)
    if not np.isfinite(probabilities_NC).all():
        raise UserError(f"The model of {bundle.folder} gives probabilities that are not finite.")
    labels_N = bundle.called(probabilities_NC)
    return [
        Prediction(
            path=path,
            label=bundle.classes[label],
            probabilities=dict(zip(bundle.classes, map(float, row), strict=True)),
        )
        for path, label, row in zip(paths, labels_N, probabilities_NC, strict=True)
    ]


def _read(paths: Sequence[Path], how: Preprocessing) -> Iterator[tuple[Path, Pixels | str]]:
    """Every image as the network takes it, (H, W, 3), or why there is none."""
    for path in paths:
        try:
            # A device or a pipe would be read for ever.
            if not path.is_file():
                yield path, "not a file"
                continue
            yield path, _prepared(path.read_bytes(), how)
        except UnreadableImageError as error:
            yield path, str(error)
        except OSError as error:
            yield path, error.strerror or str(error)


def _prepared(content: bytes, how: Preprocessing) -> Pixels:
    pixels = decode_image(content).pixels
    if how.window is None and pixels.dtype != np.uint8:
        raise UnreadableImageError("16 bits, but the model was trained on images of 8 bits")
    image = to_eight_bits(pixels, how.window)
    image = resize(image, how.image_size, how.resize, how.interpolation)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _refusal(refused: dict[Path, str], num_images: int) -> UserError:
    told = "; ".join(f"{printable(str(path))} ({why})" for path, why in refused.items())
    return UserError(
        f"{len(refused)} of {num_images} can't be used: {told}. Nothing is predicted; leave them "
        "out or replace them."
    )


def predictions_json(bundle: Bundle, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """`predict --json`."""
    return {
        "bundle": str(bundle.folder),
        "classes": list(bundle.classes),
        "threshold": bundle.config.threshold,
        "predictions": [
            {"path": str(p.path), "label": p.label, "probabilities": p.probabilities}
            for p in predictions
        ],
    }


def write_csv(path: Path, bundle: Bundle, predictions: Sequence[Prediction]) -> None:
    """Write a row an image: path, label, and ``probability_CLASS`` of every class.

    Raises:
        UserError: the file can't be written.
    """
    header = ["path", "label", *(f"probability_{name}" for name in bundle.classes)]
    try:
        with (
            written_whole(path) as temporary,
            # A name that is no text in UTF-8 keeps its bytes.
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            rows = csv.writer(file)
            rows.writerow(header)
            for p in predictions:
                rows.writerow([str(p.path), p.label, *map(repr, p.probabilities.values())])
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror or error}).") from None


def print_predictions(console: Console, bundle: Bundle, predictions: Sequence[Prediction]) -> None:
    """Print a row an image, and below how the class is called."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    for name in bundle.classes:
        table.add_column(Text(name), justify="right", overflow="fold")
    for p in predictions:
        cells = [f"{value:.4f}" for value in p.probabilities.values()]
        table.add_row(Text(_shown(p.path)), Text(p.label), *cells)
    console.print(table)
    console.print(Text(_how(bundle)))


def _shown(path: Path) -> str:
    """A path as text that can be printed, whatever bytes are in it."""
    return printable(os.fsencode(path).decode("utf-8", "replace"))


def _how(bundle: Bundle) -> str:
    threshold = bundle.config.threshold
    if threshold is None:
        called = "the most probable class is called"
    else:
        called = f"{bundle.classes[1]} is called from {threshold:.4g} on"
    return f"Calibrated probabilities; {called}. For research, not for diagnosis."
