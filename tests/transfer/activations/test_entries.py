"""Kept arrays: whole or not there, computed by one of many, under a limit, on a full disk too.

Shapes: N rows, D numbers a row.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from paths import HELPERS, ROOT

from transfer import cache as cache_module
from transfer.activations import store as entries_module
from transfer.activations.store import ABOUT, ROWS, Entries
from transfer.cache import clear

KEY, *OTHERS = [f"{digit}" * 32 for digit in "0123456789"]
N, D = 20, 6
# A file of N rows: numbers of 4 bytes behind a header of 128.
FILE_BYTES = 128 + N * D * 4


def numbers(key=KEY, num_rows=N):
    rng = np.random.default_rng(int(key, 16) % 2**32)
    return rng.standard_normal((num_rows, D)).astype(np.float32)


class Compute:
    """Gives the rows of a key, eight at a time, and counts how often it was asked to."""

    def __init__(self, key=KEY, during=lambda: None, array=None):
        self.num_calls = 0
        self._array = numbers(key) if array is None else array
        self._during = during

    def __call__(self):
        self.num_calls += 1
        for start in range(0, len(self._array), 8):
            yield self._array[start : start + 8]
            self._during()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def open_entries(cache, limit_bytes=10**9):
    return Entries(cache / "activations", cache / "locks", limit_bytes)


def keep(entries, key=KEY, protected=()):
    """Keep the rows of ``key``; returns the entry and how often they were computed."""
    compute = Compute(key)
    return entries.find_or_keep(key, (N, D), compute, protected), compute.num_calls


def names(cache):
    return sorted(path.name for path in (cache / "activations").iterdir())


def entry_bytes(cache, key=KEY):
    return sum(path.stat().st_size for path in (cache / "activations" / key).iterdir())


def test_what_is_kept_is_found_again_by_everybody_and_not_computed_anew(cache):
    first = open_entries(cache)
    assert first.find(KEY, N) is None and not first.has(KEY)
    entry, num_calls = keep(first)
    assert num_calls == 1 and first.has(KEY) and not first.has(OTHERS[0])
    for entries in (first, open_entries(cache)):
        for found in (entry, entries.find(KEY, N), keep(entries)[0]):
            assert np.array_equal(found.rows, numbers())
            assert found.rows.dtype == np.float32 and isinstance(found.rows, np.memmap)
            assert found.seconds == entry.seconds > 0
        assert keep(entries)[1] == 0
    assert names(cache) == [KEY]
    assert first.find(OTHERS[0], N) is None


def test_what_is_found_cannot_be_written(cache):
    entry, _ = keep(open_entries(cache))
    with pytest.raises(ValueError, match="read-only"):
        entry.rows[0] = 0


def test_seconds_are_those_of_computing(cache, monkeypatch):
    clock = [100.0]

    def pass_time():
        clock[0] += 2.5

    monkeypatch.setattr(entries_module, "perf_counter", lambda: clock[0])
    entries = open_entries(cache)
    entry = entries.find_or_keep(KEY, (N, D), Compute(during=pass_time))
    assert entry.seconds == 7.5
    assert entries.stored()[0].seconds == 7.5


@pytest.mark.parametrize("shape", [(N, 3), (N, 2, 3), (N, 1, 1, 4), (1, 5), (N, 2, 2, 2, 2)])
def test_rows_of_any_shape_are_kept(cache, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    entries = open_entries(cache)
    entry = entries.find_or_keep(KEY, shape, Compute(array=array))
    assert np.array_equal(entry.rows, array)
    assert np.array_equal(open_entries(cache).find(KEY, shape[0]).rows, array)


def test_rows_are_kept_as_float32_in_any_layout(cache):
    array = np.asfortranarray(numbers().astype(np.float64))
    assert np.array_equal(
        open_entries(cache).find_or_keep(KEY, (N, D), Compute(array=array)).rows, numbers()
    )


@pytest.mark.parametrize("num_rows", [N - 1, N + 1, 2 * N])
def test_another_number_of_rows_than_was_said_is_not_kept(cache, num_rows):
    compute = Compute(array=numbers(num_rows=num_rows))
    with pytest.raises(AssertionError):
        open_entries(cache).find_or_keep(KEY, (N, D), compute)
    assert names(cache) == []


# Damages to an entry: what a power cut, a person or another program may do.


def rows_become(content):
    return lambda folder: (folder / ROWS).write_bytes(
        content((folder / ROWS).read_bytes()) if callable(content) else content
    )


def about_becomes(**changes):
    def change(folder):
        about = json.loads((folder / ABOUT).read_text())
        about = {key: value for key, value in {**about, **changes}.items() if value is not None}
        (folder / ABOUT).write_text(json.dumps(about))

    return change


def array_becomes(array):
    """Another array, with a checksum that is its own."""

    def change(folder):
        np.save(folder / ROWS, array)
        checksum = entries_module.zlib.crc32((folder / ROWS).read_bytes())
        about_becomes(crc32=checksum)(folder)

    return change


def becomes_a_file(folder):
    shutil.rmtree(folder)
    folder.write_bytes(b"a file")


def of_another_key(folder):
    keep(open_entries(folder.parents[1]), OTHERS[0])
    shutil.copy(folder.parent / OTHERS[0] / ABOUT, folder / ABOUT)


DAMAGES = {
    "cut": rows_become(lambda data: data[:-100]),
    "cut in its header": rows_become(lambda data: data[:50]),
    "longer": rows_become(lambda data: data + bytes(24)),
    "empty": rows_become(b""),
    "zeros of its size": rows_become(lambda data: bytes(len(data))),
    "zeros behind its header": rows_become(lambda data: data[:128] + bytes(len(data) - 128)),
    "zeros in a page of it": rows_become(lambda data: data[:300] + bytes(100) + data[400:]),
    "a bit flipped": rows_become(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "another shape in its header": rows_become(lambda data: data.replace(b"(20, 6)", b"(20, 3)")),
    "garbage": rows_become(b"garbage" * 90),
    "an archive": rows_become(b"PK\x03\x04" + bytes(600)),
    "another type": array_becomes(numbers().astype(np.float64)),
    "half the bits": array_becomes(numbers().astype(np.float16)),
    "another byte order": array_becomes(numbers().astype(">f4")),
    "pickled objects": array_becomes(np.array([None] * N)),
    "fewer rows": array_becomes(numbers()[:-1]),
    "more rows": array_becomes(numbers(num_rows=N + 1)),
    "one number": array_becomes(np.float32(3)),
    "no rows": lambda folder: (folder / ROWS).unlink(),
    "no facts": lambda folder: (folder / ABOUT).unlink(),
    "empty facts": lambda folder: (folder / ABOUT).write_bytes(b""),
    "facts cut": lambda folder: (folder / ABOUT).write_bytes(b'{"seconds": 0.1, "crc'),
    "binary facts": lambda folder: (folder / ABOUT).write_bytes(bytes(range(256))),
    "a list of facts": lambda folder: (folder / ABOUT).write_text("[1, 2]"),
    "no checksum": about_becomes(crc32=None),
    "another checksum": about_becomes(crc32=12345),
    "a text for a checksum": about_becomes(crc32="abc"),
    "no seconds": about_becomes(seconds=None),
    "a text for seconds": about_becomes(seconds="long"),
    "the facts of another": of_another_key,
    "nothing in it": lambda folder: [path.unlink() for path in folder.iterdir()],
    "a file": becomes_a_file,
}


@pytest.mark.parametrize("has_seen_it_whole", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_torn_or_foreign_is_computed_again_and_never_returned(
    cache, damage, has_seen_it_whole
):
    entries = open_entries(cache)
    keep(entries)
    os.utime(cache / "activations" / KEY / ROWS, (0, 0))
    entries.find(KEY, N)
    DAMAGES[damage](cache / "activations" / KEY)
    if not has_seen_it_whole:
        entries = open_entries(cache)
    assert entries.find(KEY, N) is None
    entry, num_calls = keep(entries)
    assert num_calls == 1
    assert np.array_equal(entry.rows, numbers())
    assert keep(open_entries(cache))[1] == 0


def test_a_torn_entry_leaves_its_room_to_the_one_that_replaces_it(cache):
    keep(open_entries(cache))
    DAMAGES["zeros of its size"](cache / "activations" / KEY)
    entry, num_calls = keep(open_entries(cache, limit_bytes=FILE_BYTES + 100))
    assert num_calls == 1 and np.array_equal(entry.rows, numbers())


def test_a_file_is_checked_once_in_a_process(cache, monkeypatch):
    keep(open_entries(cache))
    entries, read = open_entries(cache), []
    checksum = entries_module.zlib.crc32

    def crc32(data, value=0):
        read.append(len(data))
        return checksum(data, value)

    monkeypatch.setattr(entries_module.zlib, "crc32", crc32)
    for _ in range(3):
        entries.find(KEY, N)
    assert read == [FILE_BYTES]


def test_who_has_just_written_a_file_does_not_read_it_for_its_checksum(cache, monkeypatch):
    summed, checksum = [], entries_module.zlib.crc32

    def crc32(data, value=0):
        summed.append(len(data))
        return checksum(data, value)

    monkeypatch.setattr(entries_module.zlib, "crc32", crc32)
    entries = open_entries(cache)
    keep(entries)
    entries.find(KEY, N)
    assert sum(summed) == FILE_BYTES


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError])
def test_what_computing_raises_is_passed_on_and_nothing_is_left(cache, failure):
    def fail():
        raise failure("no")

    entries = open_entries(cache)
    with pytest.raises(failure, match="no"):
        entries.find_or_keep(KEY, (N, D), Compute(during=fail))
    assert names(cache) == []
    assert keep(entries)[1] == 1


# Room: a limit of bytes, and who has to go.


def aged(cache, *keys, limit_bytes=10**9):
    """Entries of these keys, the first used longest ago."""
    entries = open_entries(cache)
    for age, key in enumerate(keys):
        keep(entries, key)
        os.utime(cache / "activations" / key, (1000 + age,) * 2)
    return open_entries(cache, limit_bytes)


# Room for three entries with what is said about them.
THREE = 3 * (FILE_BYTES + 80)


def test_the_least_recently_used_goes_first_and_no_more_than_must(cache):
    entries = aged(cache, OTHERS[2], OTHERS[0], OTHERS[1], limit_bytes=THREE)
    assert [stored.path.name for stored in entries.stored()] == [OTHERS[i] for i in (2, 0, 1)]
    assert keep(entries)[0] is not None
    assert names(cache) == sorted([KEY, OTHERS[0], OTHERS[1]])


@pytest.mark.parametrize("use", [lambda entries, key: entries.find(key, N), keep])
def test_what_is_used_does_not_go_before_what_was_not(cache, use):
    entries = aged(cache, *OTHERS[:3], limit_bytes=THREE)
    use(entries, OTHERS[0])
    keep(entries)
    assert names(cache) == sorted([KEY, OTHERS[0], OTHERS[2]])


def test_what_a_killed_process_left_does_not_count_against_the_limit(cache):
    entries = open_entries(cache, limit_bytes=1000)
    put(cache / "activations" / f".{OTHERS[0]}-ab12" / ROWS, num_bytes=900)
    assert entries.free_bytes() == 100
    entries.remove_abandoned()
    assert entries.free_bytes() == 1000


def test_what_a_living_process_writes_stays(cache):
    entries = open_entries(cache)
    put(cache / "activations" / f".{KEY}-ab12" / ROWS)
    (cache / "locks").mkdir()
    with FileLock(cache / "locks" / f"{KEY}.lock"):
        entries.remove_abandoned()
        assert len(names(cache)) == 1


def test_what_is_protected_never_goes(cache):
    entries = aged(cache, *OTHERS[:3], limit_bytes=THREE)
    assert keep(entries, protected=OTHERS[:2])[0] is not None
    assert names(cache) == sorted([KEY, OTHERS[0], OTHERS[1]])
    assert keep(entries, OTHERS[4], protected=names(cache)) == (None, 0)
    assert names(cache) == sorted([KEY, OTHERS[0], OTHERS[1]])


def test_nobody_goes_for_what_cannot_fit_anyway(cache):
    entries = aged(cache, *OTHERS[:3], limit_bytes=THREE)
    array = numbers(num_rows=2 * N)
    compute = Compute(array=array)
    assert entries.find_or_keep(KEY, array.shape, compute, protected=OTHERS[:2]) is None
    assert compute.num_calls == 0
    assert names(cache) == OTHERS[:3]


def test_as_many_go_as_must_where_one_is_not_enough(cache):
    entries = aged(cache, *OTHERS[:3], limit_bytes=THREE)
    array = numbers(num_rows=2 * N)
    assert entries.find_or_keep(KEY, array.shape, Compute(array=array)) is not None
    assert names(cache) == sorted([KEY, OTHERS[2]])


def test_what_is_kept_and_what_is_free_make_up_the_limit(cache):
    entries = open_entries(cache, 5000)
    assert entries.free_bytes() == 5000
    keep(entries)
    (stored,) = entries.stored()
    assert stored.num_bytes == entry_bytes(cache) > FILE_BYTES
    assert entries.free_bytes() == 5000 - stored.num_bytes
    assert open_entries(cache, 0).free_bytes() == -stored.num_bytes
    assert entries.stored(protected=[KEY]) == []


@pytest.mark.parametrize("limit_bytes", [0, FILE_BYTES - 1])
def test_under_a_limit_that_is_too_low_nothing_is_computed_kept_or_removed(cache, limit_bytes):
    entries = open_entries(cache, limit_bytes)
    assert keep(entries) == (None, 0)
    assert not (cache / "activations").exists()
    aged(cache, OTHERS[0])
    assert keep(entries) == (None, 0)
    assert names(cache) == [OTHERS[0]]
    assert keep(entries, OTHERS[0])[0] is not None


def evict(cache):
    assert keep(open_entries(cache, FILE_BYTES + 100), OTHERS[0])[0] is not None


def damage_and_replace(cache):
    (cache / "activations" / KEY / ABOUT).unlink()
    assert keep(open_entries(cache))[1] == 1


@pytest.mark.parametrize("remove", [evict, clear, shutil.rmtree, damage_and_replace])
def test_what_is_mapped_stays_readable_when_its_entry_goes(cache, remove):
    entries = open_entries(cache)
    entry, _ = keep(entries)
    remove(cache)
    assert np.array_equal(entry.rows, numbers())
    assert keep(entries)[1] == (0 if remove is damage_and_replace else 1)


def put(path, num_bytes=1000, age=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    os.utime(path, (age, age))
    return path


def test_a_file_of_an_older_format_takes_room_and_goes_like_an_entry(cache):
    entries = aged(cache, *OTHERS[:2], limit_bytes=THREE)
    old = put(cache / "activations" / f"{OTHERS[5]}.safetensors", FILE_BYTES, age=500)
    assert next(iter(entries.stored())).path == old
    assert entries.free_bytes() < FILE_BYTES
    keep(entries)
    assert names(cache) == sorted([KEY, *OTHERS[:2]])


FOREIGN = ["holiday.jpg", "thesis/chapter1.txt", f"{OTHERS[3]}/photo.jpg", f"{OTHERS[3]}.jpg"]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_ours_is_neither_counted_nor_removed(cache, name):
    theirs = put(cache / "activations" / name)
    entries = open_entries(cache, FILE_BYTES + 100)
    assert entries.stored() == [] and entries.free_bytes() == FILE_BYTES + 100
    keep(entries)
    assert keep(entries, OTHERS[0])[1] == 1
    assert theirs.read_bytes() == bytes(1000)


# Full disks: whatever fails for want of room, nothing is kept and nothing is left.


def failing(number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


class FullFile:
    """An open file whose disk is full when ``method`` is called."""

    def __init__(self, file, method, fail):
        self._file, self._method, self._fail = file, method, fail

    def __getattr__(self, name):
        return self._fail if name == self._method else getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()
        if self._method == "close":
            self._fail()


def full_file(method, opened_as):
    """Make Path.open give files that fail at ``method``, if they are opened so."""

    def patch(monkeypatch, fail):
        path_open = Path.open

        def opened(path, mode="r", *arguments, **options):
            file = path_open(path, mode, *arguments, **options)
            if path.name == ROWS and mode == opened_as:
                return FullFile(file, method, fail)
            return file

        monkeypatch.setattr(Path, "open", opened)

    return patch


def called(*place):
    return lambda monkeypatch, fail: monkeypatch.setattr(*place, fail)


STEPS = {
    "the folder": called(Path, "mkdir"),
    "the entry": called(entries_module.tempfile, "mkdtemp"),
    "the header": full_file("write", "wb"),
    "the size": full_file("truncate", "wb"),
    "the header when it is closed": full_file("close", "wb"),
    "the room": called(entries_module, "reserve"),
    "the rows": full_file("write", "r+b"),
    "the last rows": full_file("close", "r+b"),
    "the facts": called(Path, "write_text"),
    "the name": called(Path, "rename"),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("step", STEPS)
def test_on_a_full_disk_nothing_is_kept_and_nothing_is_left(cache, monkeypatch, step, number):
    entries = open_entries(cache)
    keep(entries, OTHERS[0])
    with monkeypatch.context() as disk:
        STEPS[step](disk, failing(number))
        assert keep(entries)[0] is None
        if step != "the folder":
            assert names(cache) == [OTHERS[0]]
        assert entries.find(OTHERS[0], N) is not None
    assert names(cache) == [OTHERS[0]]
    assert keep(entries)[1] == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("step", STEPS)
def test_another_failure_of_the_disk_is_told_and_nothing_is_left(cache, monkeypatch, step, number):
    entries = open_entries(cache)
    with monkeypatch.context() as disk:
        STEPS[step](disk, failing(number))
        with pytest.raises(OSError) as error:
            keep(entries)
    assert error.value.errno == number
    assert step == "the folder" or names(cache) == []


def locks_fail(monkeypatch, number, name=""):
    """No lock can be made, or none whose name begins so."""
    made = entries_module.FileLock

    def lock(path, **options):
        if path.name.startswith(name):
            failing(number)()
        return made(path, **options)

    monkeypatch.setattr(entries_module, "FileLock", lock)


@pytest.mark.parametrize("name", ["", KEY, "room"])
def test_where_there_is_no_room_for_a_lock_what_fits_is_kept_without(cache, monkeypatch, name):
    locks_fail(monkeypatch, errno.ENOSPC, name)
    entry, _ = keep(open_entries(cache))
    assert np.array_equal(entry.rows, numbers())
    assert keep(open_entries(cache))[1] == 0


def test_where_no_lock_fits_for_what_was_abandoned_it_stays_and_nothing_is_kept(
    cache, monkeypatch
):
    abandoned = put(cache / "activations" / f".{OTHERS[0]}-ab_1" / ROWS)
    locks_fail(monkeypatch, errno.ENOSPC, OTHERS[0])
    assert keep(open_entries(cache)) == (None, 0)
    assert abandoned.exists()


def test_a_lock_that_is_refused_for_another_reason_is_told(cache, monkeypatch):
    locks_fail(monkeypatch, errno.EACCES)
    with pytest.raises(PermissionError):
        keep(open_entries(cache))


def test_two_that_compute_one_key_for_want_of_locks_do_no_harm(cache, monkeypatch):
    locks_fail(monkeypatch, errno.ENOSPC)
    found = []

    def other():
        if not found:
            found.append(keep(open_entries(cache))[0])

    entry = open_entries(cache).find_or_keep(KEY, (N, D), Compute(during=other))
    assert np.array_equal(found[0].rows, numbers()) and np.array_equal(entry.rows, numbers())
    assert names(cache) == [KEY]


@pytest.mark.parametrize("what", ["activations", "locks", "."])
def test_a_cache_that_is_deleted_while_it_is_written_does_no_harm(cache, what):
    def delete():
        shutil.rmtree(cache / what, ignore_errors=True)

    entries = open_entries(cache)
    entry = entries.find_or_keep(KEY, (N, D), Compute(during=delete))
    assert (entry is None) == (what != "locks")
    assert not any(path.name.startswith(".") for path in cache.rglob("*"))
    assert np.array_equal(keep(entries)[0].rows, numbers())


def test_an_entry_in_the_way_that_cannot_be_removed_stays(cache, monkeypatch):
    entries = open_entries(cache)
    keep(entries)
    (cache / "activations" / KEY / ABOUT).unlink()
    monkeypatch.setattr(entries_module, "_remove", lambda path: 0)
    assert keep(entries)[0] is None
    assert names(cache) == [KEY]


def test_what_cannot_be_removed_makes_no_room(cache, monkeypatch):
    entries = aged(cache, *OTHERS[:3], limit_bytes=THREE)
    monkeypatch.setattr(cache_module.shutil, "rmtree", lambda path, ignore_errors: None)
    monkeypatch.setattr(Path, "rename", failing(errno.EACCES))
    assert keep(entries) == (None, 0)
    assert names(cache) == OTHERS[:3]


def test_what_is_another_users_is_used_without_being_marked(cache, monkeypatch):
    keep(open_entries(cache))
    monkeypatch.setattr(os, "utime", failing(errno.EPERM))
    assert keep(open_entries(cache))[1] == 0


# Several processes.

PROCESS = """
import hashlib, os, sys, time
from pathlib import Path
from test_entries import *
{before}
cache, log = Path({cache!r}), Path({cache!r}).parent / "log"

