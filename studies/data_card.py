"""What `data` shows of a source: its card as JSON, and a picture of its pictures.

Knows a source and its loaded data; of the test split counts and findings alone. Trains nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from PIL import Image, ImageDraw, ImageFont

from studies.data_check import Checked
from studies.database.artifacts import upload
from studies.database.storage import StudyStorage
from studies.database.study import write_data_card
from studies.statistics.intervals import wilson_interval
from transfer.cache import written_whole
from transfer.data.check.findings import Finding
from transfer.data.decoding import resize
from transfer.data.loading import ImageData
from transfer.data.sources.open import Source

EXPECTED_ACCURACY = 0.9
SPLITS = ("train", "val", "test")
SAMPLES, FINDINGS = "samples.png", "findings.json"

TILES_PER_CLASS = 8
TILE, GAP, NAME_WIDTH = 128, 4, 160  # pixels


def describe(source: Source, data: ImageData, findings: Sequence[Finding] = ()) -> dict[str, Any]:
    """The card as JSON: what the data are, and how sure a study of them can be.

    ``interval_width`` is the width of the 95 % Wilson interval at 90 % accuracy, of as many images
    as there are subjects, where they are known; ``findings`` are those of the data check in short.
    """
    num_images = {split: sum(data.counts[split].values()) for split in SPLITS}
    groups = {"num_groups": data.num_groups, "num_matched": source.num_matched}
    return {
        "source": source.text,
        "kind": source.kind,
        "classes": list(data.classes),
        "counts": data.counts,
        "made_splits": list(data.made_splits),
        "sizes": data.shapes,
        "modes": data.modes,
        "window": list(data.window) if data.window else None,
        "groups": groups if data.num_groups is not None else None,
        "ignored_columns": list(source.ignored_columns),
        "pixels_fingerprint": data.pixels_fingerprint,
        "fingerprint": data.fingerprint,
        "test_fingerprint": data.test_fingerprint,
        "interval_width": {
            split: _width((data.subjects or num_images)[split]) for split in ("val", "test")
        },
        "findings": [{"level": f.level, "kind": f.kind, "text": f.text} for f in findings],
    }


def _width(num_images: int) -> float:
    low, high = wilson_interval(round(EXPECTED_ACCURACY * num_images), num_images)
    return high - low


def store_card(storage: StudyStorage, study: optuna.Study, checked: Checked) -> None:
    """Store the card with a study; sample images and all findings go beside it as artifacts."""
    sheet, found = _contact_sheet(checked.data), json.dumps(checked.as_json())
    artifacts = {
        SAMPLES: upload(storage, study, SAMPLES, lambda path: sheet.save(path, "PNG")),
        FINDINGS: upload(storage, study, FINDINGS, lambda path: path.write_text(found, "utf-8")),
    }
    card = describe(checked.source, checked.data, checked.findings)
    write_data_card(study, {**card, "check": checked.record()}, artifacts)


def check_preview(path: Path) -> None:
    """Refuse what is no name of a PNG file, before anything that takes time.

    Raises:
        ValueError: another suffix than .png.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"The preview is a PNG file, but got '{path}'; let its name end in .png.")


def save_preview(data: ImageData, path: Path) -> None:
    """Save a contact sheet of training images as PNG: a row for each class, its name beside it.

    Raises:
        ValueError: another suffix than .png, or a folder that can't be written.
    """
    check_preview(path)
    try:
        with written_whole(path) as temporary:
            _contact_sheet(data).save(temporary, "PNG")
    except OSError as error:
        raise ValueError(
            f"The preview can't be written to {path} ({error.strerror or error}); name another."
        ) from None


def _contact_sheet(data: ImageData) -> Image.Image:
    rows = [_examples(data, label) for label in range(len(data.classes))]
    most = max(len(row) for row in rows)
    size = (NAME_WIDTH + most * (TILE + GAP), len(rows) * (TILE + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for number, (name, row) in enumerate(zip(data.classes, rows, strict=True)):
        top = GAP + number * (TILE + GAP)
        _write_name(ImageDraw.Draw(sheet), name, top)
        for place, tile in enumerate(row):
            sheet.paste(tile, (NAME_WIDTH + place * (TILE + GAP), top))
    return sheet


def _examples(data: ImageData, label: int) -> Sequence[Image.Image]:
    """Tiles of training images of a class, evenly spread over the data's order."""
    positions = data.train.positions_N[data.train.labels_N == label]
    spread = np.linspace(0, len(positions) - 1, min(TILES_PER_CLASS, len(positions)))
    images_BHWC = data.images(positions[np.rint(spread).astype(np.int64)])
    return [
        Image.fromarray(resize(image.squeeze(-1) if image.shape[-1] == 1 else image, TILE))
        for image in images_BHWC
    ]


def _write_name(draw: ImageDraw.ImageDraw, name: str, top: int) -> None:
    font = ImageFont.load_default()
    # The default font may know Latin letters only.
    text = name.encode("latin-1", "replace").decode("latin-1")
    cuts = [text, *(text[:length] + "..." for length in range(len(text) - 1, 0, -1))]
    fitting = next(cut for cut in cuts if draw.textlength(cut, font) <= NAME_WIDTH - 3 * GAP)
    draw.text((2 * GAP, top + TILE // 2 - 6), fitting, fill="black", font=font)
