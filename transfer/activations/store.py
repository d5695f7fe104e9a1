"""Kept arrays: rows by image in a folder under a limit of bytes, whole or not at all.

Knows keys, rows and files; not what the rows are. Every entry may be deleted at any time, by this
process, another one or a person: a reader then has what it has mapped, or finds nothing.
"""

import errno
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from transfer.cache import _entries, _remove, _size, is_full, mark_used, reserve

ROWS, ABOUT = "rows.npy", "about.json"
CRC_BYTES = 2**24

Array = NDArray[np.float32]


class Entry(NamedTuple):
    """A kept array, mapped, and the seconds that computing it took."""

    rows: Array
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What is in the folder, whoever put it there; not finished yet where ``is_open``."""

    path: Path
    num_bytes: int
    seconds: float
    last_used: float
    is_open: bool


class Entries:
    """The arrays in ``folder``, ``limit_bytes`` of them at most; least recently used go first.

    ``folder`` is one of the kinds in a cache folder (see `cache`): nothing else in it is touched.
    Several processes may share it: of those that want the same array one computes it and the
    others wait.
    """

    def __init__(self, folder: Path, locks: Path, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._folder, self._locks = folder, locks
        # Files whose checksum was found right, by what changes when they are written anew.
        self._verified: set[tuple[str, int, int, int]] = set()

    def has(self, key: str) -> bool:
        """Whether there is something under ``key``, unread: `find` may not like it."""
        return (self._folder / key).exists()

    def find(self, key: str, num_rows: int) -> Entry | None:
        """The array kept under ``key``, marked as used now.

        None where it is missing, torn, or not what was meant.
        """
        path = self._folder / key
        try:
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            if not self._is_whole(path / ROWS, about["crc32"]):
                return None
            rows = np.lib.format.open_memmap(path / ROWS, mode="r")
            entry = Entry(rows, float(about["seconds"]))
            if len(rows) != num_rows or rows.dtype != np.float32:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        mark_used(path)
        return entry

    def find_or_keep(
        self,
        key: str,
        shape: tuple[int, ...],
        compute: Callable[[], Iterable[Array]],
        protected: Iterable[str] = (),
    ) -> Entry | None:
        """The array under ``key``, computed and kept if it isn't there.

        None where there is no room for it, under the limit or on the disk.

        Args:
            compute: gives the rows in order, some at a time. What it raises is passed on.
            protected: keys of entries that must not go for this one.
        """
        with self._locked(key):
            entry = self.find(key, shape[0])
            if entry is not None:
                return entry
            try:
                self._keep(key, shape, compute, {key, *protected})
            except OSError as error:
                _refuse_unless_in_vain(error)
            return self.find(key, shape[0])

    def stored(self, protected: Iterable[str] = ()) -> list[Stored]:
        """What is in the folder and may go, least recently used first."""
        keys = set(protected)
        found = [stored for stored in self._all() if not stored.is_open]
        return sorted((s for s in found if s.path.name not in keys), key=lambda s: s.last_used)

    def free_bytes(self) -> int:
        """What is left of the limit; negative where more is kept than this process would."""
        return self.limit_bytes - sum(stored.num_bytes for stored in self._all())

    def remove_abandoned(self) -> None:
        """Remove what killed processes left: it counts against the limit."""
        if any(stored.is_open for stored in self._all()):
            with self._locked("room"):
                self._remove_abandoned()

    def _keep(
        self,
        key: str,
        shape: tuple[int, ...],
        compute: Callable[[], Iterable[Array]],
        protected: set[str],
    ) -> None:
        temporary = self._reserve(key, shape, protected)
        if temporary is None:
            return
        try:
            started = perf_counter()
            # Through write, not through a map: a full disk is then an error and not a signal.
            with (temporary / ROWS).open("r+b") as file:
                checksum = zlib.crc32(file.read(_header_bytes(shape)))
                for rows in compute():
                    data = np.ascontiguousarray(rows, dtype=np.float32).data.cast("B")
                    checksum = zlib.crc32(data, checksum)
                    file.write(data)
                assert file.tell() == _file_bytes(shape)
            about = {"seconds": perf_counter() - started, "crc32": checksum}
            (temporary / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            temporary.rename(self._folder / key)
            with suppress(OSError):  # Gone already.
                # Its checksum was taken on the way: reading all of it again would tell no more.
                self._verified.add(_state(self._folder / key / ROWS, checksum))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _reserve(self, key: str, shape: tuple[int, ...], protected: set[str]) -> Path | None:
        """A temporary entry with its bytes taken from limit and disk, or None without room."""
        num_bytes = _file_bytes(shape)
        if num_bytes > self.limit_bytes:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked("room"):
            self._remove_abandoned(key)
            _remove(self._folder / key)  # It was found to be torn, if it is there.
            free, going = self.free_bytes(), self.stored(protected)
            if free + sum(stored.num_bytes for stored in going) < num_bytes:
                return None
            for stored in going:
                if free >= num_bytes:
                    break
                free += _remove(stored.path)
            if free < num_bytes:
                return None
            temporary = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{key}-"))
            try:
                with (temporary / ROWS).open("wb") as file:
                    np.lib.format.write_array_header_1_0(file, _header(shape))
                    file.truncate(num_bytes)
                reserve(temporary / ROWS)
            except OSError:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return temporary

    def _remove_abandoned(self, own_key: str | None = None) -> None:
        """Remove what nobody holds the lock of, and what an earlier try left under one's own."""
        for stored in [stored for stored in self._all() if stored.is_open]:
            key = stored.path.name[1:33]  # Between the dot and the suffix.
            if key == own_key:
                _remove(stored.path)
                continue
            with suppress(Timeout), FileLock(self._locks / f"{key}.lock", timeout=0):
                _remove(stored.path)

    def _all(self) -> Iterator[Stored]:
        for path in _entries(self._folder.parent, self._folder.name):
            with suppress(OSError):  # Gone while it was looked at.
                yield Stored(
                    path=path,
                    num_bytes=_size(path),
                    seconds=_seconds(path),
                    last_used=path.stat().st_mtime,
                    is_open=path.name.startswith("."),
                )

    def _is_whole(self, path: Path, expected: int) -> bool:
        """Whether a file is what was written: a power cut may leave one of zeros."""
        seen = _state(path, expected)
        if seen not in self._verified:
            checksum = 0
            with path.open("rb") as file:
                while data := file.read(CRC_BYTES):
                    checksum = zlib.crc32(data, checksum)
            if checksum != expected:
                return False
            self._verified.add(seen)
        return True

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold this lock; where there is no room for its file, go on without."""
        with ExitStack() as held:
            try:
                self._locks.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self._locks / f"{name}.lock"))
            except OSError as error:
                _refuse_unless_in_vain(error)
            yield


def _state(path: Path, checksum: int) -> tuple[str, int, int, int]:
    """What changes when a file is written anew."""
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_mtime_ns, checksum


def _refuse_unless_in_vain(error: OSError) -> None:
    """Pass over a full disk, a cache folder deleted meanwhile, and an entry that is in the way.

    The last one where there was no room for locks, or where it is another user's.
    """
    in_vain = is_full(error) or error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
    if not in_vain:
        raise error


def _header(shape: tuple[int, ...]) -> dict[str, object]:
    return {"descr": "<f4", "fortran_order": False, "shape": shape}


def _header_bytes(shape: tuple[int, ...]) -> int:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, _header(shape))
    return buffer.tell()


def _file_bytes(shape: tuple[int, ...]) -> int:
    return _header_bytes(shape) + 4 * int(np.prod(shape))


def _seconds(path: Path) -> float:
    try:
        return float(json.loads((path / ABOUT).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
