"""Which space is searched: a preset or a file, narrowed and overridden as the options say.

Needs torch only for backbones that are not in the table.
"""

from search_spaces import SearchSpace, load_space
from search_spaces.overrides import with_overrides
from studies.settings import StudyOptions
from transfer.backbones.catalog import Depths


def chosen_space(
    options: StudyOptions, *, default: str = "default", own: tuple[str, ...] = ()
) -> SearchSpace:
    """The space that ``options`` describe.

    Args:
        default: the space where none is named.
        own: backbones of the user's, searched beside the space's where none are named.

    Raises:
        ValueError: no such space or backbone, or a law is broken.
    """
    depths = Depths()
    space = load_space(options.space or default, depths)
    backbones = options.backbones
    if own and backbones is None:
        backbones = (*space.backbones, *own)
    space = space.narrowed(backbones=backbones, strategies=options.strategies, depths=depths)
    return with_overrides(space, options.set or ())
