"""Image files become pixels of 8 or 16 bits, grey where grey; what can't be used says why."""

import contextlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode
from torchvision.transforms import Resize as ResizeShortSide

from transfer.data import decoding
from transfer.data.decoding import (
    Interpolation,
    Resize,
    UnreadableImageError,
    as_grey,
    decode_array,
    decode_image,
    encode_array,
    resize,
)

GREY_HW = np.array([[0, 50, 100], [150, 200, 255]], dtype=np.uint8)
COLOUR_HW3 = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def decoded(content):
    return decode_image(content).pixels


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
    assert np.array_equal(decoded(encoded(Image.fromarray(GREY_HW), format)), GREY_HW)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_colour_files_keep_every_value(format):
    assert np.array_equal(decoded(encoded(Image.fromarray(COLOUR_HW3), format)), COLOUR_HW3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_an_image_whose_channels_agree_is_grey(mode):
    image = Image.fromarray(GREY_HW).convert(mode)
    assert np.array_equal(decoded(encoded(image)), GREY_HW)


def test_one_pixel_of_colour_makes_an_image_coloured():
    pixels = np.stack([GREY_HW] * 3, axis=-1)
    pixels[1, 2, 1] -= 1
    assert np.array_equal(decoded(encoded(Image.fromarray(pixels))), pixels)


def test_black_and_white_becomes_0_and_255():
    bits = Image.fromarray(GREY_HW > 120)
    assert np.array_equal(decoded(encoded(bits)), np.where(GREY_HW > 120, 255, 0))


def test_a_palette_is_looked_up():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 2, 3), (4, 5, 6), (7, 8, 9)]
    pixels = decoded(encoded(palette(*colours)))
    assert np.array_equal(pixels.reshape(6, 3), colours)


def test_a_palette_of_greys_is_grey():
    values = [7, 0, 250, 3, 4, 99]
    pixels = decoded(encoded(palette(*[(v, v, v) for v in values])))
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
    pixels = decoded(encoded(image, **options))
    assert np.array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    assert pixels.ndim == 2 + np.ndim(expected)


@pytest.mark.parametrize(
    ("inks", "expected"),
    [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), [0, 255, 255])],
)
def test_inks_become_light(inks, expected):
    pixels = decoded(encoded(filled("CMYK", inks), "TIFF"))
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
    assert np.array_equal(decoded(encoded(Image.fromarray(GREY_HW), exif=exif)), turned)


def noise(format):
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(values), format)


