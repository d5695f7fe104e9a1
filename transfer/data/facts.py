"""What the data check knows of an image: hashes, size, mode, format, brightness; no pixel.

Knows one image at a time; nothing of splits or of where facts are kept.
"""

import hashlib
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from transfer.data.decoding import Decoded, NativePixels

# Part of the keys of kept facts: raise it when a fact changes its meaning.
FORMAT = 2
# Bits of a side: 64 bits in all tell what looks alike, 256 what is the same picture.
COARSE, FINE = 8, 16
# Larger images are averaged down by a whole factor first: the hash looks at 64 x 64 pixels.
MOST_HASHED = 512


class ImageFacts(NamedTuple):
    """An image that can be read.

    ``content`` and ``pixels`` are SHA-256 of the file's bytes and of the decoded pixels,
    ``coarse`` and ``fine`` perceptual hashes of 64 and 256 bits, all hexadecimal; a flat image has
    none. ``mode`` and ``format`` are Pillow's names. ``brightness`` is the mean of all values in
    0..1, None of a sealed image.
    """

    content: str
    pixels: str
    coarse: str
    fine: str
    width: int
    height: int
    mode: str
    format: str
    brightness: float | None


class Unreadable(NamedTuple):
    """An image that can't be used, and why."""

    reason: str


Facts = ImageFacts | Unreadable


def facts_of(decoded: Decoded, content: str, *, sealed: bool) -> ImageFacts:
    """The facts of a decoded image; ``content`` is the hash of its bytes."""
    pixels = decoded.pixels
    grey = _grey(pixels)
    is_flat = int(pixels.min()) == int(pixels.max())
    return ImageFacts(
        content=content,
        pixels=pixel_digest(pixels),
        coarse="" if is_flat else str(imagehash.phash(grey, hash_size=COARSE)),
        fine="" if is_flat else str(imagehash.phash(grey, hash_size=FINE)),
        width=pixels.shape[1],
        height=pixels.shape[0],
        mode=decoded.mode,
        format=decoded.format,
        brightness=None if sealed else float(pixels.mean() / np.iinfo(pixels.dtype).max),
    )


def pixel_digest(pixels: NativePixels) -> str:
    """SHA-256 of shape, depth and values."""
    depth = "" if pixels.dtype == np.uint8 else " 16 bits"
    header = "x".join(map(str, pixels.shape)) + depth
    values = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(header.encode() + values.tobytes()).hexdigest()


def _grey(pixels: NativePixels) -> Image.Image:
    """The image in 8-bit grey; one of 16 bits over its own range."""
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), int(pixels.max())
        pixels = ((pixels - float(low)) * (255 / max(high - low, 1))).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    factor = min(image.size) // MOST_HASHED
    return image.reduce(factor) if factor > 1 else image