def told():
    with log.open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    {during}

entries = open_entries(cache, {limit})
compute = Compute({key!r}, during=told)
entry = entries.find_or_keep({key!r}, (N, D), compute)
print(entry and hashlib.sha256(entry.rows.tobytes()).hexdigest(), compute.num_calls)
"""
DIGEST = hashlib.sha256(numbers().tobytes()).hexdigest()
WAIT_SECONDS = 60


def started(program):
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}:{HELPERS}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def process(cache, key=KEY, before="", during="", limit=10**9):
    program = {"cache": str(cache), "key": key, "before": before, "during": during}
    return started(PROCESS.format(**program, limit=limit))


def output(running):
    printed, _ = running.communicate(timeout=WAIT_SECONDS)
    return running.returncode, printed.split()


def wait_for(condition):
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def writer(cache, key=KEY):
    """A process that has written the first rows of ``key`` and then waits; killed at the end."""
    log = cache.parent / "log"
    log.unlink(missing_ok=True)
    running = process(cache, key, during="time.sleep(1000)")
    try:
        wait_for(log.exists)
        yield running
    finally:
        running.kill()
        running.communicate()


def test_of_several_processes_one_computes_and_the_others_wait_for_its_rows(cache):
    # Each one waits until all are there, and computing takes longer than coming to it.
    here = cache.parent / "here"
    here.mkdir()
    before = f"""