def png_of_size(width, height):
    """The start of a PNG file that announces this many pixels and has none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    length, check = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + length + header + check + noise("PNG")[33:]


def test_decoding_in_threads_leaves_the_filters_of_warnings_as_they_were():
    before = list(warnings.filters)
    contents = [png_of_size(10_000, 10_000), *[encoded(Image.fromarray(GREY_HW))] * 31] * 8

    def decode(content):
        with contextlib.suppress(UnreadableImageError):
            decode_image(content)

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(decode, contents))
    assert list(warnings.filters) == before


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
        (encoded(Image.fromarray(GREY_HW.astype(np.float32)), "TIFF"), "is defined for F"),
        (encoded(Image.fromarray(GREY_HW - np.int32(1)), "TIFF"), "from -1 to 254, but 0 to"),
        (encoded(Image.fromarray(GREY_HW * np.int32(300)), "TIFF"), "to 76500, but 0 to 65535"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 3 2\n", "not an image"),
        (b"P5 3 2 255\n" + bytes(6), "not an image"),
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
                assert decoded(bytes(damaged)).dtype in (np.uint8, np.uint16)
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


WAYS = get_args(Resize)
INTERPOLATIONS = get_args(Interpolation)


def grains(height, width, *channels, seed=0):
    shape = (height, width, *channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("pixels", [grains(30, 30), grains(30, 30, 3)], ids=["grey", "colour"])
def test_a_square_image_is_the_same_by_all_ways(pixels, interpolation):
    squeezed, *others = (resize(pixels, 8, how, interpolation) for how in WAYS)
    assert all(np.array_equal(squeezed, other) for other in others)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40, 3), (7, 300), (300, 1), (8, 9)])
def test_an_image_of_any_shape_becomes_a_square(shape, interpolation, how):
    small = resize(grains(*shape), 8, how, interpolation)
    assert small.shape == (8, 8, *shape[2:]) and small.dtype == np.uint8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (40, 80, 3), (81, 40)])
def test_cropping_is_what_torchvision_does_to_the_short_side_and_the_centre(shape, interpolation):
    # Smooth, as half a pixel of another centre would show in noise.
    pixels = resize_to(grains(6, 6, *shape[2:]), shape[:2])
    way = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    transform = Compose([ResizeShortSide(20, way[interpolation]), CenterCrop(20)])
    expected = np.asarray(transform(Image.fromarray(pixels))).astype(int)
    found = resize(pixels, 20, "crop", interpolation).astype(int)
    # Of an odd difference the middle is half a pixel elsewhere.
    assert np.abs(found - expected)[1:-1, 1:-1].max() <= 6


def resize_to(pixels, shape):
    return np.asarray(Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("is_tall", [False, True])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_padding_keeps_the_proportions_between_two_bars_of_the_mean_along_them(channels, is_tall):
    wide = grains(20, 40, *channels)
    bar = np.concatenate([wide[0], wide[-1]]).mean(axis=0).round()
    pixels = wide.swapaxes(0, 1).copy() if is_tall else wide
    padded = resize(pixels, 16, "pad")
    padded = padded.swapaxes(0, 1) if is_tall else padded
    assert (padded[:4] == bar).all() and (padded[12:] == bar).all()
    # The image itself is resized as a whole, to half the height of the square.
    shape = (16, 8) if is_tall else (8, 16)
    inside = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BILINEAR)
    inside = np.asarray(inside)
    assert np.array_equal(padded[4:12], inside.swapaxes(0, 1) if is_tall else inside)


def test_a_circle_stays_round_unless_it_is_squeezed():
    down, right = np.mgrid[:60, :120]
    circle = (255 * ((down - 30) ** 2 + (right - 60) ** 2 < 20**2)).astype(np.uint8)

    def sides(how):
        small = resize(circle, 48, how) > 127
        return small.any(axis=1).sum(), small.any(axis=0).sum()

    assert sides("pad")[0] == pytest.approx(sides("pad")[1], abs=1)
    assert sides("crop")[0] == pytest.approx(sides("crop")[1], abs=1)
    assert sides("squeeze")[0] == pytest.approx(2 * sides("squeeze")[1], abs=2)


def test_interpolations_differ_in_how_much_detail_they_keep():
    sharpness = [resize(grains(64, 64), 24, interpolation=name).std() for name in INTERPOLATIONS]
    assert sharpness == sorted(set(sharpness))


def test_shrinking_averages_so_that_fine_stripes_do_not_alias():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    assert np.abs(resize(stripes, 8).astype(int) - 127).max() <= 16


def test_every_suffix_that_is_looked_for_can_be_decoded():
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in decoding.SUFFIXES} <= set(Image.OPEN)


def png(values_HWC, colour_type, *more):
    """A PNG file of 16 bits a channel, which Pillow can't write in colour."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width = values_HWC.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC))
    chunks = [(b"IHDR", header), *more, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


DEEP_HW = np.array([[0, 1, 256], [40_000, 65_534, 65_535]], dtype=np.uint16)
DEEP_HW3 = np.arange(18, dtype=np.uint16).reshape(2, 3, 3) * 3001


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(DEEP_HW)),
        encoded(Image.fromarray(DEEP_HW), "TIFF"),
        encoded(Image.fromarray(DEEP_HW.astype(">u2")), "TIFF"),
        encoded(Image.fromarray(DEEP_HW), "TIFF", compression="tiff_deflate"),
        encoded(Image.fromarray(DEEP_HW.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(np.uint16(65535) - DEEP_HW), "TIFF", tiffinfo={262: 0}),
        png(DEEP_HW[..., None], 0),
        png(np.stack([DEEP_HW] * 3, axis=-1), 2),
    ],
    ids=["PNG", "TIFF", "big-endian", "packed", "32 bits", "white is zero", "raw", "RGB"],
)
def test_sixteen_bit_grey_keeps_every_value(content):
    pixels = decoded(content)
    assert (pixels.dtype, pixels.dtype.isnative) == (np.uint16, True)
    assert np.array_equal(pixels, DEEP_HW)


def test_sixteen_bit_colour_keeps_every_value():
    pixels, mode, file_format = decode_image(png(DEEP_HW3, 2))
    assert (pixels.dtype, mode, file_format) == (np.uint16, "RGB;16", "PNG")
    assert np.array_equal(pixels, DEEP_HW3)


