"""The cache folder is found in an order; a file gets into it whole; only what is ours is freed."""

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import platformdirs
import pytest

from transfer import cache
from transfer.cache import (
    KINDS,
    UNFINISHED_SECONDS,
    cache_folder,
    cache_path,
    clear,
    default_limit,
    is_full,
    mark_used,
    parse_size,
    reserve,
    show_size,
    usage,
    written_whole,
)

KEY, OTHER = "0123456789abcdef" * 2, "f" * 32


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three places, none of which exists yet."""
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "environment"))
    monkeypatch.setattr(
        platformdirs, "user_cache_dir", lambda name: str(tmp_path / "platform" / name)
    )
    return tmp_path


def test_the_given_folder_comes_before_the_environments_and_this_before_the_platforms(
    places, monkeypatch
):
    assert cache_folder(places / "given") == places / "given"
    assert cache_folder() == places / "environment"
    monkeypatch.setenv("STUDIES_CACHE_DIR", "")
    assert cache_folder() == places / "platform" / "transfer-studies"
    monkeypatch.delenv("STUDIES_CACHE_DIR")
    assert cache_folder() == places / "platform" / "transfer-studies"


def test_the_folder_is_made_with_its_parents_and_may_be_there_already(tmp_path):
    assert cache_folder(tmp_path / "a" / "b").is_dir()
    assert cache_folder(tmp_path / "a" / "b").is_dir()


def test_looking_for_the_folder_makes_none(places):
    assert cache_path() == places / "environment"
    assert list(places.iterdir()) == []


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    # Root may write everywhere, so the answer of the system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(ValueError) as error:
        cache_folder(tmp_path)
    assert str(error.value) == (
        f"Cache folder {tmp_path} is read-only; name another with --cache-dir."
    )


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError) as error:
        cache_folder(tmp_path / "file" / "cache")
    assert str(error.value) == (
        f"Cache folder {tmp_path / 'file' / 'cache'} can't be used (Not a directory); "
        "change --cache-dir."
    )


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_temporary_file_has_the_suffix_and_the_folder_of_its_target(tmp_path):
    with written_whole(tmp_path / "file.safetensors") as temporary:
        assert temporary.suffix == ".safetensors"
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_and_the_old_file_stays_when_writing_fails(tmp_path, failure):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(failure), written_whole(path) as temporary:
        temporary.write_text("new")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("0", 0),
        ("123", 123),
        ("7 B", 7),
        ("2KB", 2_000),
        ("500MB", 500_000_000),
        ("2 GB", 2_000_000_000),
        ("1tb", 1_000_000_000_000),
        ("1 KiB", 1024),
        ("3MiB", 3 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        (" .5 TiB ", 1024**4 // 2),
        ("0.1GB", 100_000_000),
    ],
)
def test_a_size_is_read_with_decimal_and_binary_units(text, num_bytes):
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1", "-2GB", "2 pints", "2G", "1,5GB", "nan", "inf GB", "2GB!", "1e9", "9" * 400],
)
def test_what_is_no_size_is_refused_with_the_law_and_the_value(text):
    with pytest.raises(ValueError) as error:
        parse_size(text)
    assert str(error.value) == (
        "a size is >= 0, in bytes or with KB, MB, GB, TB, KiB, MiB, GiB or TiB behind it, "
        f"but got {text!r}."
    )


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KB"),
        (999_949, "999.9 KB"),
        (999_951, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (12 * 1000**5, "12,000.0 TB"),
    ],
)
def test_a_size_is_shown_in_the_unit_that_fits(num_bytes, text):
    assert show_size(num_bytes) == text


@pytest.mark.parametrize("power", range(5))
def test_a_size_that_is_shown_is_read_as_the_same(power):
    assert parse_size(show_size(3 * 1000**power)) == 3 * 1000**power


def put(path, content=b"12345678", age=0.0):
    """A file of 8 bytes that was written ``age`` seconds ago, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for changed in (path, path.parent):
        os.utime(changed, (time.time() - age,) * 2)
    return path


def filled(folder):
    """A cache with an entry of each kind, old unfinished ones, and a lock."""
    old = UNFINISHED_SECONDS + 60
    for name in ("images.npy", "about.json"):
        put(folder / "images" / KEY / name, age=old)
    put(folder / "images" / f".{OTHER}-a_b1" / "images.npy", age=old)
    put(folder / "facts" / f"{KEY}.json", age=old)
    put(folder / "facts" / f".{OTHER}.json-x_y.json", age=old)
    put(folder / "activations" / KEY / "rows.npy", age=old)
    put(folder / "activations" / KEY / "about.json", age=old)
    put(folder / "activations" / f"{OTHER}.safetensors", age=old)
    put(folder / "speed" / f"{KEY}.json", age=old)
    put(folder / "locks" / f"{KEY}.lock", age=old)
    return folder


