"""The most confident errors as pictures. Knows stored thumbnails; opens no image."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from studies.database.artifacts import TEST_PREDICTIONS, TEST_THUMBNAILS, read_arrays
from studies.database.ledger import Opening
from studies.document.blocks import Block, Picture, Pictures
from studies.errors import UserError
from studies.results.study import Evidence
from studies.statistics.calibration import Floats, Labels, probabilities

SHOWN = 12


def most_confident_errors(evidence: Evidence, opening: Opening) -> list[Block]:
    """The errors of the bundle's model that it was surest of, the surest first."""
    assert opening.result is not None
    ids: Mapping[str, Any] = opening.result.get("artifacts", {})
    try:
        stored = read_arrays(evidence.storage, ids.get(TEST_PREDICTIONS), "test predictions")
        images = read_arrays(evidence.storage, ids.get(TEST_THUMBNAILS), "thumbnails")
    except UserError:
        return []
    given_NC, labels_N = probabilities(stored["bundle_NC"], 1.0), stored["labels_N"]
    worst = worst_first(given_NC, labels_N)
    classes = evidence.classes
    pictures = [
        Picture(
            png=to_png(images["images_NHWC"][i]),
            caption=f"{stored['names_N'][i]}: {classes[labels_N[i]]}, called "
            f"{classes[given_NC[i].argmax()]} ({given_NC[i].max():.2f})",
        )
        for i in worst[:SHOWN]
    ]
    if not pictures:
        return []
    caption = (
        f"The {len(pictures)} most confident of {len(worst)} errors of the bundle's model, with "
        "the probability before calibration"
    )
    return [Pictures(caption=caption, pictures=pictures)]


def worst_first(given_NC: Floats, labels_N: Labels) -> list[int]:
    """Images that are called wrong, the most confident first."""
    wrong = np.flatnonzero(given_NC.argmax(axis=1) != labels_N)
    return [int(i) for i in wrong[np.argsort(-given_NC[wrong].max(axis=1), kind="stable")]]


def to_png(image_HWC: Any) -> bytes:
    """An image of one or three channels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).save(
        buffer, "PNG"
    )
    return buffer.getvalue()
