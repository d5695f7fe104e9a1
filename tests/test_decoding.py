"""Image files become 8-bit pixels, grey where they are grey; what can't be used says why."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from transfer.data import decoding
from transfer.data.decoding import UnreadableImageError, as_grey, decode_image, resize

GREY_HW = np.array([[0, 50, 100], [150, 200, 255]], dtype=np.uint8)
COLOUR_HW3 = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def filled(mode, value):
    return Image.new(mode, (3, 2), value)


def palette(*colours):
    """A palette image whose pixels are the colours in their order, three a row."""
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_files_keep_every_value(format):
    assert np.array_equal(decode_image(encoded(Image.fromarray(GREY_HW), format)), GREY_HW)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_colour_files_keep_every_value(format):
    assert np.array_equal(decode_image(encoded(Image.fromarray(COLOUR_HW3), format)), COLOUR_HW3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_an_image_whose_channels_agree_is_grey(mode):
    image = Image.fromarray(GREY_HW).convert(mode)
    assert np.array_equal(decode_image(encoded(image)), GREY_HW)


def test_one_pixel_of_colour_makes_an_image_coloured():
    pixels = np.stack([GREY_HW] * 3, axis=-1)
    pixels[1, 2, 1] -= 1
    assert np.array_equal(decode_image(encoded(Image.fromarray(pixels))), pixels)


def test_black_and_white_becomes_0_and_255():
    bits = Image.fromarray(GREY_HW > 120)
    assert np.array_equal(decode_image(encoded(bits)), np.where(GREY_HW > 120, 255, 0))


def test_a_palette_is_looked_up():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 2, 3), (4, 5, 6), (7, 8, 9)]
    pixels = decode_image(encoded(palette(*colours)))
    assert np.array_equal(pixels.reshape(6, 3), colours)


def test_a_palette_of_greys_is_grey():
    values = [7, 0, 250, 3, 4, 99]
    pixels = decode_image(encoded(palette(*[(v, v, v) for v in values])))
    assert np.array_equal(pixels, np.reshape(values, (2, 3)))


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (filled("RGBA", (200, 100, 50, 255)), {}, [200, 100, 50]),
        (filled("RGBA", (200, 100, 50, 0)), {}, 0),
        (filled("RGBA", (200, 100, 50, 51)), {}, [40, 20, 10]),
        (filled("LA", (200, 51)), {}, 40),
        (filled("L", 200), {"transparency": 200}, 0),
        (filled("L", 200), {"transparency": 10}, 200),
        (filled("RGB", (9, 8, 7)), {"transparency": (9, 8, 7)}, 0),
        (filled("P", 0), {"transparency": 0}, 0),
    ],
)
def test_transparency_is_laid_over_black(image, options, expected):
    pixels = decode_image(encoded(image, **options))
    assert np.array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    assert pixels.ndim == 2 + np.ndim(expected)


@pytest.mark.parametrize(
    ("inks", "expected"),
    [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), [0, 255, 255])],
)
def test_inks_become_light(inks, expected):
    pixels = decode_image(encoded(filled("CMYK", inks), "TIFF"))
    assert np.array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    assert pixels.ndim == 2 + np.ndim(expected)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, GREY_HW),
        (2, GREY_HW[:, ::-1]),
        (3, GREY_HW[::-1, ::-1]),
        (4, GREY_HW[::-1]),
        (6, np.rot90(GREY_HW, -1)),
        (8, np.rot90(GREY_HW)),
    ],
)
def test_the_orientation_in_exif_is_applied(orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(encoded(Image.fromarray(GREY_HW), exif=exif)), turned)


def noise(format):
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(values), format)


def png_of_size(width, height):
    """The start of a PNG file that announces this many pixels and has none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    length, check = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + length + header + check + noise("PNG")[33:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (b"\x89PNG\r\n\x1a\n", ""),
        (bytes(1000), "not an image"),
        (noise("PNG")[:3000], "truncated"),
        (noise("JPEG")[:1000], "truncated"),
        (noise("BMP")[:1000], "truncated"),
        (noise("TIFF")[:1000], ""),
        (encoded(Image.fromarray(GREY_HW.astype(np.uint16) * 257)), "more than 8 bits"),
        (encoded(Image.fromarray(GREY_HW.astype(np.uint16)), "TIFF"), "more than 8 bits"),
        (encoded(Image.fromarray(GREY_HW.astype(np.int32)), "TIFF"), "more than 8 bits"),
        (encoded(Image.fromarray(GREY_HW.astype(np.float32)), "TIFF"), "more than 8 bits"),
        (png_of_size(60_000, 60_000), "implausibly many pixels"),
        (png_of_size(10_000, 10_000), "implausibly many pixels"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason_in_one_line(content, reason):
    with pytest.raises(UnreadableImageError) as error:
        decode_image(content)
    assert reason in str(error.value)
    assert str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_damage_anywhere_gives_pixels_or_a_reason_and_nothing_else(format):
    whole, rng = noise(format), np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 200), 4):
                damaged[place] = rng.integers(0, 256)
            try:
                assert decode_image(bytes(damaged)).dtype == np.uint8
            except UnreadableImageError as error:
                assert str(error)


def test_as_grey_leaves_grey_and_colour_as_they_are():
    assert as_grey(GREY_HW) is GREY_HW
    assert as_grey(COLOUR_HW3) is COLOUR_HW3


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3), (9, 4), (100, 40, 3)])
def test_resizing_gives_a_square_and_keeps_one_grey_value(shape):
    small = resize(np.full(shape, 77, dtype=np.uint8), 8)
    assert small.shape == (8, 8, *shape[2:])
    assert (small == 77).all()


def test_resizing_to_its_own_size_changes_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert resize(pixels, 8) is pixels


def test_shrinking_averages_so_that_fine_stripes_do_not_alias():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    assert np.abs(resize(stripes, 8).astype(int) - 127).max() <= 16


def test_every_suffix_that_is_looked_for_can_be_decoded():
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in decoding.SUFFIXES} <= set(Image.OPEN)


def test_sixteen_bit_colour_is_refused_and_not_cut_to_eight_bits() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(12))) * 2)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    with pytest.raises(UnreadableImageError, match="8 bits"):
        decode_image(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
