"""The cache folder: where it is, how a file gets into it whole. All of it may be deleted."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_folder(given: Path | None = None) -> Path:
    """The cache folder: ``given``, else STUDIES_CACHE_DIR, else the platform's, made if missing.

    Raises:
        ValueError: the folder can't be made or written.
    """
    folder = given or Path(
        os.environ.get("STUDIES_CACHE_DIR") or platformdirs.user_cache_dir("transfer-studies")
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Cache folder {folder} can't be used ({error.strerror}); change --cache-dir."
        ) from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"Cache folder {folder} is read-only; name another with --cache-dir.")
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