def test_entries_and_their_bytes_are_counted_by_kind_without_the_locks(tmp_path):
    counted = {kind.name: (kind.num_entries, kind.num_bytes) for kind in usage(filled(tmp_path))}
    assert counted == {
        "images": (2, 24),
        "facts": (2, 16),
        "activations": (2, 24),
        "speed": (1, 8),
    }


def test_an_entry_was_last_used_when_its_newest_file_was_written_or_it_was_marked(tmp_path):
    entry = put(tmp_path / "images" / KEY / "images.npy", age=5000).parent
    written = put(tmp_path / "images" / OTHER / "images.npy", age=3000)
    os.utime(written.parent, (0, 0))
    (kind,) = usage(tmp_path)
    assert kind.last_used == pytest.approx(time.time() - 3000, abs=60)
    mark_used(entry)
    (kind,) = usage(tmp_path)
    assert kind.last_used == pytest.approx(time.time(), abs=60)


def test_marking_what_is_gone_does_nothing(tmp_path):
    mark_used(tmp_path / KEY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("look", [usage, clear])
def test_a_missing_folder_has_nothing_and_is_not_made(tmp_path, look):
    assert not look(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("look", [usage, clear])
def test_a_file_for_a_folder_is_refused(tmp_path, look):
    with pytest.raises(ValueError) as error:
        look(put(tmp_path / "file"))
    assert str(error.value) == (
        f"Cache folder {tmp_path / 'file'} can't be read (Not a directory); change --cache-dir."
    )


@pytest.mark.parametrize("look", [usage, clear, default_limit])
@pytest.mark.parametrize("vanishing", ["entry", "file"])
def test_what_vanishes_while_it_is_looked_at_does_no_harm(tmp_path, monkeypatch, look, vanishing):
    filled(tmp_path)
    listed = Path.iterdir

    def iterdir(folder):
        paths = list(listed(folder))
        if (folder.parent == tmp_path) == (vanishing == "entry"):
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return iter(paths)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    look(tmp_path)


def test_clearing_frees_every_kind_but_the_locks_and_tells_the_bytes(tmp_path):
    assert clear(filled(tmp_path)) == 24 + 16 + 24 + 8
    assert usage(tmp_path) == []
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == sorted([*KINDS, "locks", f"locks/{KEY}.lock"])


@pytest.mark.parametrize("kind", ["images", "activations"])
@pytest.mark.parametrize(
    ("age", "stays"), [(0, True), (UNFINISHED_SECONDS / 2, True), (UNFINISHED_SECONDS + 9, False)]
)
def test_what_may_be_being_written_stays_for_an_hour(tmp_path, kind, age, stays):
    entry = put(tmp_path / kind / f".{KEY}-ab12" / "rows.npy", age=age).parent
    assert clear(tmp_path) == (0 if stays else 8)
    assert entry.exists() is stays


FOREIGN = [
    "photos/me.jpg",
    f"photos/{KEY}/images.npy",
    "images/cat.png",
    f"images/{KEY}.jpg",
    f"images/{KEY}.txt",
    f"images/{KEY}/holiday.jpg",
    f"images/{KEY}/more/images.npy",
    f"images/{KEY}/more.npy/images.npy",
    f"images/{KEY.upper()}/images.npy",
    f"images/{KEY}0/images.npy",
    f"images/{KEY[1:]}/images.npy",
    f"images/copy of {KEY}/images.npy",
    f"images/.{KEY}/images.npy",
    f"images/{KEY}-x/images.npy",
    "images/.git/config.txt",
    f"facts/{KEY}",
    f"facts/{KEY}.json.old",
    f"facts/{KEY}.json/a.txt",
    f"activations/{KEY}.pt",
    "speed/notes.json",
    f"locks/{KEY}",
    f"{KEY}.txt",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_ours_is_neither_counted_nor_deleted(tmp_path, name):
    path = put(tmp_path / name, age=2 * UNFINISHED_SECONDS)
    assert usage(tmp_path) == []
    assert clear(tmp_path) == 0
    assert path.read_bytes() == b"12345678"


def test_a_link_in_the_place_of_an_entry_is_not_followed(tmp_path):
    theirs = put(tmp_path / "theirs" / "images.npy")
    images = tmp_path / "cache" / "images"
    images.mkdir(parents=True)
    links = [images / f".{OTHER}-x", images / KEY]
    for link in links:
        link.symlink_to(theirs.parent)
    assert usage(tmp_path / "cache") == []
    assert clear(tmp_path / "cache") == 0
    assert theirs.exists() and sorted(images.iterdir()) == links


def test_a_mapped_file_stays_readable_when_its_entry_is_freed(tmp_path):
    path = put(tmp_path / "activations" / KEY / "rows.npy")
    np.save(path, np.arange(5000))
    mapped = np.load(path, mmap_mode="r")
    assert clear(tmp_path) > 0
    assert not path.parent.exists()
    assert np.array_equal(mapped, np.arange(5000))


def test_an_entry_loses_its_name_before_its_first_file(tmp_path, monkeypatch):
    entry = put(tmp_path / "images" / KEY / "images.npy").parent
    seen = []
    delete = shutil.rmtree

    def rmtree(path, **options):
        seen.append((entry.exists(), path.parent == entry.parent, path.name[0]))
        delete(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    clear(tmp_path)
    assert seen == [(False, True, ".")]


def test_what_cannot_be_deleted_is_not_counted_as_freed(tmp_path, monkeypatch):
    filled(tmp_path)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    assert clear(tmp_path) == 0
    assert sum(kind.num_bytes for kind in usage(tmp_path)) == 72


def given_machine(monkeypatch, tmp_path, memory_kb, disk):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9999999 kB\nMemAvailable:   {memory_kb} kB\n")
    monkeypatch.setattr(cache, "MEMINFO", meminfo)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))


@pytest.mark.parametrize(
    ("memory_kb", "disk", "limit"),
    [(1000, 10**9, 512_000), (10**6, 3000, 1500), (10**6, 0, 0), (1, 10**9, 512)],
)
def test_the_limit_is_half_of_memory_and_at_most_half_of_the_disk(
    tmp_path, monkeypatch, memory_kb, disk, limit
):
    given_machine(monkeypatch, tmp_path, memory_kb, disk)
    assert default_limit(tmp_path / "cache") == limit


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_nearest_one(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for folder in (Path("a/b"), Path("a"), tmp_path / "a" / "b"):
        assert 0 < default_limit(folder) <= shutil.disk_usage(tmp_path).total
    assert list(tmp_path.iterdir()) == []


def test_activations_that_are_there_do_not_lower_the_limit_and_images_do(tmp_path, monkeypatch):
    put(tmp_path / "activations" / KEY / "rows.npy", bytes(1000))
    put(tmp_path / "images" / KEY / "images.npy", bytes(500))
    given_machine(monkeypatch, tmp_path, 10**6, 2000)
    assert default_limit(tmp_path) == 1500


@pytest.mark.parametrize("content", [None, "", "MemTotal: 5 kB\n"])
def test_memory_is_asked_elsewhere_and_taken_as_4_gb_where_no_one_knows(
    tmp_path, monkeypatch, content
):
    given_machine(monkeypatch, tmp_path, 0, 10**15)
    if content is None:
        cache.MEMINFO.unlink()
    else:
        cache.MEMINFO.write_text(content)
    monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.get)
    assert default_limit(tmp_path) == 20_480
    monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": -1, "SC_PAGE_SIZE": 4096}.get)
    assert default_limit(tmp_path) == 2 * 1000**3
    monkeypatch.delattr(os, "sysconf")
    assert default_limit(tmp_path) == 2 * 1000**3


@pytest.mark.parametrize(
    ("number", "full"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EFBIG, True),
        (errno.EACCES, False),
        (errno.EIO, False),
        (errno.ENOENT, False),
    ],
)
def test_a_disk_is_full_by_its_own_errors_only(number, full):
    assert is_full(OSError(number, os.strerror(number))) is full


def unsupported(handle, start, size):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@pytest.mark.parametrize("how", ["supported", "unsupported", "unknown"])
def test_a_reserved_file_has_no_holes_and_holds_what_it_held(tmp_path, monkeypatch, how):
    path, size = tmp_path / "file", 5 * cache.CHUNK // 2
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("this file system has no files with holes")
    if how == "unsupported":
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
    elif how == "unknown":
        monkeypatch.delattr(os, "posix_fallocate")
    reserve(path)
    assert path.stat().st_blocks * 512 >= size
    assert path.read_bytes() == b"begin" + bytes(size - 8) + b"end"


def test_a_file_without_room_is_not_reserved(tmp_path, monkeypatch):
    def full(handle, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError) as error:
        reserve(put(tmp_path / "file"))
    assert is_full(error.value)


def test_a_folder_in_the_cache_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "activations").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "activations")
    with pytest.raises(ValueError, match=r"may not write into activations .*--cache-dir"):
        cache_folder(tmp_path)
