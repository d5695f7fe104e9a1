"""Ctrl-C and SIGTERM: at once where work may be broken off, at the next check elsewhere.

Knows nothing of what is interrupted.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The process was asked to stop. ``exit_code`` is 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class StopSignals:
    """While entered, a signal raises ``Interrupted`` inside ``interruptible`` blocks alone.

    Elsewhere (a database transaction, say) it is remembered for ``check``. A second signal changes
    nothing: what is under way by then takes milliseconds.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._open = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        # Only the main thread may set handlers; in another one the program that calls us decides.
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = signum
            if self._open:
                raise Interrupted(signum)

    def check(self) -> None:
        """Raise ``Interrupted`` if a signal has come."""
        if self._received is not None:
            raise Interrupted(self._received)

    @contextmanager
    def interruptible(self, allowed: bool = True) -> Iterator[None]:
        """A block that a signal breaks off at once; with ``allowed=False`` one that it doesn't."""
        before, self._open = self._open, allowed
        try:
            if allowed:
                self.check()
            yield
        finally:
            self._open = before
