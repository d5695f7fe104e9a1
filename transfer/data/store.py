"""The decoded store: every image decoded and resized once, kept as memory-mapped 8-bit pixels.

Entries are keyed by the bytes of the images, appear whole or not at all, and may be deleted. Where
there is no room for one, the images stay in the memory of the process.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from transfer.cache import mark_used, reserve
from transfer.data.decoding import NativePixels, Pixels, resize
from transfer.data.facts import Facts, ImageFacts
from transfer.data.items import Items, OnProgress
from transfer.data.survey import (
    as_facts,
    content_digests,
    decoded,
    items_key,
    refuse_unless_out_of_room,
)
from transfer.data.window import NUM_VALUES, Window, find_window, histogram, to_eight_bits

# Part of every key: raise it when decoding, resizing or the layout of an entry changes.
FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class DecodedStore:
    """``images_NHWC`` (C is 1 where all are grey, else 3) and the facts of each image.

    What can't be read is black. ``window`` is the range that 16-bit images were mapped by, None
    where all have 8 bits.
    """

    images_NHWC: Pixels
    facts: tuple[Facts, ...]
    window: Window | None

    @property
    def digests(self) -> tuple[str | None, ...]:
        """Of each image the digest of its pixels."""
        return tuple(f.pixels if isinstance(f, ImageFacts) else None for f in self.facts)


class _Contents(NamedTuple):
    """Images, and the digests of their bytes."""

    items: Items
    digests: tuple[str, ...]


class _Layout(NamedTuple):
    channels: int
    window: Window | None = None


class _ColourFoundError(Exception):
    """A colour image turned up while all were taken to be grey."""


class _SixteenBitsFoundError(Exception):
    """A 16-bit image turned up while all were taken to have 8 bits."""


def open_store(
    items: Items,
    image_size: int,
    cache_dir: Path,
    on_progress: OnProgress,
    *,
    num_train: int | None = None,
) -> DecodedStore:
    """The store of ``items`` at ``image_size`` pixels, built where it is not yet in the cache.

    The first ``num_train`` images (all of them, if None) say by which window 16-bit images become
    8-bit ones.
    """
    num_train = len(items) if num_train is None else num_train
    contents = content_digests(items)
    key = items_key(contents, f"store={FORMAT} size={image_size} train={num_train}")
    entry = cache_dir / "images" / key
    source = _Contents(items, contents)
    # Of several processes that want the same entry one builds it and the others wait.
    with _locked(cache_dir / "locks" / f"{entry.name}.lock"):
        stored = _read_entry(entry, len(items))
        if stored is not None:
            mark_used(entry)
            return stored
        return _build_as_it_must_be(entry, source, image_size, num_train, on_progress)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold this lock; where there is no room for its file, go on without."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path))
        except OSError as error:
            refuse_unless_out_of_room(error)
        yield


def _build_as_it_must_be(
    entry: Path, source: _Contents, image_size: int, num_train: int, on_progress: OnProgress
) -> DecodedStore:
    """Take all images to be grey and of 8 bits until one is not."""
    for channels in (1, 3):
        try:
            return _build(entry, source, image_size, _Layout(channels), on_progress)
        except _ColourFoundError:
            continue
        except _SixteenBitsFoundError:
            break
    layout = _survey(source, num_train, on_progress)
    return _build(entry, source, image_size, layout, on_progress)


def _survey(source: _Contents, num_train: int, on_progress: OnProgress) -> _Layout:
    """Look at all images before any is stored, and at the values of the training images."""
    channels, counts = 1, np.zeros(NUM_VALUES, dtype=np.int64)
    for i, (image, _) in enumerate(decoded(*source, on_progress, "finding the window")):
        if image is None:
            continue
        channels = max(channels, 3 if image.pixels.ndim == 3 else 1)
        if i < num_train:
            counts += histogram(image.pixels)
    return _Layout(channels, find_window(counts))


def _build(
    entry: Path, source: _Contents, image_size: int, layout: _Layout, on_progress: OnProgress
) -> DecodedStore:
    """Decode into a new entry, or into memory where there is no room for one."""
    shape = (len(source.items), image_size, image_size, layout.channels)
    try:
        with _appearing_whole(entry) as folder:
            path = folder / "images.npy"
            images_NHWC = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            reserve(path)
            _write_facts(folder, _decode_into(images_NHWC, source, layout, on_progress))
            images_NHWC.flush()
            stored = _read_entry(folder, len(source.items))
            assert stored is not None
        return stored
    except OSError as error:
        # Reading and decoding report their own errors otherwise: this one is the cache's.
        refuse_unless_out_of_room(error)
    return _decode_into(np.zeros(shape, np.uint8), source, layout, on_progress)


@contextmanager
def _appearing_whole(entry: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``entry`` in one step, or vanishes when the block fails."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}-"))
    try:
        yield temporary
        if entry.exists():  # Torn: replace it.
            shutil.rmtree(entry, ignore_errors=True)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode_into(
    images_NHWC: NDArray[np.uint8], source: _Contents, layout: _Layout, on_progress: OnProgress
) -> DecodedStore:
    """Fill an array with all images; it becomes the store's, which nobody writes to."""
    facts: list[Facts] = []
    for i, (image, fact) in enumerate(decoded(*source, on_progress, "decoding")):
        if image is not None:
            images_NHWC[i] = _to_store(image.pixels, images_NHWC.shape[1], layout)
        facts.append(fact)
    images_NHWC.flags.writeable = False
    return DecodedStore(images_NHWC=images_NHWC, facts=tuple(facts), window=layout.window)


def _write_facts(folder: Path, store: DecodedStore) -> None:
    """Write what an entry has beside the pixels."""
    about = {"window": store.window, "facts": store.facts}
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _to_store(pixels: NativePixels, image_size: int, layout: _Layout) -> NDArray[np.uint8]:
    """The image as it is stored: (H, W, C), or (H, W, 1) for a grey one, which fits any C."""
    if pixels.dtype != np.uint8 and layout.window is None:
        raise _SixteenBitsFoundError
    if pixels.ndim == 3 and layout.channels == 1:
        raise _ColourFoundError
    small = resize(to_eight_bits(pixels, layout.window), image_size)
    return small[..., None] if small.ndim == 2 else small


def _read_entry(entry: Path, num_images: int) -> DecodedStore | None:
    """The entry, or None where it is missing, torn or of another number of images."""
    try:
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        window, facts = about["window"], as_facts(about["facts"], num_images)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(images) != num_images:
        return None
    return DecodedStore(
        images_NHWC=images,
        facts=facts,
        window=(int(window[0]), int(window[1])) if window else None,
    )
