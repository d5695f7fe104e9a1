"""The decoded store: every image decoded and resized once, kept as memory-mapped 8-bit pixels.

Entries are keyed by the bytes of the images, appear whole or not at all, and may be deleted.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from transfer.cache import written_whole
from transfer.data.decoding import Pixels, UnreadableImageError, resize
from transfer.data.sources import Items

# Part of every key: raise it when decoding, resizing or the layout of an entry changes.
FORMAT = 1

OnProgress = Callable[[str, int, int], None]
CHUNK = 64


class DecodedStore(NamedTuple):
    """``images_NHWC`` (C is 1 where all are grey, else 3) and a digest of each image's pixels."""

    images_NHWC: Pixels
    digests: tuple[str, ...]


class _ColourFoundError(Exception):
    """A colour image turned up while all were taken to be grey."""


def open_store(
    items: Items, image_size: int, cache_dir: Path, on_progress: OnProgress
) -> DecodedStore:
    """The store of ``items`` at ``image_size`` pixels, built where it is not yet in the cache.

    Raises:
        ValueError: images that can't be read, named.
    """
    entry = cache_dir / "images" / _key(items, f"size={image_size}")
    entry.parent.mkdir(parents=True, exist_ok=True)
    # Of several processes that want the same entry one builds it and the others wait.
    locks = cache_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{entry.name}.lock"):
        stored = _read_entry(entry, len(items))
        if stored is None:
            try:
                _build(entry, items, image_size, 1, on_progress)
            except _ColourFoundError:
                _build(entry, items, image_size, 3, on_progress)
            stored = _read_entry(entry, len(items))
            assert stored is not None
    return stored


def pixel_digests(items: Items, cache_dir: Path, on_progress: OnProgress) -> tuple[str, ...]:
    """A digest of the pixels of each image, at its own size. Keeps no pixel.

    Raises:
        ValueError: images that can't be read, named.
    """
    path = cache_dir / "digests" / f"{_key(items, 'digests')}.txt"
    if path.is_file():
        digests = tuple(path.read_text(encoding="ascii").split())
        if len(digests) == len(items):
            return digests
    digests = tuple(_digest(pixels) for pixels in _decoded(items, on_progress, "checking"))
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(digests), encoding="ascii")
    return digests


def _key(items: Items, what: str) -> str:
    total = hashlib.sha256(f"format={FORMAT} {what}".encode())
    for i in range(len(items)):
        total.update(hashlib.sha256(items.read(i)).digest())
    return total.hexdigest()[:32]


def _digest(pixels: Pixels) -> str:
    header = "x".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _decoded(items: Items, on_progress: OnProgress, what: str) -> Iterator[Pixels]:
    """Decode in order, several at a time. Raises ValueError when done if any was unreadable."""
    unreadable: list[str] = []

    def decode(i: int) -> Pixels | str:
        try:
            return items.decode(items.read(i))
        except (UnreadableImageError, OSError) as error:
            return f"{items.names[i]} ({error})"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(decode, range(start, min(start + CHUNK, len(items)))):
                if isinstance(result, str):
                    unreadable.append(result)
                elif not unreadable:
                    yield result
            on_progress(what, min(start + CHUNK, len(items)), len(items))
    if unreadable:
        shown = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        raise ValueError(
            f"{len(unreadable)} of {len(items)} images can't be read: {shown}; "
            "replace or remove them."
        )


def _build(
    entry: Path, items: Items, image_size: int, channels: int, on_progress: OnProgress
) -> None:
    temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}-"))
    try:
        shape = (len(items), image_size, image_size, channels)
        images = np.lib.format.open_memmap(
            temporary / "images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        digests = []
        for i, pixels in enumerate(_decoded(items, on_progress, "decoding")):
            if pixels.ndim == 3 and channels == 1:
                raise _ColourFoundError
            digests.append(_digest(pixels))
            small = resize(pixels, image_size)
            images[i] = small[..., None] if small.ndim == 2 else small
        images.flush()
        (temporary / "digests.txt").write_text("\n".join(digests), encoding="ascii")
        if entry.exists():  # Torn: replace it.
            shutil.rmtree(entry, ignore_errors=True)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_entry(entry: Path, num_images: int) -> DecodedStore | None:
    """The entry, or None where it is missing, torn or of another number of images."""
    try:
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        digests = tuple((entry / "digests.txt").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    if len(images) != num_images or len(digests) != num_images:
        return None
    return DecodedStore(images, digests)
