"""Which space is searched: a preset or a file, narrowed and overridden as the options say.

Needs torch only for backbones that are not in the table.
"""

from search_spaces import Parameter, SearchSpace, load_space
from search_spaces.overrides import with_overrides
from studies.settings import StudyOptions
from transfer.backbones.catalog import BACKBONES
from transfer.config import TITLES


class Depths(dict[str, int]):
    """The number of blocks by backbone: lists the table, and looks up every other name when asked.

    Only names outside the table need torch. Looking one up raises ValueError, with the choices or
    with the reason why a network can't be cut into layers.
    """

    def __init__(self) -> None:
        super().__init__({name: spec.depth for name, spec in BACKBONES.items()})

    def __missing__(self, name: str) -> int:
        from transfer.backbones.find import find_spec

        return find_spec(name).depth


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


def parameter_rows(space: SearchSpace) -> list[tuple[str, str, str]]:
    """Name, strategy and values of every parameter that is in use."""
    all_of_them = space.strategies[0] if len(space.strategies) == 1 else None
    return [
        (
            parameter.name,
            TITLES.get(parameter.strategy or all_of_them or "", "both"),
            _values(parameter, space),
        )
        for parameter in space.parameters
        if parameter.strategy in (None, *space.strategies)
    ]


def is_searched(parameter: Parameter) -> bool:
    """Whether more than one value is possible."""
    if parameter.depth_share is not None:
        return False
    is_open = parameter.low is not None and parameter.high is None
    return is_open or len(parameter.values() or (0, 1)) > 1


def _values(parameter: Parameter, space: SearchSpace) -> str:
    if parameter.choices is not None:
        return ", ".join(number_text(choice) for choice in parameter.choices)
    if parameter.depth_share is not None:
        bounded = {b: _bounded(space, b, parameter) for b in space.backbones}
        shown = ", ".join(f"{name} {p.low}" for name, p in bounded.items())
        return f"{parameter.depth_share:.0%} of the layers ({shown})"
    low = number_text(parameter.low or 0)
    if parameter.high is not None:
        return f"{low} to {number_text(parameter.high)}{', logarithmic' if parameter.log else ''}"
    depths = ", ".join(f"{name} {space.depths[name]}" for name in space.backbones)
    return f"{low} to the backbone's depth ({depths})"


def _bounded(space: SearchSpace, backbone: str, parameter: Parameter) -> Parameter:
    below = space.below(backbone, parameter.strategy or "fine_tuning")
    return next(p for p in below if p.name == parameter.name)


def number_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def size_words(space: SearchSpace) -> str:
    """How many configurations there are."""
    size = space.size()
    if size is not None:
        return f"{size:,} configurations."
    continuous = dict.fromkeys(
        p.name
        for backbone in space.backbones
        for strategy in space.strategies
        for p in space.below(backbone, strategy)
        if p.values() is None
    )
    count = space.num_combinations()
    return (
        f"{count:,} combinations of the listed values, times continuous {', '.join(continuous)}."
    )
