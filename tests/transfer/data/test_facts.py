"""What is known of an image: the same picture has the same hashes, whatever its packing."""

import io

import numpy as np
import pytest
from PIL import Image

from transfer.data.check.duplicates import COARSE_DISTANCE, FINE_DISTANCE
from transfer.data.decoding import Decoded, decode_array, decode_image, encode_array
from transfer.data.facts import facts_of, pixel_digest
from transfer.data.sources.phantom import parse_phantom, phantom_images

IMAGES_NHW, _ = phantom_images(parse_phantom("phantom:train=30,size=96"), "train")


def facts(pixels, sealed=False):
    return facts_of(Decoded(pixels, "L", "PNG"), "content", sealed=sealed)


def saved(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def distance(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_size_mode_format_and_brightness_are_told():
    found = facts(np.full((4, 6), 51, np.uint8))
    assert (found.coarse, found.fine) == ("", "")  # Nothing in it could look like another.
    found = facts(np.tile(np.array([0, 102], np.uint8), (4, 3)))
    assert (found.width, found.height, found.mode, found.format) == (6, 4, "L", "PNG")
    assert found.brightness == pytest.approx(0.2)
    assert (len(found.coarse), len(found.fine)) == (16, 64)


def test_of_a_sealed_image_no_brightness_is_told():
    image = IMAGES_NHW[0]
    assert facts(image, sealed=True) == facts(image)._replace(brightness=None)


def test_brightness_is_a_share_of_the_largest_value_in_16_bits_as_well():
    assert facts(np.full((4, 6), 13107, np.uint16)).brightness == pytest.approx(0.2)


def test_the_same_pixels_have_one_digest_whatever_file_they_come_from():
    image = IMAGES_NHW[0]
    files = [saved(image, "PNG"), saved(image, "BMP"), saved(np.stack([image] * 3, -1), "TIFF")]
    digests = {pixel_digest(decode_image(content).pixels) for content in files}
    digests.add(pixel_digest(decode_array(encode_array(image)).pixels))
    assert len(digests) == 1


def test_depth_and_shape_are_part_of_the_digest():
    pixels = np.zeros((2, 4), np.uint8)
    others = [pixels, pixels.astype(np.uint16), pixels.reshape(4, 2)]
    assert len({pixel_digest(other) for other in others}) == 3


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_a_picture_saved_anew_as_jpeg_is_the_same_picture(quality):
    for image in IMAGES_NHW:
        again = decode_image(saved(image, "JPEG", quality=quality))
        one, other = facts(image), facts(again.pixels)
        assert one.pixels != other.pixels
        assert distance(one.coarse, other.coarse) <= COARSE_DISTANCE
        assert distance(one.fine, other.fine) <= FINE_DISTANCE


def test_a_16_bit_picture_looks_like_its_8_bit_copy():
    for image in IMAGES_NHW:
        deep = image.astype(np.uint16) * 16  # 12 bits
        assert distance(facts(image).fine, facts(deep).fine) <= FINE_DISTANCE


def test_a_large_picture_looks_like_its_small_copy():
    for image in IMAGES_NHW[:5]:
        large = np.asarray(Image.fromarray(image).resize((1500, 1200), Image.Resampling.BILINEAR))
        assert distance(facts(image).fine, facts(large).fine) <= FINE_DISTANCE


def test_colour_pictures_and_flat_ones_have_hashes():
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert len(facts(colour).fine) == 64
    for kind in (np.uint8, np.uint16):
        assert facts(np.zeros((5, 5), kind)).fine == ""
