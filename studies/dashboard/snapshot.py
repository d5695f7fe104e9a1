"""A copy of a SQLite database that follows the original. Knows no table of it.

Made with SQLite's backup: consistent while others write, who never wait for it (write-ahead log).
"""

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from studies.database.storage import BUSY_TIMEOUT_SECONDS
from studies.errors import UserError

RENEW_SECONDS = 5


class Snapshot:
    """The copy of ``original`` at ``path``, in ``folder``; readers may keep it open.

    Raises:
        UserError: the first copy can't be made.
    """

    def __init__(self, original: Path, folder: Path) -> None:
        self.original = original.resolve()
        self.path = folder / "snapshot.db"
        self._one_at_a_time = threading.Lock()
        self._copied: object = None
        self._due = 0.0
        try:
            self.renew()
            with closing(sqlite3.connect(self.path)) as copy:
                # Readers of the copy go on with the old state while the next one is written.
                copy.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            raise UserError(
                f"No snapshot of {original} in {folder} ({error}); "
                "the environment variable TMPDIR names another folder for it."
            ) from None

    def renew(self) -> None:
        """Copy anew if the original has changed, but at most every ``RENEW_SECONDS``.

        From several threads one does it, and the others go on with what there is.

        Raises:
            sqlite3.Error: the copy can't be made; it stays as it was.
        """
        if time.monotonic() < self._due or not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            found = self._state()
            if found != self._copied:
                self._copy()
                self._copied = found
        finally:
            self._due = time.monotonic() + RENEW_SECONDS
            self._one_at_a_time.release()

    def _copy(self) -> None:
        # Opened for this alone: a connection that stays would keep the workers from folding the
        # log into the database when they end.
        source = f"file:{quote(str(self.original))}?mode=ro"
        with (
            closing(sqlite3.connect(source, uri=True, timeout=BUSY_TIMEOUT_SECONDS)) as original,
            closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECONDS)) as copy,
        ):
            copy.execute("PRAGMA synchronous=OFF")
            original.backup(copy)

    def _state(self) -> list[tuple[int, int, int]]:
        """What differs after every commit: it writes to the database or to its log."""
        found = []
        for suffix in ("", "-wal"):
            try:
                file = os.stat(f"{self.original}{suffix}")
            except FileNotFoundError:
                continue
            found.append((file.st_ino, file.st_mtime_ns, file.st_size))
        return found