here = Path({str(here)!r})
(here / str(os.getpid())).touch()
wait_for(lambda: len(list(here.iterdir())) == 3)
"""
    processes = [process(cache, before=before, during="time.sleep(0.2)") for _ in range(3)]
    outputs = [output(running) for running in processes]
    assert [(code, digest) for code, (digest, _) in outputs] == [(0, DIGEST)] * 3
    assert sorted(num_calls for _, (_, num_calls) in outputs) == ["0", "0", "1"]
    assert len(set((cache.parent / "log").read_text().split())) == 1
    assert names(cache) == [KEY]


def test_a_writer_that_is_killed_leaves_nothing_that_is_found_and_the_next_one_computes(cache):
    with writer(cache) as running:
        running.send_signal(signal.SIGKILL)
        running.wait()
        (left,) = names(cache)
        assert left.startswith(f".{KEY}-")
        entries = open_entries(cache)
        assert entries.find(KEY, N) is None
        assert entries.stored() == []
        entry, num_calls = keep(entries)
    assert num_calls == 1 and np.array_equal(entry.rows, numbers())
    assert names(cache) == [KEY]


def test_what_a_killed_writer_left_is_removed_when_room_is_made_for_another(cache):
    with writer(cache, OTHERS[0]) as running:
        running.kill()
        running.wait()
        entries = open_entries(cache, FILE_BYTES + 100)
        assert entries.free_bytes() == 100
        assert keep(entries)[1] == 1
    assert names(cache) == [KEY]


def test_what_a_living_writer_has_in_hand_takes_room_and_stays(cache):
    with writer(cache, OTHERS[0]) as running:
        (open_one,) = names(cache)
        entries = open_entries(cache, 2 * FILE_BYTES - 1)
        assert entries.free_bytes() == FILE_BYTES - 1
        assert keep(entries) == (None, 0)
        assert names(cache) == [open_one]
        assert keep(open_entries(cache, 2 * FILE_BYTES))[1] == 1
        assert names(cache) == sorted([open_one, KEY])
        assert running.poll() is None


@pytest.mark.parametrize("name", [f".{KEY}-x1", f".{OTHERS[0]}-y_2", f".{OTHERS[0]}-z/{ROWS}"])
def test_unfinished_entries_without_a_living_writer_go(cache, name):
    path = cache / "activations" / name
    put(path) if path.name == ROWS else path.mkdir(parents=True)
    keep(open_entries(cache))
    assert names(cache) == [KEY]


def test_an_unfinished_file_of_an_older_format_goes(cache):
    put(cache / "activations" / f".{OTHERS[0]}.safetensors-ab1.safetensors", FILE_BYTES)
    entry, _ = keep(open_entries(cache, FILE_BYTES))
    assert entry is not None and names(cache) == [KEY]


def test_of_two_that_make_room_at_once_the_second_sees_what_the_first_has_taken(
    cache, monkeypatch
):
    both, met, mkdtemp = threading.Barrier(2), [], entries_module.tempfile.mkdtemp

    def meet(**options):
        with suppress(threading.BrokenBarrierError):
            met.append(both.wait(timeout=0.5))
        return mkdtemp(**options)

    monkeypatch.setattr(entries_module.tempfile, "mkdtemp", meet)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda key: keep(open_entries(cache), key), [KEY, OTHERS[0]]))
    assert both.broken and met == []
    assert names(cache) == [KEY, OTHERS[0]]


MANY = """
import random, sys
from test_entries import *
from transfer.cache import clear
cache = Path({cache!r})
generator, entries = random.Random({seed}), open_entries(cache, {limit})
num_found = 0
for _ in range(60):
    key = generator.choice(OTHERS[:5])
    entry, num_calls = keep(entries, key)
    if entry is not None:
        num_found += 1
        assert np.array_equal(entry.rows, numbers(key))
    if generator.random() < 0.05:
        clear(cache)
