"""The decoded store: every image decoded and resized once, kept as memory-mapped 8-bit pixels.

Entries are keyed by the bytes of the images and how they are resized, appear whole or not at all,
and may be deleted. Where there is no room for one, the images stay in the memory of the process.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from transfer.cache import mark_used, reserve
from transfer.data.decoding import (
    NUM_VALUES,
    NativePixels,
    Pixels,
    Resizing,
    Window,
    find_window,
    histogram,
    resize,
    to_eight_bits,
)
from transfer.data.facts import Facts, ImageFacts
from transfer.data.sources.items import Items, OnProgress
from transfer.data.survey import (
    as_facts,
    content_digests,
    decoded,
    items_key,
    refuse_unless_out_of_room,
)

# Part of every key: raise it when decoding, resizing or the layout of an entry changes.
FORMAT = 4


@dataclass(frozen=True, kw_only=True)
class DecodedStore:
    """Images (N, H, W, C) by each resizing (C is 1 where all are grey, else 3), and their facts.

    What can't be read is black. ``window`` is the range that 16-bit images were mapped by, None
    where all have 8 bits.
    """

    images: Mapping[Resizing, Pixels]
    facts: tuple[Facts, ...]
    window: Window | None

    @property
    def images_NHWC(self) -> Pixels:
        """The images by the first resizing."""
        return next(iter(self.images.values()))

    @property
    def digests(self) -> tuple[str | None, ...]:
        """Of each image the digest of its pixels."""
        return tuple(f.pixels if isinstance(f, ImageFacts) else None for f in self.facts)


class _Contents(NamedTuple):
    """Images, and the digests of their bytes."""

    items: Items
    digests: tuple[str, ...]


class _Entry(NamedTuple):
    """Where the images by one resizing are kept, and the side that they have."""

    path: Path
    resizing: Resizing
    side: int

    def shape(self, num_images: int, channels: int) -> tuple[int, ...]:
        return (num_images, self.side, self.side, channels)


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
    resizings: Sequence[Resizing] = (Resizing(),),
    num_train: int | None = None,
) -> DecodedStore:
    """The store of ``items`` at ``image_size`` pixels, built where it is not yet in the cache.

    Images are decoded once for all resizings that are missing. The first ``num_train`` images (all
    of them, if None) say by which window 16-bit images become 8-bit ones.
    """
    num_train = len(items) if num_train is None else num_train
    contents = content_digests(items)
    entries = [
        _entry(cache_dir, contents, resizing, image_size, num_train) for resizing in resizings
    ]
    source = _Contents(items, contents)
    with ExitStack() as held:
        # Of several processes that want the same entry one builds it and the others wait; in one
        # order, so that no two wait for each other.
        for name in sorted(entry.path.name for entry in entries):
            held.enter_context(_locked(cache_dir / "locks" / f"{name}.lock"))
        stored = {entry: _read_entry(entry, len(items)) for entry in entries}
        for entry, found in stored.items():
            if found is not None:
                mark_used(entry.path)
        missing = [entry for entry, found in stored.items() if found is None]
        if missing:
            built = _build_as_it_must_be(missing, source, num_train, on_progress)
            stored |= {entry: built for entry in missing}
    parts = {entry.resizing: store for entry, store in stored.items() if store is not None}
    first = next(iter(parts.values()))
    return DecodedStore(
        images={resizing: store.images[resizing] for resizing, store in parts.items()},
        facts=first.facts,
        window=first.window,
    )


def _entry(
    cache_dir: Path, contents: Sequence[str], resizing: Resizing, image_size: int, num_train: int
) -> _Entry:
    side = resizing.enlarged * image_size
    how = f"{resizing.resize} {resizing.interpolation}"
    key = items_key(contents, f"store={FORMAT} size={side} resize={how} train={num_train}")
    return _Entry(cache_dir / "images" / key, resizing, side)


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
    entries: Sequence[_Entry], source: _Contents, num_train: int, on_progress: OnProgress
) -> DecodedStore:
    """Take all images to be grey and of 8 bits until one is not."""
    for channels in (1, 3):
        try:
            return _build(entries, source, _Layout(channels), on_progress)
        except _ColourFoundError:
            continue
        except _SixteenBitsFoundError:
            break
    layout = _survey(source, num_train, on_progress)
    return _build(entries, source, layout, on_progress)


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
    entries: Sequence[_Entry], source: _Contents, layout: _Layout, on_progress: OnProgress
) -> DecodedStore:
    """Decode into new entries, or into memory where there is no room for them."""
    num_images = len(source.items)
    shapes = [entry.shape(num_images, layout.channels) for entry in entries]
    facts: list[Facts] = []
    try:
        with ExitStack() as appearing:
            folders = [appearing.enter_context(_appearing_whole(entry.path)) for entry in entries]
            with ExitStack() as written:
                files = [
                    written.enter_context(written_pixels(folder / "images.npy", shape))
                    for folder, shape in zip(folders, shapes, strict=True)
                ]
                for rows in _rows(entries, source, layout, facts, on_progress):
                    for file, row in zip(files, rows, strict=True):
                        file.write(np.ascontiguousarray(row).data)
            about = {"window": layout.window, "facts": facts}
            for folder in folders:
                (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
    except OSError as error:
        # Reading and decoding report their own errors otherwise: this one is the cache's.
        refuse_unless_out_of_room(error)
    else:
        # Mapped only now: Windows renames no folder with an open file in it.
        stored = [_read_entry(entry, num_images) for entry in entries]
        found = [store for store in stored if store is not None]
        if len(found) == len(entries):
            images = {way: pixels for store in found for way, pixels in store.images.items()}
            return replace(found[0], images=images)
    # No room for them, or somebody has cleared the cache since.
    arrays, facts = [np.zeros(shape, np.uint8) for shape in shapes], []
    for i, rows in enumerate(_rows(entries, source, layout, facts, on_progress)):
        for array, row in zip(arrays, rows, strict=True):
            array[i] = row
    for array in arrays:
        array.flags.writeable = False
    return DecodedStore(
        images={entry.resizing: array for entry, array in zip(entries, arrays, strict=True)},
        facts=tuple(facts),
        window=layout.window,
    )


@contextmanager
def _appearing_whole(entry: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``entry`` in one step, or vanishes when the block fails."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    for left in entry.parent.glob(f".{entry.name}-*"):  # Of a process that was killed.
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}-"))
    try:
        yield temporary
        if entry.exists():  # Torn: replace it.
            shutil.rmtree(entry, ignore_errors=True)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def written_pixels(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A file for an array of 8-bit pixels, to be written row by row, its disk space taken already.

    Written and not mapped: a full disk is then an error and not a signal.
    """
    with path.open("w+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + math.prod(shape))
        reserve(path)
        yield file
        file.flush()
        assert file.tell() == start + math.prod(shape)
        os.fsync(file.fileno())


def _rows(
    entries: Sequence[_Entry],
    source: _Contents,
    layout: _Layout,
    facts: list[Facts],
    on_progress: OnProgress,
) -> Iterator[list[NDArray[np.uint8]]]:
    """Every image as it is stored in each entry, black where it can't be read; adds its facts."""
    shapes = [entry.shape(1, layout.channels)[1:] for entry in entries]
    for image, fact in decoded(*source, on_progress, "decoding"):
        facts.append(fact)
        if image is None:
            yield [np.zeros(shape, np.uint8) for shape in shapes]
        else:
            pixels = _as_stored(image.pixels, layout)
            yield [
                np.broadcast_to(_to_store(pixels, entry), shape)
                for entry, shape in zip(entries, shapes, strict=True)
            ]


def _as_stored(pixels: NativePixels, layout: _Layout) -> Pixels:
    """The image at its own size with the values that are stored."""
    if pixels.dtype != np.uint8 and layout.window is None:
        raise _SixteenBitsFoundError
    if pixels.ndim == 3 and layout.channels == 1:
        raise _ColourFoundError
    return to_eight_bits(pixels, layout.window)


def _to_store(pixels: Pixels, entry: _Entry) -> NDArray[np.uint8]:
    """The image as it is stored: (H, W, C), or (H, W, 1) for a grey one, which fits any C."""
    small = resize(pixels, entry.side, entry.resizing.resize, entry.resizing.interpolation)
    return small[..., None] if small.ndim == 2 else small


def _read_entry(entry: _Entry, num_images: int) -> DecodedStore | None:
    """The entry, or None where it is missing, torn or of another number of images."""
    try:
        images = np.load(entry.path / "images.npy", mmap_mode="r", allow_pickle=False)
        about = json.loads((entry.path / "about.json").read_text(encoding="utf-8"))
        window, facts = about["window"], as_facts(about["facts"], num_images)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(images) != num_images:
        return None
    return DecodedStore(
        images={entry.resizing: images},
        facts=facts,
        window=(int(window[0]), int(window[1])) if window else None,
    )
