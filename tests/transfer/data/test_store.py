"""Every image is decoded once; an entry of the store is whole or it is built again.

Where there is no room for an entry, the images stay in memory.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import HELPERS, ROOT

from transfer.data import store as store_module
from transfer.data.decoding import (
    Decoded,
    Resizing,
    UnreadableImageError,
    decode_array,
    encode_array,
    resize,
)
from transfer.data.facts import Unreadable
from transfer.data.sources.items import Items
from transfer.data.store import open_store
from transfer.data.survey import survey

SIZE = 8
BAD = bytes([255])


def silent(what, done, total):
    """No progress is shown."""


class Pictures:
    """Images in memory that count decodings; bytes that start with BAD are no image."""

    def __init__(self, arrays, names=None):
        self.arrays = arrays
        self.contents = [bytes([i]) + array.tobytes() for i, array in enumerate(arrays)]
        self.num_decoded = 0
        self.items = Items(
            names=tuple(names or (f"image{i}" for i in range(len(arrays)))),
            labels_N=np.zeros(len(arrays), dtype=np.int64),
            read=lambda i: self.contents[i],
            decode=self.decode,
        )

    def decode(self, content):
        self.num_decoded += 1
        if content.startswith(BAD):
            raise UnreadableImageError(content[1:].decode())
        array = self.arrays[content[0]]
        return Decoded(array, "RGB" if array.ndim == 3 else "L")


def grey(num_images=5, size=SIZE, seed=0):
    values = np.random.default_rng(seed)
    return [values.integers(0, 256, (size, size), dtype=np.uint8) for _ in range(num_images)]


def colour(seed=9):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def pixel_digests(items, cache):
    return tuple(fact.pixels for fact in survey(items, cache, silent))


def test_images_are_decoded_once_for_all_ways_to_resize_them(tmp_path):
    pictures = Pictures(grey(5, size=20))
    ways = [Resizing(), Resizing("pad", "bicubic"), Resizing("squeeze", "lanczos", 2)]
    store = open_store(pictures.items, SIZE, tmp_path, silent, resizings=ways)
    assert pictures.num_decoded == 5
    for way, images_NHWC in store.images.items():
        side = way.enlarged * SIZE
        expected = [resize(a, side, way.resize, way.interpolation) for a in pictures.arrays]
        assert np.array_equal(images_NHWC[..., 0], expected)
    assert list(store.images) == ways and store.images_NHWC is store.images[ways[0]]


def test_a_way_to_resize_that_is_missing_is_added_to_those_that_are_there(tmp_path):
    pictures = Pictures(grey(5, size=20))
    alone = open_store(pictures.items, SIZE, tmp_path, silent)
    (entry,) = (tmp_path / "images").iterdir()
    written = (entry / "images.npy").stat().st_mtime_ns
    both = [Resizing(), Resizing(interpolation="bicubic")]
    store = open_store(pictures.items, SIZE, tmp_path, silent, resizings=both)
    assert pictures.num_decoded == 10
    again = open_store(pictures.items, SIZE, tmp_path, silent, resizings=both)
    assert pictures.num_decoded == 10
    assert (entry / "images.npy").stat().st_mtime_ns == written
    assert np.array_equal(store.images[both[0]], alone.images_NHWC)
    assert not np.array_equal(store.images[both[1]], store.images[both[0]])
    for way in both:
        assert np.array_equal(again.images[way], store.images[way])
    assert again.facts == store.facts == alone.facts


def entry_of(cache):
    (entry,) = (cache / "images").iterdir()
    return entry


def test_the_store_holds_every_image_in_order_with_one_channel_where_all_are_grey(tmp_path):
    pictures = Pictures(grey())
    store = open_store(pictures.items, SIZE, tmp_path, silent)
    assert store.images_NHWC.shape == (5, SIZE, SIZE, 1)
    assert np.array_equal(store.images_NHWC[..., 0], pictures.arrays)
    assert len(set(store.digests)) == 5


@pytest.mark.parametrize("place", [0, 2, 5])
def test_one_colour_image_gives_all_three_channels(tmp_path, place):
    arrays = grey()
    arrays.insert(place, colour())
    images_NHWC = open_store(Pictures(arrays).items, SIZE, tmp_path, silent).images_NHWC
    assert images_NHWC.shape == (6, SIZE, SIZE, 3)
    for stored, array in zip(images_NHWC, arrays, strict=True):
        assert np.array_equal(stored, array if array.ndim == 3 else np.stack([array] * 3, -1))


def test_images_of_any_size_are_resized_to_the_stores(tmp_path):
    arrays = [*grey(2, size=5), *grey(2, size=40)]
    assert open_store(Pictures(arrays).items, 16, tmp_path, silent).images_NHWC.shape[1:3] == (
        16,
        16,
    )


def test_a_second_opening_decodes_nothing_and_gives_the_same(tmp_path):
    first, second = Pictures(grey()), Pictures(grey())
    store = open_store(first.items, SIZE, tmp_path, silent)
    again = open_store(second.items, SIZE, tmp_path, silent)
    assert (first.num_decoded, second.num_decoded) == (5, 0)
    assert np.array_equal(store.images_NHWC, again.images_NHWC)
    assert store.digests == again.digests


def test_the_store_cannot_be_written_to(tmp_path):
    store = open_store(Pictures(grey()).items, SIZE, tmp_path, silent)
    with pytest.raises(ValueError, match="read-only"):
        store.images_NHWC[0] = 0


@pytest.mark.parametrize("change", ["pixel", "order", "fewer", "size"])
def test_other_bytes_another_order_or_another_size_is_another_entry(tmp_path, change):
    arrays, size = grey(), SIZE
    open_store(Pictures(arrays).items, SIZE, tmp_path, silent)
    if change == "pixel":
        arrays[-1] = arrays[-1] ^ np.uint8(1)
    elif change == "order":
        arrays = arrays[::-1]
    elif change == "fewer":
        arrays = arrays[:-1]
    else:
        size = SIZE + 1
    pictures = Pictures(arrays)
    store = open_store(pictures.items, size, tmp_path, silent)
    assert pictures.num_decoded == len(arrays) == len(store.images_NHWC)
    assert len(list((tmp_path / "images").iterdir())) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-4])


def garble(path):
    path.write_bytes(b"not what was here")


def fewer_images(path):
    np.save(path, np.zeros((2, SIZE, SIZE, 1), dtype=np.uint8))


def one_fact_less(path):
    about = json.loads(path.read_text())
    about["facts"].pop()
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.npy", Path.unlink),
        ("images.npy", cut),
        ("images.npy", garble),
        ("images.npy", fewer_images),
        ("about.json", one_fact_less),
        ("about.json", Path.unlink),
        ("about.json", cut_short),
        ("about.json", garble),
    ],
)
def test_a_torn_entry_is_built_again(tmp_path, name, damage):
    whole = open_store(Pictures(grey()).items, SIZE, tmp_path, silent)
    expected = np.array(whole.images_NHWC)
    damage(entry_of(tmp_path) / name)
    pictures = Pictures(grey())
    store = open_store(pictures.items, SIZE, tmp_path, silent)
    assert pictures.num_decoded == 5
    assert np.array_equal(store.images_NHWC, expected)
    assert store.digests == whole.digests
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_what_was_deleted_is_built_again(tmp_path):
    digests = open_store(Pictures(grey()).items, SIZE, tmp_path, silent).digests
    shutil.rmtree(tmp_path / "images")
    assert open_store(Pictures(grey()).items, SIZE, tmp_path, silent).digests == digests


def test_a_killed_writer_leaves_nothing_that_is_believed(tmp_path):
    code = (
        "import os, signal\nfrom pathlib import Path\n"
        "from test_store import Pictures, SIZE, grey\n"
        "from transfer.data.store import open_store\n"
        "def die(what, done, total):\n"
        "    if done > 64: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"open_store(Pictures(grey(100)).items, SIZE, Path({str(tmp_path)!r}), die)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{Path(__file__).parent}:{ROOT}:{HELPERS}"},
    )
    assert done.returncode == -signal.SIGKILL
    assert all(path.name.startswith(".") for path in (tmp_path / "images").iterdir())
    pictures = Pictures(grey(100))
    store = open_store(pictures.items, SIZE, tmp_path, silent)
    assert not any(path.name.startswith(".") for path in (tmp_path / "images").iterdir())
    assert pictures.num_decoded == 100
    assert np.array_equal(store.images_NHWC[..., 0], pictures.arrays)


@pytest.mark.parametrize("read", [open_store, survey])
def test_what_cannot_be_read_is_told_with_its_reason_and_is_black(tmp_path, read):
    pictures = Pictures(grey(8))
    for i in (1, 3, 4, 6):
        pictures.contents[i] = BAD + b"truncated"
    if read is survey:
        facts = survey(pictures.items, tmp_path, silent)
    else:
        store = open_store(pictures.items, SIZE, tmp_path, silent)
        facts = store.facts
        assert not store.images_NHWC[[1, 3, 4, 6]].any()
        assert np.array_equal(store.images_NHWC[0, ..., 0], pictures.arrays[0])
    assert {i: f for i, f in enumerate(facts) if isinstance(f, Unreadable)} == dict.fromkeys(
        (1, 3, 4, 6), Unreadable("truncated")
    )


@pytest.mark.parametrize("read", [open_store, survey])
def test_what_could_not_be_read_and_was_mended_is_read_anew(tmp_path, read):
    arguments = (SIZE, tmp_path, silent) if read is open_store else (tmp_path, silent)
    broken, whole = Pictures(grey()), Pictures(grey())
    broken.contents[2] = BAD + b"truncated"
    read(broken.items, *arguments)
    found = read(whole.items, *arguments)
    facts = found.facts if read is open_store else found
    assert whole.num_decoded == 5
    assert not any(isinstance(fact, Unreadable) for fact in facts)


def test_an_interruption_leaves_nothing_and_is_passed_on(tmp_path):
    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(Pictures(grey()).items, SIZE, tmp_path, interrupt)
    assert list((tmp_path / "images").iterdir()) == []


def test_progress_counts_up_to_all_images(tmp_path):
    told = []
    items = Pictures(grey(150)).items
    open_store(items, SIZE, tmp_path, lambda *told_now: told.append(told_now))
    assert [done for _, done, _ in told] == [64, 128, 150]
    assert {(what, total) for what, _, total in told} == {("decoding", 150)}


def test_digests_name_pixels_and_shape_and_not_bytes(tmp_path):
    base = np.zeros((2, 8), dtype=np.uint8)
    arrays = [base, base.copy(), base.reshape(4, 4), base + np.uint8(1)]
    digests = pixel_digests(Pictures(arrays).items, tmp_path)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_store_and_the_survey_agree_on_what_an_image_is(tmp_path):
    items = Pictures([*grey(3, size=20), colour()]).items
    digests = open_store(items, SIZE, tmp_path, silent).digests
    assert digests == pixel_digests(items, tmp_path)


def test_a_survey_of_sealed_images_keeps_no_pixel_nor_brightness_and_is_made_once(tmp_path):
    first, second = Pictures(grey(5, size=64)), Pictures(grey(5, size=64))
    facts = survey(first.items, tmp_path, silent)
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert json.loads(kept.read_text()) == [list(fact) for fact in facts]
    assert {fact.brightness for fact in facts} == {None}
    assert survey(second.items, tmp_path, silent) == facts
    assert second.num_decoded == 0


def test_a_survey_that_misses_an_image_is_made_again(tmp_path):
    facts = survey(Pictures(grey()).items, tmp_path, silent)
    kept = next((tmp_path / "facts").iterdir())
    kept.write_text(json.dumps(json.loads(kept.read_text())[1:]))
    assert survey(Pictures(grey()).items, tmp_path, silent) == facts


def deep(*values, shape=(SIZE, SIZE)):
    return [np.full(shape, value, dtype=np.uint16) for value in values]


def test_sixteen_bit_images_share_one_window_of_the_training_images(tmp_path):
    store = open_store(Pictures(deep(1000, 2000, 3000)).items, SIZE, tmp_path, silent)
    assert store.window == (1000, 3000)
    assert store.images_NHWC[:, 0, 0, 0].tolist() == [0, 128, 255]


def test_images_behind_the_training_images_do_not_move_the_window(tmp_path):
    arrays = deep(1000, 2000, 3000, 0, 60_000)
    store = open_store(Pictures(arrays).items, SIZE, tmp_path, silent, num_train=3)
    assert store.window == (1000, 3000)
    assert store.images_NHWC[:, 0, 0, 0].tolist() == [0, 128, 255, 0, 255]


def test_another_number_of_training_images_is_another_entry(tmp_path):
    arrays = deep(1000, 2000, 3000)
    windows = [
        open_store(Pictures(arrays).items, SIZE, tmp_path, silent, num_train=n).window
        for n in (1, 2, 3)
    ]
    assert windows == [(1000, 1000), (1000, 2000), (1000, 3000)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_eight_bit_images_among_sixteen_bit_ones_count_257_fold(tmp_path, place):
    arrays = [np.full((SIZE, SIZE), 100, dtype=np.uint8), *deep(0, 51_400)]
    arrays.insert(place, arrays.pop(0))
    store = open_store(Pictures(arrays).items, SIZE, tmp_path, silent)
    assert store.window == (0, 51_400)
    assert store.images_NHWC[place, 0, 0, 0] == 128  # 25700 of 51400


@pytest.mark.parametrize("is_colour_deep", [True, False])
def test_colour_and_sixteen_bits_may_meet_in_one_set(tmp_path, is_colour_deep):
    colourful = np.zeros((SIZE, SIZE, 3), dtype=np.uint16 if is_colour_deep else np.uint8)
    colourful[..., 0] = 200
    arrays = [*deep(300, 300), colourful]
    images_NHWC = open_store(Pictures(arrays).items, SIZE, tmp_path, silent).images_NHWC
    assert images_NHWC.shape[3] == 3
    assert images_NHWC[2, 0, 0, 0] > images_NHWC[2, 0, 0, 1] == 0
    assert len(set(images_NHWC[0].ravel().tolist())) == 1


def test_a_set_of_one_value_is_stored_without_dividing_by_zero(tmp_path):
    store = open_store(Pictures(deep(700, 700)).items, SIZE, tmp_path, silent)
    assert store.window == (700, 700)
    assert (store.images_NHWC == 0).all()


def test_eight_bit_images_keep_their_values_and_have_no_window(tmp_path):
    arrays = grey()
    store = open_store(Pictures(arrays).items, SIZE, tmp_path, silent)
    assert store.window is None
    assert np.array_equal(store.images_NHWC[..., 0], arrays)


def test_the_window_sizes_and_modes_are_found_again(tmp_path):
    arrays = [*deep(5, 9, shape=(4, 6)), *grey(3)]
    first, second = Pictures(arrays), Pictures(arrays)
    built = open_store(first.items, SIZE, tmp_path, silent)
    found = open_store(second.items, SIZE, tmp_path, silent)
    assert second.num_decoded == 0
    assert (built.window, built.facts) == (found.window, found.facts)
    sizes = [(fact.width, fact.height, fact.mode) for fact in found.facts]
    assert sorted(sizes) == [(6, 4, "L")] * 2 + [(8, 8, "L")] * 3


def test_an_image_of_sixteen_bits_is_no_image_of_eight(tmp_path):
    arrays = [np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint16), np.zeros((2, 2), np.uint16)]
    assert len(set(pixel_digests(Pictures(arrays).items, tmp_path))) == 3


@pytest.mark.parametrize("read", [open_store, survey])
def test_files_that_cannot_be_opened_are_unreadable(tmp_path, read):
    def read_file(i):
        if i in (1, 3):
            raise PermissionError(13, "Permission denied")
        return encode_array(np.full((4, 4), i, np.uint8))

    items = Items(
        names=("a", "b", "c", "d"),
        labels_N=np.zeros(4, dtype=np.int64),
        read=read_file,
        decode=decode_array,
    )
    size = (32,) if read is open_store else ()
    found = read(items, *size, tmp_path, silent)
    facts = found.facts if read is open_store else found
    assert [i for i, f in enumerate(facts) if f == Unreadable("Permission denied")] == [1, 3]


def test_an_entry_that_is_found_is_marked_as_used(tmp_path):
    def read():
        items = Pictures(grey()).items
        open_store(items, SIZE, tmp_path, silent)
        survey(items, tmp_path, silent)
        return [next((tmp_path / kind).iterdir()) for kind in ("images", "facts")]

    for path in read():
        os.utime(path, (0, 0))
    assert all(path.stat().st_mtime > 0 for path in read())


def test_the_room_for_an_entry_is_taken_before_its_first_image(tmp_path, monkeypatch):
    pictures, reserved = Pictures(grey()), []

    def reserve(path):
        reserved.append((path.name, path.stat().st_size, pictures.num_decoded))

    monkeypatch.setattr(store_module, "reserve", reserve)
    open_store(pictures.items, SIZE, tmp_path, silent)
    size = (entry_of(tmp_path) / "images.npy").stat().st_size
    assert reserved == [("images.npy", size, 0)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_file_of_an_entry_is_open_or_mapped_when_it_gets_its_name(tmp_path, monkeypatch):
    renamed, rename = [], Path.rename

    def watched(path, target):
        links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        is_open = any(link.is_relative_to(path) for link in links)
        renamed.append(is_open or str(path) in Path("/proc/self/maps").read_text())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    store = open_store(Pictures(grey()).items, SIZE, tmp_path, silent)
    assert renamed == [False]
    assert isinstance(store.images_NHWC, np.memmap)


def test_an_entry_that_is_deleted_before_it_is_mapped_is_decoded_into_memory(
    tmp_path, monkeypatch
):
    rename = Path.rename

    def cleared(path, target):
        rename(path, target)
        shutil.rmtree(target)

    monkeypatch.setattr(Path, "rename", cleared)
    store = open_store(Pictures(grey()).items, SIZE, tmp_path, silent)
    assert np.array_equal(store.images_NHWC[..., 0], grey())
    assert len(store.facts) == 5 and not isinstance(store.images_NHWC, np.memmap)


MIXED = [
    [*grey(4, size=20), *grey(3)],
    [*grey(3), colour()],
    [np.full((SIZE, SIZE), value, dtype=np.uint16) for value in (100, 900, 1700)],
]


def failing(number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


# Where a full disk may stop an entry: what is called there, of which module.
STEPS = {
    "the folder": (store_module.tempfile, "mkdtemp"),
    "the pixels": (np.lib.format, "write_array_header_1_0"),
    "the room": (store_module, "reserve"),
    "the facts": (store_module.json, "dumps"),
    "the name": (Path, "rename"),
    "the lock": (store_module, "FileLock"),
}


@pytest.mark.parametrize("arrays", MIXED, ids=["grey", "colour", "16 bits"])
@pytest.mark.parametrize("step", STEPS)
def test_without_room_for_an_entry_the_same_images_stay_in_memory(
    tmp_path, monkeypatch, step, arrays
):
    whole = open_store(Pictures(arrays).items, SIZE, tmp_path / "whole", silent)
    with monkeypatch.context() as disk:
        disk.setattr(*STEPS[step], failing(errno.ENOSPC))
        store = open_store(Pictures(arrays).items, SIZE, tmp_path / "full", silent)
    assert store.images_NHWC.dtype == np.uint8
    assert np.array_equal(store.images_NHWC, whole.images_NHWC)
    for fact in ("facts", "window"):
        assert getattr(store, fact) == getattr(whole, fact)
    with pytest.raises(ValueError, match="read-only"):
        store.images_NHWC[0] = 0
    if step != "the lock":
        assert list((tmp_path / "full" / "images").iterdir()) == []
        assert not isinstance(store.images_NHWC, np.memmap)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_to_be_out_of_room_is_passed_over(tmp_path, monkeypatch, number):
    monkeypatch.setattr(store_module, "reserve", failing(number))
    monkeypatch.setattr(Path, "write_text", failing(number))
    items = Pictures(grey()).items
    store = open_store(items, SIZE, tmp_path, silent)
    assert np.array_equal(store.images_NHWC[..., 0], grey())
    assert pixel_digests(items, tmp_path) == store.digests
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"
    ] == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("read", [open_store, survey])
def test_another_failure_of_the_disk_is_told(tmp_path, monkeypatch, number, read):
    monkeypatch.setattr(Path, "write_text", failing(number))
    arguments = (SIZE, tmp_path, silent) if read is open_store else (tmp_path, silent)
    with pytest.raises(OSError) as error:
        read(Pictures(grey()).items, *arguments)
    assert error.value.errno == number


@pytest.mark.parametrize("read", [open_store, survey])
def test_a_cache_that_is_deleted_while_it_is_written_does_no_harm(tmp_path, read):
    cache, whole = tmp_path / "cache", tmp_path / "whole"

    def delete(what, done, total):
        shutil.rmtree(cache, ignore_errors=True)

    pictures = Pictures(grey())
    if read is open_store:
        store = open_store(pictures.items, SIZE, cache, delete)
        assert np.array_equal(store.images_NHWC[..., 0], pictures.arrays)
    else:
        facts = survey(pictures.items, cache, delete)
        assert facts == survey(pictures.items, whole, silent)


BUILD = """
import hashlib
from pathlib import Path
from test_store import Pictures, grey
from transfer.data.facts import Unreadable
from transfer.data.store import open_store
from transfer.data.survey import survey
{before}
items = Pictures(grey(100, size=64)).items
store = open_store(items, 64, Path({cache!r}), lambda what, done, total: None)
facts = survey(items, Path({cache!r}), lambda what, done, total: None)
same = store.digests == tuple(fact.pixels for fact in facts)
print(hashlib.sha256(store.images_NHWC.tobytes()).hexdigest(), same)
"""


def built_by_itself(cache, before=""):
    """What a process prints of the store that it built, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(before=before, cache=str(cache))],
        env={
            "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}:{HELPERS}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file")
@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_a_limit_on_the_size_of_a_file_changes_no_image(tmp_path, limit):
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    limited = built_by_itself(tmp_path / "limited", before)
    assert limited == built_by_itself(tmp_path / "free")
    assert limited[0] == 0
    assert list((tmp_path / "limited" / "images").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 KB, which holds a quarter of the images of ``BUILD``."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("fill", [0, 96 * 1024, 100 * 1024], ids=["small", "4 KB free", "full"])
def test_a_full_disk_neither_ends_the_process_nor_changes_an_image(tmp_path, small_disk, fill):
    (small_disk / "others").write_bytes(bytes(fill))
    full = built_by_itself(small_disk)
    assert full == built_by_itself(tmp_path / "free")
    assert full[0] == 0
    assert list((small_disk / "images").iterdir()) == []