print(num_found)
"""


def test_many_that_keep_evict_and_clear_at_once_never_get_rows_that_are_not_theirs(cache):
    fields = {"cache": str(cache), "limit": 2 * (FILE_BYTES + 80)}
    processes = [started(MANY.format(**fields, seed=seed)) for seed in range(3)]
    outputs = [output(running) for running in processes]
    assert all(code == 0 and int(num_found) > 30 for code, (num_found,) in outputs)
    assert not any(name.startswith(".") for name in names(cache))
    assert sum(entry_bytes(cache, name) for name in names(cache)) <= fields["limit"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file")
@pytest.mark.parametrize("limit", [0, 100, FILE_BYTES - 1])
def test_a_limit_on_the_size_of_a_file_neither_ends_the_process_nor_leaves_anything(cache, limit):
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    during = "raise AssertionError('computed in vain')"
    # Not even what was computed can be told in a file.
    assert output(process(cache, before=before, during=during)) == (0, ["None", "0"])
    assert names(cache) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 KB."""
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


# Rows of 1 KB: 80 of them fit on a disk of 100 KB that has nothing else.
BIG = np.random.default_rng(0).standard_normal((80, 256)).astype(np.float32)


@pytest.mark.parametrize(
    ("kb_of_others", "is_kept"), [(0, True), (8, True), (40, False), (96, False), (100, False)]
)
def test_a_disk_that_is_full_neither_ends_the_process_nor_leaves_anything(
    small_disk, kb_of_others, is_kept
):
    (small_disk / "others").write_bytes(bytes(kb_of_others * 1024))
    entries, compute = open_entries(small_disk / "cache"), Compute(array=BIG)
    entry = entries.find_or_keep(KEY, BIG.shape, compute)
    assert (entry is not None) is is_kept
    if is_kept:
        assert np.array_equal(entry.rows, BIG)
        assert names(small_disk / "cache") == [KEY]
    else:
        assert compute.num_calls == 0
        assert [path for path in small_disk.rglob("*") if path.name.startswith(".")] == []
    (small_disk / "others").unlink()
    assert np.array_equal(entries.find_or_keep(KEY, BIG.shape, compute).rows, BIG)


def test_a_disk_that_others_fill_while_rows_are_written_keeps_what_was_reserved(small_disk):
    def fill():
        try:
            (small_disk / "others").write_bytes(bytes(100 * 1024))
        except OSError as error:
            assert error.errno == errno.ENOSPC

    entry = open_entries(small_disk / "cache").find_or_keep(
        KEY, BIG.shape, Compute(array=BIG, during=fill)
    )
    # The facts found no room: nothing is kept, and the room of the rows is free again.
    assert entry is None
    (small_disk / "others").unlink()
    assert shutil.disk_usage(small_disk).free > BIG.nbytes
