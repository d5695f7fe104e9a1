"""The precision of a study's trained layers: decided when it is created, and said."""

from pathlib import Path

import torch

from search_spaces import SearchSpace
from studies.database.study import StudyRecord
from studies.settings import StudySettings
from studies.watchers import Progress
from transfer.config import Strategy
from transfer.training.precision import choose_precision, describe_precision

# Studies created before there was this setting trained in float32, not in its default.
BEFORE = {"precision": "fp32"}


def chosen_precision(
    settings: StudySettings,
    space: SearchSpace,
    device: torch.device,
    cache_dir: Path,
    stored: StudyRecord | None,
    progress: Progress,
) -> dict[str, str]:
    """The precision of each backbone: as stored, whatever this machine would choose, or anew.

    Raises:
        ValueError: this device can't train in the precision that was asked for.
    """
    precision: dict[str, str] = {}
    if stored is not None:
        precision = stored.identity.get("precision", {})
    elif Strategy.FINE_TUNING in space.strategies:
        for backbone in space.backbones:
            precision[backbone] = choose_precision(
                settings.precision,
                backbone,
                device,
                image_size=settings.image_size,
                cache_dir=cache_dir,
                on_progress=progress.work,
            )
    said = describe_precision(precision)
    if said is not None:
        way_out = "" if stored else " (--precision fp32 turns it off)"
        progress.message(f"{said}{way_out}.")
    return precision
