"""Backbones from a Python file: run only when its user gives it, and not without a word."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.errors import UserError
from transfer.backbones.find import backbones_from_file


@dataclass(frozen=True, kw_only=True)
class OwnBackbones:
    """The names that a file defines, and which file it was."""

    names: tuple[str, ...]
    file: str
    sha256: str

    def as_json(self) -> dict[str, str]:
        """What is stored with a study: enough to know the file again, not to run it."""
        return {"file": self.file, "sha256": self.sha256}


def run_module(path: Path, say: Callable[[str], None]) -> OwnBackbones:
    """Run the file, so that its backbones are known by name in this process; ``say`` tells it.

    Raises:
        ValueError: there is no such file, or it defines no backbones that work.
    """
    if not path.is_file():
        raise UserError(f"No file {path}; --backbone-module takes a Python file.")
    say(f"Running the code in {path}, for its backbones.")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    names = backbones_from_file(path)
    return OwnBackbones(names=names, file=str(path.resolve()), sha256=sha256)


def check_stored(stored: Mapping[str, Any] | None, given: Path | None, name: str) -> None:
    """Refuse to go on with a study whose backbones come from a file, without that same file.

    A stored study names its file, but only the user may have it run: nothing loads code from data.
    """
    if stored is None:
        return
    if given is None:
        raise UserError(
            f"Study '{name}' has backbones from {stored['file']}; give --backbone-module FILE "
            "again to let that code run."
        )
    if given.is_file() and hashlib.sha256(given.read_bytes()).hexdigest() != stored["sha256"]:
        raise UserError(f"{given} has changed since the study was created; choose another --name.")
