"""The cache folder: where it is, how a file gets into it whole, what it holds, what it may take.

All of it may be deleted at any time. Knows the names of entries, not what they are good for.

KIND/ENTRY: an entry is a folder or a file named by 32 hexadecimal digits; with a dot before and
a suffix behind it is unfinished.
"""

import errno
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

# How the entries of each kind end; with "" they are folders. Nothing else is counted or deleted.
KINDS = {
    "images": ("",),
    "facts": (".json",),
    "activations": ("", ".safetensors"),
    "speed": (".json",),
}
LOCKS = "locks"
# What may be in an entry that is a folder.
SUFFIXES = (".npy", ".txt", ".json", ".safetensors")

# Somebody may be writing what is unfinished and was touched within this time.
UNFINISHED_SECONDS = 3600.0

UNITS = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
SIZE_LAW = "a size is >= 0, in bytes or with KB, MB, GB, TB, KiB, MiB, GiB or TiB behind it"

MEMINFO = Path("/proc/meminfo")
UNKNOWN_MEMORY = 4 * 1000**3  # bytes, taken to be available where no one says

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a cache folder has of one kind, unfinished entries included.

    ``last_used`` is the newest time at which a file was written or used, in seconds since 1970.
    """

    name: str
    num_entries: int
    num_bytes: int
    last_used: float | None


def cache_path(given: Path | None = None) -> Path:
    """Where the cache folder is or would be: ``given``, STUDIES_CACHE_DIR, or the platform's."""
    return given or Path(
        os.environ.get("STUDIES_CACHE_DIR") or platformdirs.user_cache_dir("transfer-studies")
    )


