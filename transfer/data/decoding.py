"""From the bytes of an image to pixels of 8 or 16 bits. Knows nothing of data sets or of storage.

H x W pixels; grey images are (H, W), colour images (H, W, 3); uint8, or uint16 where the file has
more than 8 bits a channel. 16-bit images are mapped to 8 bits by one window for all, so that a
grey value means the same everywhere; it never comes from test images.
"""

import io
import threading
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

NativePixels = NDArray[np.uint8] | NDArray[np.uint16]

Window = tuple[int, int]

NUM_VALUES = 65536
# 8-bit images among 16-bit ones: 255 becomes 65535.
EIGHT_TO_SIXTEEN = np.uint16(257)
# One value in so many is cut off at each end: the 0.1 and the 99.9 percentile.
ONE_IN = 1000


def histogram(pixels: NativePixels) -> NDArray[np.int64]:
    """How often each of the 65536 values occurs, all channels together."""
    counts: NDArray[np.int64] = np.bincount(_sixteen_bit(pixels).ravel(), minlength=NUM_VALUES)
    return counts


def find_window(counts: NDArray[np.int64]) -> Window:
    """The 0.1 and 99.9 percentiles of the values counted: the smallest ones that reach them.

    Source: definition 1 (the inverted distribution function) in R. J. Hyndman and Y. Fan, "Sample
    quantiles in statistical packages", The American Statistician 50 (1996), 361-365.
    """
    cumulative = np.cumsum(counts)
    total = int(cumulative[-1])
    ranks = (-(-total // ONE_IN), total - total // ONE_IN)
    low, high = np.searchsorted(cumulative, ranks)
    return int(low), int(high)


def to_eight_bits(pixels: NativePixels, window: Window | None) -> Pixels:
    """Map the window linearly to 0..255, rounded; what lies outside is clipped.

    Without a window, 8-bit pixels stay as they are.
    """
    if window is None:
        assert pixels.dtype == np.uint8
        return pixels.astype(np.uint8, copy=False)
    return np.asarray(_table(window)[_sixteen_bit(pixels)])


@lru_cache(maxsize=1)
def _table(window: Window) -> Pixels:
    """The 8-bit value of each 16-bit value, (65536,)."""
    low, high = window
    # In a window of a single value everything above it is white.
    share = (np.arange(NUM_VALUES) - low) / max(high - low, 1)
    table: Pixels = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    return table


def _sixteen_bit(pixels: NativePixels) -> NDArray[np.uint16]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * EIGHT_TO_SIXTEEN
    return pixels.astype(np.uint16, copy=False)


AnyDepth = TypeVar("AnyDepth", bound=np.generic)
Resize = Literal["squeeze", "pad", "crop"]
RESIZED: Mapping[Resize, str] = {
    "squeeze": "squeezed to a square",
    "pad": "padded to a square",
    "crop": "cropped to the square in the middle",
}
# Lanczos keeps most of the detail: for pixels that are resampled once more.
Interpolation = Literal["bilinear", "bicubic", "lanczos"]

FORMAT_OF_SUFFIX = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
# Pillow looks at the content: without this list it would also run Ghostscript on PostScript.
FORMATS = tuple(sorted(set(FORMAT_OF_SUFFIX.values())))
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_FILTERS = threading.Lock()
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0


class Resizing(NamedTuple):
    """How an image becomes a square of ``enlarged`` times the size that is asked for."""

    resize: Resize = "squeeze"
    interpolation: Interpolation = "bilinear"
    enlarged: int = 1


class Decoded(NamedTuple):
    """An image at its own size, and the mode and format it came in: Pillow's names, as L and PNG.

    ``format`` is empty where there was no file.
    """

    pixels: NativePixels
    mode: str
    format: str = ""


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be used; the message is a short reason."""


def decode_image(content: bytes) -> Decoded:
    """Decode a file's content at the image's own size.

    An EXIF orientation is applied, a palette looked up, transparency laid over black. A colour
    image whose three channels agree everywhere counts as grey.

    Raises:
        UnreadableImageError: damaged, not an image, implausibly large, several pictures, or of a
            kind for which no conversion is defined (floating point, negative values, more than 16
            bits).
    """
    try:
        with _opened(content) as image:
            _refuse_bombs(image)
            _refuse_stacks(image)
            return _decode(image, content)._replace(format=image.format or "")
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image" if content else "empty file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError("implausibly many pixels") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files.
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from None


def _opened(content: bytes) -> Image.Image:
    # Filters of warnings are shared between threads: put back out of turn, one would stay.
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=FORMATS)


def _refuse_bombs(image: Image.Image) -> None:
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise UnreadableImageError("implausibly many pixels")


def _refuse_stacks(image: Image.Image) -> None:
    num_pictures = getattr(image, "n_frames", 1)
    if num_pictures > 1:
        raise UnreadableImageError(f"{num_pictures} pictures in one file; save one a file")


def _decode(image: Image.Image, content: bytes) -> Decoded:
    tiles: list[Any] = getattr(image, "tile", [])
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Decoded(_sixteen_bit_grey(image), "I;16")
    # Pillow would cut 16-bit colour to 8 bits without a word.
    if any(";16" in str(tile[3]) for tile in tiles):
        if image.format != "PNG":
            raise UnreadableImageError("16-bit colour is read from PNG files only")
        return _sixteen_bit_colour(content, image)
    if image.mode not in _EIGHT_BIT_MODES:
        raise UnreadableImageError(f"no conversion to 8 or 16 bits is defined for {image.mode}")
    mode = image.mode
    image.load()
    return Decoded(_eight_bit(ImageOps.exif_transpose(image)), mode)


def _eight_bit(image: Image.Image) -> Pixels:
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return as_grey(np.asarray(image.convert("RGB")))


def _sixteen_bit_grey(image: Image.Image) -> NDArray[np.uint16]:
    _refuse_transparent_colour(image)
    tags: Any = getattr(image, "tag_v2", {})
    # Pillow inverts such files of 8 bits and leaves those of 16 bits as they are.
    is_inverted = tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    image.load()
    values = np.asarray(ImageOps.exif_transpose(image))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnreadableImageError(f"values from {low} to {high}, but 0 to 65535 must hold")
    pixels = values.astype(np.uint16)
    return np.uint16(65535) - pixels if is_inverted else pixels


def _sixteen_bit_colour(content: bytes, image: Image.Image) -> Decoded:
    """Decode a PNG of 16 bits a channel: colour, or grey or colour with transparency."""
    _refuse_transparent_colour(image)
    try:
        # Not at the top: only such files need torch.
        import torch
        from torchvision.io import ImageReadMode, decode_image
    except ImportError:
        raise UnreadableImageError(
            "16-bit colour needs the PNG decoder of torchvision.io"
        ) from None
    stream = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    planes = decode_image(stream, ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    values: NDArray[np.uint16] = planes.permute(1, 2, 0).numpy()
    if values.dtype != np.uint16:
        raise UnreadableImageError("this torchvision cuts 16-bit colour to 8 bits; update it")
    has_alpha = values.shape[2] in (2, 4)
    pixels = _over_black(values) if has_alpha else values
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    mode = {1: "I;16", 2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}[values.shape[2]]
    return Decoded(as_grey(np.ascontiguousarray(pixels)), mode)


def _refuse_transparent_colour(image: Image.Image) -> None:
    if "transparency" in image.info:
        raise UnreadableImageError("a transparent colour in a 16-bit image is not supported")


def _over_black(values_HWA: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Lay an image whose last channel is alpha over black; without that channel."""
    colour, alpha = values_HWA[..., :-1].astype(np.uint64), values_HWA[..., -1:].astype(np.uint64)
    return ((colour * alpha + 32767) // 65535).astype(np.uint16)


def encode_array(pixels: NDArray[Any]) -> bytes:
    """An image of an array as bytes that fix shape, type and values; see ``decode_array``."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    header = " ".join([little.dtype.str, *map(str, little.shape)])
    return header.encode() + b"\n" + little.tobytes()


def decode_array(content: bytes) -> Decoded:
    """The image that ``encode_array`` was given. Grey where its channels agree everywhere."""
    header, _, values = content.partition(b"\n")
    kind, *shape = header.decode().split()
    array = np.frombuffer(values, dtype=np.dtype(kind)).reshape([int(side) for side in shape])
    pixels: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
    depth = "I;16" if pixels.dtype == np.uint16 else "L"
    colour = "RGB;16" if pixels.dtype == np.uint16 else "RGB"
    return Decoded(as_grey(pixels), depth if pixels.ndim == 2 else colour)


def as_grey(pixels: NDArray[AnyDepth]) -> NDArray[AnyDepth]:
    """(H, W) where the three channels of (H, W, 3) agree everywhere, else the same pixels."""
    if pixels.ndim == 2:
        return pixels
    first = pixels[..., 0]
    same = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return np.ascontiguousarray(first) if same else pixels


def resize(
    pixels: Pixels,
    size: int,
    how: Resize = "squeeze",
    interpolation: Interpolation = "bilinear",
) -> Pixels:
    """Resize to a square of ``size`` pixels, with antialiasing. A square image is the same by all.

    - ``squeeze`` keeps the whole image, and its proportions give way.
    - ``pad`` keeps the whole image and its proportions: bars make it a square. Their value is the
      mean of the outermost pixels along them, so that the seam is faint on dark and bright images
      alike; it depends on no other image.
    - ``crop`` keeps the proportions of the square in the middle, and loses what lies outside.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    image, resample = Image.fromarray(pixels), _RESAMPLING[interpolation]
    if how == "squeeze" or height == width:
        return np.asarray(image.resize((size, size), resample))
    if how == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), resample, box=box))
    return _padded(image, pixels, size, resample)


_RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def _padded(image: Image.Image, pixels: Pixels, size: int, resample: Image.Resampling) -> Pixels:
    height, width = pixels.shape[:2]
    longest = max(height, width)
    inner_height, inner_width = (max(1, round(size * n / longest)) for n in (height, width))
    along_bars = pixels if width > height else pixels.swapaxes(0, 1)
    value = np.concatenate([along_bars[0], along_bars[-1]]).mean(axis=0).round()
    square = np.empty((size, size, *pixels.shape[2:]), np.uint8)
    square[...] = value
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    square[top : top + inner_height, left : left + inner_width] = np.asarray(
        image.resize((inner_width, inner_height), resample)
    )
    return square
