"""From the bytes of an image file to 8-bit pixels. Knows nothing of data sets or of storage."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be used; the message is a short reason."""


def decode_image(content: bytes) -> Pixels:
    """Decode at the image's own size: (H, W) where it is grey, else (H, W, 3).

    An EXIF orientation is applied, a palette looked up, transparency laid over black. A colour
    image whose three channels agree everywhere counts as grey.

    Raises:
        UnreadableImageError: damaged, not an image, implausibly large, or of more than 8 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                # Pillow would cut 16-bit colour to 8 bits without a word.
                if any(";16" in str(tile[3]) for tile in image.tile):
                    raise UnreadableImageError("more than 8 bits a channel")
                image.load()
                return _to_pixels(ImageOps.exif_transpose(image))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image" if content else "empty file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError("implausibly many pixels") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files.
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from None


def _to_pixels(image: Image.Image) -> Pixels:
    if image.mode not in _EIGHT_BIT_MODES:
        raise UnreadableImageError(f"mode {image.mode} has more than 8 bits a channel")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return as_grey(np.asarray(image.convert("RGB")))


def as_grey(pixels: Pixels) -> Pixels:
    """(H, W) where the three channels of (H, W, 3) agree everywhere, else the same pixels."""
    if pixels.ndim == 2:
        return pixels
    first = pixels[..., 0]
    same = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return np.ascontiguousarray(first) if same else pixels


def resize(pixels: Pixels, size: int) -> Pixels:
    """Resize to a square of ``size`` pixels by bilinear interpolation with antialiasing.

    The whole image is kept: in medical pictures the finding may be at the border, so nothing is
    cropped, and the aspect ratio is what gives way.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)
