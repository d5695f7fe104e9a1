"""Break the seal: the test images of a data set, decoded for the one final evaluation.

Nothing else opens them for more than facts. Knows no ledger: who calls it has recorded it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transfer.data.decoding import Interpolation, Pixels, resize, to_eight_bits
from transfer.data.facts import pixel_digest
from transfer.data.loading import ImageData, Split, count_labels, hash_lines
from transfer.data.sources.items import OnProgress
from transfer.data.splits import group_codes
from transfer.data.store import written_pixels


def unsealed(
    data: ImageData,
    folder: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> ImageData:
    """The test images as a data set of their own, all of them in its validation split.

    This breaks the seal: call it once, for the final test evaluation, with the opening recorded.
    The order is that of the test split; 16-bit images are mapped by the window of the data.

    Args:
        folder: for the decoded images, which may be more than memory holds; needed as long as they
            are.

    Raises:
        ValueError: an image of 16 bits among data of 8, which have no window for it.
    """
    sealed = data.sealed
    assert sealed is not None
    digests: list[str] = []

    def opened(interpolation: Interpolation) -> Iterator[Pixels]:
        digests.clear()
        for i in range(len(sealed)):
            pixels = sealed.decode(sealed.read(i)).pixels
            if pixels.dtype != np.uint8 and data.window is None:
                raise ValueError(
                    f"Test image {sealed.names[i]} has 16 bits, but the training images have 8, "
                    "so that nothing says how it becomes one of 8 bits."
                )
            digests.append(pixel_digest(pixels))
            image = to_eight_bits(pixels, data.window)
            yield resize(image, data.image_size, data.resize, interpolation)
            on_progress("decoding test images", i + 1, len(sealed))

    shape = (len(sealed), data.image_size, data.image_size)
    # Nearly always there is one: where there are two, decoding twice is simpler than two files.
    resized: dict[Interpolation, Pixels] = {
        name: np.load(_write(folder, name, opened(name), shape), mmap_mode="r")
        for name in data.resized
    }
    everything = np.arange(len(sealed))
    counts = count_labels(data.classes, sealed.labels_N)
    return ImageData(
        resized=resized,
        resize=data.resize,
        rows_N=everything,
        names=sealed.names,
        classes=data.classes,
        train=Split(positions_N=everything[:0], labels_N=sealed.labels_N[:0]),
        val=Split(
            positions_N=everything,
            labels_N=sealed.labels_N,
            groups_N=group_codes(sealed.groups),
        ),
        counts={"test": counts},
        pixels_fingerprint=hash_lines(digests),
        fingerprint=data.test_fingerprint,
        test_fingerprint=data.test_fingerprint,
        window=data.window,
        digests=tuple(digests),
    )


class _ColourFoundError(Exception):
    """A colour image turned up while all were taken to be grey."""

    def __init__(self, image: Pixels) -> None:
        self.image = image


def _write(folder: Path, name: str, images: Iterator[Pixels], shape: tuple[int, int, int]) -> Path:
    """Write images, (H, W) or (H, W, 3), into a file: of one channel where all are grey."""
    grey, colour, num_grey = folder / f"{name}-grey.npy", folder / f"{name}-colour.npy", 0
    try:
        with written_pixels(grey, (*shape, 1)) as file:
            for image in images:
                if image.ndim == 3:
                    raise _ColourFoundError(image)
                file.write(np.ascontiguousarray(image).data)
                num_grey += 1
        return grey
    except _ColourFoundError as found:
        first = found.image
    with grey.open("rb") as before, written_pixels(colour, (*shape, 3)) as file:
        np.lib.format.read_magic(before)
        np.lib.format.read_array_header_1_0(before)
        for _ in range(num_grey):
            pixels = np.frombuffer(before.read(shape[1] * shape[2]), np.uint8)
            file.write(_coloured(pixels.reshape(shape[1:])).data)
        file.write(_coloured(first).data)
        for image in images:
            file.write(_coloured(image).data)
    grey.unlink()
    return colour


def _coloured(image: Pixels) -> Pixels:
    """The image with three channels."""
    return np.ascontiguousarray(image if image.ndim == 3 else np.stack([image] * 3, axis=-1))
