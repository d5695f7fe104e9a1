"""Facts of sealed images come back as they went, and hold no pixel. See test_store.py as well."""

import json
from dataclasses import replace

import numpy as np
import pytest

from transfer.data.facts import ImageFacts, Unreadable
from transfer.data.sources.arrays import array_items
from transfer.data.survey import as_facts, content_digests, decoded, items_key, survey


def items(num_images=70, seed=0):
    images_NHW = np.random.default_rng(seed).integers(0, 256, (num_images, 8, 8), dtype=np.uint8)
    return array_items("test", images_NHW, np.zeros(num_images, np.int64))


def silent(what, done, total):
    """No progress is shown."""


def test_facts_survive_the_way_through_json(tmp_path):
    facts = (*survey(items(3), tmp_path, silent), Unreadable("empty file"))
    assert as_facts(json.loads(json.dumps(facts)), 4) == facts


@pytest.mark.parametrize("rows", [[], [["a", "b"]], [[1] * 10]])
def test_other_rows_are_no_facts(rows):
    with pytest.raises((ValueError, TypeError)):
        as_facts(rows, 1)


def test_progress_counts_up_to_all_images(tmp_path):
    told = []
    survey(items(), tmp_path, lambda *what: told.append(what))
    assert told == [("checking", 64, 70), ("checking", 70, 70)]


def test_images_come_decoded_in_their_order_with_the_hash_of_their_bytes():
    some = items()
    contents = content_digests(some)
    found = list(decoded(some, contents, silent, "decoding"))
    assert [fact.content for _, fact in found] == list(contents)
    for i, (image, fact) in enumerate(found):
        assert isinstance(fact, ImageFacts)
        assert np.array_equal(image.pixels, some.decode(some.read(i)).pixels)


def test_another_image_order_or_purpose_is_another_key():
    contents = content_digests(items(3))
    keys = [
        items_key(contents, "facts"),
        items_key(contents, "store"),
        items_key(contents[::-1], "facts"),
        items_key(contents[:2], "facts"),
    ]
    assert len(set(keys)) == 4 and {len(key) for key in keys} == {32}


@pytest.mark.parametrize(("error", "told"), [(MemoryError, MemoryError), (OSError, ValueError)])
def test_a_failure_that_passes_is_not_remembered(tmp_path, error, told):
    some, failing = items(5), [3]

    def read(i):
        if i in failing and len(failing) == 2:
            raise error("passing")
        failing.append(i) if i == 4 else None  # The second time round, when it is decoded.
        return some.read(i)

    with pytest.raises(told):
        survey(replace(some, read=read), tmp_path, silent)
    assert not any(isinstance(fact, Unreadable) for fact in survey(some, tmp_path, silent))