def test_sixteen_bit_colour_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = png(DEEP_HW3, 2, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert np.array_equal(decoded(turned), DEEP_HW3[::-1, ::-1])


@pytest.mark.parametrize(
    ("pixel", "colour_type", "expected"),
    [
        ((60_000, 65_535), 4, 60_000),
        ((60_000, 0), 4, 0),
        ((60_000, 13_107), 4, 12_000),
        ((50_000, 40_000, 5, 13_107), 6, [10_000, 8_000, 1]),
    ],
)
def test_sixteen_bit_transparency_is_laid_over_black(pixel, colour_type, expected):
    values = np.broadcast_to(np.array(pixel, dtype=np.uint16), (2, 3, len(pixel)))
    pixels = decoded(png(values, colour_type))
    assert np.array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    assert (pixels.dtype, pixels.ndim) == (np.uint16, 2 + np.ndim(expected))


def colour_tiff(compression=None):
    """A TIFF file of 16 bits a channel, of one black pixel, made by hand."""
    tags = [(256, 1), (257, 1), (258, 16), (262, 2), (273, 200), (277, 3), (278, 1), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    bits = struct.pack("<HHII", 258, 3, 3, 180)
    entries = entries[:24] + bits + entries[36:]
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return start.ljust(180, b"\0") + struct.pack("<HHH", 16, 16, 16).ljust(20, b"\0") + bytes(6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (colour_tiff(), "PNG files only"),
        (png(DEEP_HW3, 2, (b"tRNS", bytes(6))), "transparent colour"),
        (png(DEEP_HW[..., None], 0, (b"tRNS", bytes(2))), "transparent colour"),
        (png(DEEP_HW3, 2)[:-30], ""),
    ],
    ids=["colour TIFF", "colour with tRNS", "grey with tRNS", "truncated"],
)
def test_sixteen_bit_images_without_a_defined_conversion_are_refused(content, reason):
    with pytest.raises(UnreadableImageError) as error:
        decode_image(content)
    assert reason in str(error.value)
    assert str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (encoded(filled("1", 1)), "1"),
        (encoded(filled("L", 7)), "L"),
        (encoded(filled("P", 0)), "P"),
        (encoded(filled("RGBA", (1, 2, 3, 4))), "RGBA"),
        (encoded(filled("CMYK", (1, 2, 3, 4)), "TIFF"), "CMYK"),
        (encoded(filled("RGB", (5, 5, 5))), "RGB"),
        (encoded(filled("RGB", (5, 5, 5)), "JPEG"), "RGB"),
        (encoded(Image.fromarray(DEEP_HW)), "I;16"),
        (encode_array(GREY_HW), "L"),
        (encode_array(DEEP_HW), "I;16"),
        (encode_array(DEEP_HW3), "RGB;16"),
    ],
)
def test_the_mode_an_image_came_in_is_told(content, mode):
    decode = decode_array if content[:1] in b"<|" else decode_image
    assert decode(content).mode == mode


@pytest.mark.parametrize("array", [GREY_HW, COLOUR_HW3, DEEP_HW, DEEP_HW3, DEEP_HW.T])
def test_an_array_is_the_same_after_encoding(array):
    for stored in (array, array.astype(array.dtype.newbyteorder(">"))):
        pixels = decode_array(encode_array(stored)).pixels
        assert np.array_equal(pixels, array)
        assert pixels.dtype == array.dtype and pixels.dtype.isnative


def test_arrays_of_the_same_bytes_and_another_shape_or_depth_are_other_content():
    zeros = np.zeros((4, 6), dtype=np.uint8)
    others = [
        zeros,
        zeros.reshape(6, 4),
        np.zeros((2, 6), np.uint16),
        np.zeros((2, 4, 3), np.uint8),
    ]
    assert len({encode_array(array) for array in others}) == 4


def test_an_array_whose_channels_agree_is_grey():
    assert np.array_equal(decode_array(encode_array(np.stack([DEEP_HW] * 3, -1))).pixels, DEEP_HW)


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_several_pictures_in_one_file_are_refused(kind):
    first, second = (Image.new("L", (8, 8), grey) for grey in (0, 200))
    content = io.BytesIO()
    first.save(content, kind, save_all=True, append_images=[second])
    with pytest.raises(UnreadableImageError, match="2 pictures in one file"):
        decode_image(content.getvalue())
