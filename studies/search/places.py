"""Where the data and weights of a study last were, and finding the same ones again.

A place is stored with the study and tried first; a flag says otherwise. What is found must have
the hash that is stored: a place is a hint. Knows no study, and runs no code.
"""

from pathlib import Path

from studies.errors import UserError
from transfer.backbones.find import find_backbone
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
