"""Images that can't be read are set apart; splits come out as the check wants to see them."""

import numpy as np
import pytest

from transfer.data.decoding import UnreadableImageError, decode_array
from transfer.data.opening import (
    LostClassError,
    in_order,
    joined_splits,
    open_images,
    require_classes,
)
from transfer.data.sources.arrays import array_items
from transfer.data.sources.items import Items, Source


def silent(what, done, total):
    """No progress is shown."""


def items(num_images, seed, bad=()):
    images_NHW = np.random.default_rng(seed).integers(0, 256, (num_images, 8, 8), dtype=np.uint8)
    good = array_items(f"s{seed}", images_NHW, np.arange(num_images) % 2)
    contents = [b"" if i in bad else good.read(i) for i in range(num_images)]

    def decode(content):
        if not content:
            raise UnreadableImageError("empty file")
        return decode_array(content)

    return Items(
        names=good.names, labels_N=good.labels_N, read=lambda i: contents[i], decode=decode
    )


def source(**splits):
    return Source(text="here", name="here", classes=("a", "b"), splits=splits)


def opened(tmp_path, **splits):
    return open_images(source(**splits), 8, tmp_path, silent)


def test_what_cannot_be_read_is_in_no_split_and_told_with_its_reason(tmp_path):
    found = opened(
        tmp_path, train=items(6, 0, bad=(2,)), val=items(4, 1), test=items(4, 2, bad=(0, 3))
    )
    assert found.unreadable == {
        "train": {"s0/00002": "empty file"},
        "test": {"s2/00000": "empty file", "s2/00003": "empty file"},
    }
    assert {name: len(split) for name, split in found.splits.items()} == {
        "train": 5,
        "val": 4,
        "test": 2,
    }


def test_rows_are_the_places_of_images_in_the_store(tmp_path):
    train, val = items(6, 0, bad=(2,)), items(4, 1)
    found = opened(tmp_path, train=train, val=val, test=items(4, 2))
    for part, name in ((train, "train"), (val, "val")):
        for row, image in zip(found.rows[name], found.splits[name].names, strict=True):
            pixels = part.decode(part.read(part.names.index(image))).pixels
            assert np.array_equal(found.store.images_NHWC[row, ..., 0], pixels)


def test_a_test_split_is_drawn_from_what_can_be_read_and_marked_as_made(tmp_path):
    found = opened(tmp_path, all=items(20, 0, bad=(3,)))
    assert found.unreadable == {"all": {"s0/00003": "empty file"}}
    assert set(found.splits) == {"train", "test"}
    assert (found.splits["train"].is_made, found.splits["test"].is_made) == (False, True)
    names = [*found.splits["train"].names, *found.splits["test"].names]
    assert len(set(names)) == len(names) == 19 and "s0/00003" not in names


def test_of_test_images_no_brightness_is_known(tmp_path):
    found = opened(tmp_path, all=items(20, 0))
    assert {fact.brightness for fact in found.splits["test"].facts} == {None}
    assert None not in {fact.brightness for fact in found.splits["train"].facts}


def test_a_class_that_is_lost_is_named_with_its_split(tmp_path):
    splits = opened(tmp_path, train=items(6, 0), test=items(4, 2)).splits
    require_classes(("a", "b"), splits, {})
    lost = {**splits, "test": splits["test"].subset(np.array([0, 2]))}
    with pytest.raises(LostClassError, match="Class 'b' has no image left in test") as error:
        require_classes(("a", "b"), lost, {"test": {"x": "empty file"}})
    assert error.value.unreadable == {"test": {"x": "empty file"}}


def test_splits_are_joined_and_put_in_the_order_of_their_pixels(tmp_path):
    splits = opened(tmp_path, train=items(6, 0), val=items(4, 1), test=items(4, 2)).splits
    both = joined_splits([splits["train"], splits["val"]])
    assert both.names == (*splits["train"].names, *splits["val"].names)
    order = in_order(both, np.repeat([False, True], [6, 4]))
    assert list(both.subset(order).digests) == sorted(both.digests)
