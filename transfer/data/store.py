"""The decoded store: every image decoded and resized once, kept as memory-mapped 8-bit pixels.

Entries are keyed by the bytes of the images, appear whole or not at all, and may be deleted. Where
there is no room for one, the images stay in the memory of the process.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from transfer.cache import is_full, mark_used, reserve, written_whole
from transfer.data.decoding import Decoded, NativePixels, Pixels, UnreadableImageError, resize
from transfer.data.items import Items
from transfer.data.window import NUM_VALUES, Window, find_window, histogram, to_eight_bits

# Part of every key: raise it when decoding, resizing or the layout of an entry changes.
FORMAT = 2

OnProgress = Callable[[str, int, int], None]
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class DecodedStore:
    """``images_NHWC`` (C is 1 where all are grey, else 3) and a digest of each image's pixels.

    ``window`` is the range that 16-bit images were mapped by, None where all have 8 bits;
    ``shapes`` ("WIDTHxHEIGHT") and ``modes`` count what the images were before.
    """

    images_NHWC: Pixels
    digests: tuple[str, ...]
    window: Window | None
    shapes: dict[str, int]
    modes: dict[str, int]


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

    Raises:
        ValueError: images that can't be read, named.
    """
    num_train = len(items) if num_train is None else num_train
    entry = cache_dir / "images" / _key(items, f"size={image_size} train={num_train}")
    # Of several processes that want the same entry one builds it and the others wait.
    with _locked(cache_dir / "locks" / f"{entry.name}.lock"):
        stored = _read_entry(entry, len(items))
        if stored is not None:
            mark_used(entry)
            return stored
        return _build_as_it_must_be(entry, items, image_size, num_train, on_progress)


def pixel_digests(items: Items, cache_dir: Path, on_progress: OnProgress) -> tuple[str, ...]:
    """A digest of the pixels of each image, at its own size. Keeps no pixel.

    Raises:
        ValueError: images that can't be read, named.
    """
    path = cache_dir / "digests" / f"{_key(items, 'digests')}.txt"
    if path.is_file():
        digests = tuple(path.read_text(encoding="ascii").split())
        if len(digests) == len(items):
            mark_used(path)
            return digests
    digests = tuple(_digest(image.pixels) for image in _decoded(items, on_progress, "checking"))
    try:
        with written_whole(path) as temporary:
            temporary.write_text("\n".join(digests), encoding="ascii")
    except OSError as error:
        _refuse_unless_out_of_room(error)
    return digests


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold this lock; where there is no room for its file, go on without."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path))
        except OSError as error:
            _refuse_unless_out_of_room(error)
        yield


def _refuse_unless_out_of_room(error: OSError) -> None:
    """Pass over what a full disk does, and a cache folder that is deleted meanwhile."""
    if not (is_full(error) or isinstance(error, FileNotFoundError)):
        raise error


def _key(items: Items, what: str) -> str:
    total = hashlib.sha256(f"format={FORMAT} {what}".encode())
    unreadable: list[str] = []
    for i in range(len(items)):
        try:
            total.update(hashlib.sha256(items.read(i)).digest())
        except OSError as error:
            unreadable.append(f"{items.names[i]} ({error.strerror or error})")
    _refuse(unreadable, len(items))
    return total.hexdigest()[:32]


def _digest(pixels: NativePixels) -> str:
    depth = "" if pixels.dtype == np.uint8 else " 16 bits"
    header = "x".join(map(str, pixels.shape)) + depth
    values = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(header.encode() + values.tobytes()).hexdigest()


def _decoded(items: Items, on_progress: OnProgress, what: str) -> Iterator[Decoded]:
    """Decode in order, several at a time. Raises ValueError when done if any was unreadable."""
    unreadable: list[str] = []

    def decode(i: int) -> Decoded | str:
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
    _refuse(unreadable, len(items))


def _refuse(unreadable: list[str], num_images: int) -> None:
    if unreadable:
        shown = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        raise ValueError(
            f"{len(unreadable)} of {num_images} images can't be read: {shown}; "
            "replace or remove them."
        )


def _build_as_it_must_be(
    entry: Path, items: Items, image_size: int, num_train: int, on_progress: OnProgress
) -> DecodedStore:
    """Take all images to be grey and of 8 bits until one is not."""
    for channels in (1, 3):
        try:
            return _build(entry, items, image_size, _Layout(channels), on_progress)
        except _ColourFoundError:
            continue
        except _SixteenBitsFoundError:
            break
    layout = _survey(items, num_train, on_progress)
    return _build(entry, items, image_size, layout, on_progress)


def _survey(items: Items, num_train: int, on_progress: OnProgress) -> _Layout:
    """Look at all images before any is stored, and at the values of the training images."""
    channels, counts = 1, np.zeros(NUM_VALUES, dtype=np.int64)
    for i, (pixels, _) in enumerate(_decoded(items, on_progress, "finding the window")):
        channels = max(channels, 3 if pixels.ndim == 3 else 1)
        if i < num_train:
            counts += histogram(pixels)
    return _Layout(channels, find_window(counts))


def _build(
    entry: Path, items: Items, image_size: int, layout: _Layout, on_progress: OnProgress
) -> DecodedStore:
    """Decode into a new entry, or into memory where there is no room for one."""
    shape = (len(items), image_size, image_size, layout.channels)
    try:
        with _appearing_whole(entry) as folder:
            path = folder / "images.npy"
            images_NHWC = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            reserve(path)
            _write_facts(folder, _decode_into(images_NHWC, items, layout, on_progress))
            images_NHWC.flush()
            stored = _read_entry(folder, len(items))
            assert stored is not None
        return stored
    except OSError as error:
        # Reading and decoding report their own errors otherwise: this one is the cache's.
        _refuse_unless_out_of_room(error)
    return _decode_into(np.empty(shape, np.uint8), items, layout, on_progress)


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
    images_NHWC: NDArray[np.uint8], items: Items, layout: _Layout, on_progress: OnProgress
) -> DecodedStore:
    """Fill an array with all images; it becomes the store's, which nobody writes to."""
    digests, shapes, modes = [], Counter[str](), Counter[str]()
    for i, (pixels, mode) in enumerate(_decoded(items, on_progress, "decoding")):
        images_NHWC[i] = _to_store(pixels, images_NHWC.shape[1], layout)
        digests.append(_digest(pixels))
        shapes[f"{pixels.shape[1]}x{pixels.shape[0]}"] += 1
        modes[mode] += 1
    images_NHWC.flags.writeable = False
    return DecodedStore(
        images_NHWC=images_NHWC,
        digests=tuple(digests),
        window=layout.window,
        shapes=dict(shapes),
        modes=dict(modes),
    )


def _write_facts(folder: Path, store: DecodedStore) -> None:
    """Write what an entry has beside the pixels."""
    (folder / "digests.txt").write_text("\n".join(store.digests), encoding="ascii")
    about = {"window": store.window, "shapes": store.shapes, "modes": store.modes}
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
        digests = tuple((entry / "digests.txt").read_text(encoding="ascii").split())
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        window, shapes, modes = about["window"], dict(about["shapes"]), dict(about["modes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not len(images) == len(digests) == sum(shapes.values()) == num_images:
        return None
    return DecodedStore(
        images_NHWC=images,
        digests=digests,
        window=(int(window[0]), int(window[1])) if window else None,
        shapes=shapes,
        modes=modes,
    )
