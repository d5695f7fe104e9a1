"""Where the data, weights and own backbones of a study last were, and finding the same ones again.

A place is stored with the study and tried first; a flag says otherwise. What is found must have
the hash that is stored: a place is a hint. The code of own backbones runs only when its user gives
the file, and not without a word.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.errors import UserError
from studies.watchers import Progress
from transfer.backbones.find import backbones_from_file, find_backbone
from transfer.data.sources.open import Source, open_source
from transfer.weights.find import WeightFile, WeightsNotFoundError, find_weights, weights_in
from transfer.weights.places import local_places


def open_last_source(text: str, group_pattern: str | None) -> Source:
    """The data where they last were.

    Raises:
        UserError: nothing is there any more.
        ValueError: what is there is not taken as data.
    """
    built_in = text.partition(":")[0] in ("phantom", "medmnist")
    if not built_in and not Path(text).expanduser().exists():
        raise UserError(
            f"The study's data were last at {text}, where nothing is now; name their place with "
            "--data."
        )
    return open_source(text, group_pattern=group_pattern)


def find_last_weights(
    backbone: str,
    *,
    weights: str,
    seed: int,
    sha256: str | None,
    last: str | None,
    weights_dir: Path | None,
) -> WeightFile:
    """The weights of a backbone: in ``weights_dir``, where they last were, or wherever they are.

    A folder that has no file of this backbone hides nothing.

    Args:
        sha256: what the file at ``last`` must have, to be taken.

    Raises:
        UserError: they were at ``last`` and are nowhere now.
        WeightsNotFoundError, ValueError: as `find_weights`.
    """
    is_in_folder = False
    if last is not None and weights_dir is not None:
        folder = local_places(find_backbone(backbone), weights_dir)[:2]
        is_in_folder = any(path is not None and path.is_file() for _, path in folder)
    if last is not None and not is_in_folder and Path(last).is_file():
        found = weights_in(backbone, Path(last))
        if found.sha256 == sha256:
            return found
    try:
        return find_weights(backbone, weights=weights, weights_dir=weights_dir, seed=seed)
    except WeightsNotFoundError:
        if last is None:
            raise
        line = f"{were_last_at(backbone, last)} Name their folder with --weights-dir."
        raise UserError(line) from None


def were_last_at(backbone: str, last: str) -> str:
    """A sentence: where the weights were, and what is there now."""
    now = "another file" if Path(last).is_file() else "no file"
    return f"The weights of {backbone} were last at {last}, where {now} is now."


@dataclass(frozen=True, kw_only=True)
class OwnBackbones:
    """The names that a file defines, and which file it was."""

    names: tuple[str, ...]
    file: str
    sha256: str

    def as_json(self) -> dict[str, str]:
        """What is stored with a study: enough to know the file again, not to run it."""
        return {"file": self.file, "sha256": self.sha256}


def run_module(path: Path, progress: Progress) -> OwnBackbones:
    """Run the file, so that its backbones are known by name in this process.

    Raises:
        ValueError: there is no such file, or it defines no backbones that work.
    """
    if not path.is_file():
        raise UserError(f"No file {path}; --backbone-module takes a Python file.")
    progress.message(f"Running the code in {path}, for its backbones.")
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
