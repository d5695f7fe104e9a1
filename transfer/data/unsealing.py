"""Break the seal: the test images of a data set, decoded for the one final evaluation.

Nothing else opens them for more than facts. Knows no ledger: who calls it has recorded it.
"""

from pathlib import Path

import numpy as np

from transfer.data.decoding import Pixels, resize
from transfer.data.facts import pixel_digest
from transfer.data.items import OnProgress
from transfer.data.loading import ImageData, Split, count_labels, hash_lines
from transfer.data.window import to_eight_bits


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
    rows = _OpenedRows(folder, len(sealed), data.image_size)
    for i in range(len(sealed)):
        pixels = sealed.decode(sealed.read(i)).pixels
        if pixels.dtype != np.uint8 and data.window is None:
            raise ValueError(
                f"Test image {sealed.names[i]} has 16 bits, but the training images have 8, so "
                "that nothing says how it becomes one of 8 bits."
            )
        digests.append(pixel_digest(pixels))
        rows.write(i, resize(to_eight_bits(pixels, data.window), data.image_size))
        on_progress("decoding test images", i + 1, len(sealed))
    everything = np.arange(len(sealed))
    counts = count_labels(data.classes, sealed.labels_N)
    return ImageData(
        images_NHWC=rows.images_NHWC,
        rows_N=everything,
        names=sealed.names,
        classes=data.classes,
        train=Split(positions_N=everything[:0], labels_N=sealed.labels_N[:0]),
        val=Split(positions_N=everything, labels_N=sealed.labels_N),
        counts={"test": counts},
        pixels_fingerprint=hash_lines(digests),
        fingerprint=data.test_fingerprint,
        test_fingerprint=data.test_fingerprint,
        window=data.window,
        digests=tuple(digests),
    )


class _OpenedRows:
    """Opened images in a file, of one channel until the first colour image comes."""

    def __init__(self, folder: Path, num_images: int, size: int) -> None:
        self._folder = folder
        self.images_NHWC = self._file("grey", (num_images, size, size, 1))

    def write(self, row: int, image: Pixels) -> None:
        if image.ndim == 3 and self.images_NHWC.shape[-1] == 1:
            grey_NHWC = self.images_NHWC
            self.images_NHWC = self._file("colour", (*grey_NHWC.shape[:3], 3))
            for before in range(row):
                self.images_NHWC[before] = grey_NHWC[before]
        self.images_NHWC[row] = image if image.ndim == 3 else image[..., None]

    def _file(self, name: str, shape: tuple[int, ...]) -> Pixels:
        path = self._folder / f"{name}.npy"
        found: Pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        return found