def cache_folder(given: Path | None = None) -> Path:
    """The cache folder at ``cache_path``, made if missing.

    Raises:
        ValueError: the folder can't be made, or it or one of the folders in it can't be written.
    """
    folder = cache_path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Cache folder {folder} can't be used ({error.strerror}); change --cache-dir."
        ) from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"Cache folder {folder} is read-only; name another with --cache-dir.")
    for kind in (*KINDS, LOCKS):
        if (folder / kind).is_dir() and not os.access(folder / kind, os.W_OK | os.X_OK):
            raise ValueError(
                f"In cache folder {folder} you may not write into {kind} (it was made by another "
                "user?); name another with --cache-dir."
            )
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` in one step, or vanishes when the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_full(error: OSError) -> bool:
    """Whether a file couldn't be written because disk, quota or file size are at their end."""
    return error.errno in FULL


def reserve(path: Path) -> None:
    """Take the disk space of a file that has holes; what it holds stays.

    Writing into a hole through a map ends the process (SIGBUS) where the disk is full.

    Raises:
        OSError: there is no room for it; see ``is_full``.
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except AttributeError:  # macOS, Windows
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
        for start in range(0, size, CHUNK):
            file.seek(start)
            content = file.read(CHUNK)
            file.seek(start)
            file.write(content)


def mark_used(entry: Path) -> None:
    """Let ``usage`` show that an entry was used now."""
    with suppress(OSError):  # Another user's, or just deleted.
        os.utime(entry)


def parse_size(text: str) -> int:
    """Bytes in a text as "500MB", "2 GB", "1.5GiB" or "0"; KB is 1000 bytes and KiB 1024.

    Raises:
        ValueError: it is no such text, or more than a number holds.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", text.strip().lower(), re.ASCII)
    unit = UNITS.get(match[2] or "b") if match else None
    size = float(match[1]) * unit if match and unit else math.inf
    if not math.isfinite(size):
        raise ValueError(f"{SIZE_LAW}, but got {text!r}.")
    return round(size)


def show_size(num_bytes: int) -> str:
    """A number of bytes for people, as "1.2 GB"."""
    for power, unit in enumerate(("B", "KB", "MB", "GB")):
        value = num_bytes / 1000**power
        if round(value, 1) < 1000:
            return f"{value:.1f} {unit}" if power else f"{num_bytes} B"
    return f"{num_bytes / 1000**4:,.1f} TB"


def default_limit(folder: Path) -> int:
    """Most bytes of activations in a cache folder where nothing is said.

    Half of the memory that is available now (so that they are read from memory and not from the
    disk; taken as 4 GB where it is unknown), and at most half of the disk space that is free or
    that activations have already.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    taken = sum(_size(entry) for entry in _entries(folder, "activations"))
    return min(available_memory(), shutil.disk_usage(there).free + taken) // 2


def available_memory() -> int:
    """Bytes of memory that can be had without swapping."""
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB", MEMINFO.read_text("ascii"), re.M)
        if found:
            return int(found[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):  # Unknown to Windows, to macOS.
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if pages > 0:
            return pages
    return UNKNOWN_MEMORY


def usage(folder: Path) -> list[Kind]:
    """What a cache folder has, by kind. A missing folder has nothing.

    Raises:
        ValueError: the folder can't be read.
    """
    _check_readable(folder)
    kinds = []
    for name in KINDS:
        entries = _entries(folder, name)
        if entries:
            times = [changed for entry in entries for _, changed in _files(entry)]
            kinds.append(
                Kind(
                    name=name,
                    num_entries=len(entries),
                    num_bytes=sum(map(_size, entries)),
                    last_used=max(times, default=None),
                )
            )
    return kinds


def clear(folder: Path) -> int:
    """Delete all entries and return the bytes freed. Studies may run: they compute anew.

    What has not the name and the form of an entry stays, and what somebody may be writing, and
    the locks.

    Raises:
        ValueError: the folder can't be read.
    """
    _check_readable(folder)
    entries = [entry for kind in KINDS for entry in _entries(folder, kind)]
    return sum(_remove(entry) for entry in entries if not _may_be_in_the_making(entry))


def _check_readable(folder: Path) -> None:
    try:
        os.listdir(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ValueError(
            f"Cache folder {folder} can't be read ({error.strerror}); change --cache-dir."
        ) from None


def _entries(folder: Path, kind: str) -> list[Path]:
    """The entries of a kind: what is named as one and looks like one."""
    endings = "|".join(map(re.escape, KINDS[kind]))
    name = re.compile(rf"[0-9a-f]{{32}}({endings})|\.[0-9a-f]{{32}}({endings})-\w+({endings})")
    found = [path for path in _listed(folder / kind) if name.fullmatch(path.name)]
    return [path for path in found if _looks_like_an_entry(path)]


def _looks_like_an_entry(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.suffix in SUFFIXES:
        return path.is_file()
    # The name alone could be that of a folder of the user's.
    inside = _listed(path)
    return path.is_dir() and all(file.suffix in SUFFIXES and file.is_file() for file in inside)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is gone, is a file or is not to be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _files(entry: Path) -> Iterator[tuple[int, float]]:
    """Bytes and time of change of an entry and of each file in it that is still there."""
    for path in (entry, *_listed(entry)):
        with suppress(OSError):
            found = path.lstat()
            yield (0 if path.is_dir() else found.st_size), found.st_mtime


def _size(entry: Path) -> int:
    return sum(size for size, _ in _files(entry))


def _may_be_in_the_making(entry: Path) -> bool:
    newest = max((changed for _, changed in _files(entry)), default=0.0)
    return entry.name.startswith(".") and time.time() - newest < UNFINISHED_SECONDS


def _remove(entry: Path) -> int:
    """Delete an entry in a way that no reader finds half of it; returns the bytes freed."""
    before = _size(entry)
    try:
        if entry.is_dir():
            if not entry.name.startswith("."):
                entry = entry.rename(entry.with_name(f".{entry.name}-{secrets.token_hex(4)}"))
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    except OSError:  # Gone already, or another user's.
        return 0
    return before - _size(entry)
