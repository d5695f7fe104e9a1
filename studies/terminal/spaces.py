"""`spaces`: a search space as a person reads it, with its conditions, baselines and size."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from search_spaces import Baseline, SearchSpace, load_space, preset_names
from studies.errors import UserError
from studies.settings import read_options
from studies.spaces import (
    Depths,
    chosen_space,
    is_searched,
    number_text,
    parameter_rows,
    size_words,
)
from studies.terminal.progress import LineProgress
from transfer.config import TITLES


def look_at_space(given: Mapping[str, Any]) -> SearchSpace:
    """The space that options describe.

    Raises:
        ValueError: a space isn't named, or something of it is wrong.
    """
    if "space" not in given:
        raise UserError("Name a space: python -m studies spaces NAME|FILE, with these options.")
    options = read_options(given)
    own: tuple[str, ...] = ()
    if options.backbone_module is not None:
        from studies.backbone_module import run_module

        own = run_module(options.backbone_module, LineProgress().message).names
    return chosen_space(options, own=own)


def print_presets(console: Console) -> None:
    """The spaces that are shipped, a line each."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for column in ("space", "backbones", "searched", "size"):
        table.add_column(column, overflow="fold")
    for name in preset_names():
        space = load_space(name, Depths())
        size = space.size()
        names = dict.fromkeys(p.name for p in space.parameters[2:] if is_searched(p))
        table.add_row(
            name,
            ", ".join(space.backbones),
            ", ".join(names),
            "continuous" if size is None else f"{size:,}",
        )
    console.print(table)
    console.print("One in full: python -m studies spaces NAME; your own: a TOML file (README).")


def print_space(console: Console, space: SearchSpace) -> None:
    """One space in full."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1), title_justify="left")
    table.title = f"Space {escape(space.name)}"
    for column in ("parameter", "strategy", "values"):
        table.add_column(column, overflow="fold")
    for row in parameter_rows(space):
        table.add_row(*row)
    console.print(table)
    if space.baselines:
        console.print(f"\nBaselines, run beside what is sampled, on {space.backbones[0]}:")
    for baseline in space.baselines:
        console.print(Padding(_baseline(baseline), (0, 0, 0, 2)))
    for key, value in space.suggested.items():
        console.print(
            f"Suggests {value} {key}." if key != "image_size" else f"Suggests {value} px."
        )
    console.print(f"\n{size_words(space)}")


def _baseline(baseline: Baseline) -> str:
    given = {k: number_text(v) for k, v in (baseline.model_extra or {}).items()}
    if baseline.depth_share is not None:
        given["num_unfrozen_layers"] = f"{baseline.depth_share:.0%} of the depth"
    return ", ".join([TITLES[baseline.strategy], *(f"{k} {v}" for k, v in given.items())])


def space_json(space: SearchSpace) -> dict[str, Any]:
    """`spaces NAME --json`."""
    return {
        "space": space.name,
        "parameters": [p.model_dump(exclude_none=True) for p in space.parameters],
        "depths": {name: space.depths[name] for name in space.backbones},
        "baselines": [
            space.baseline_configuration(b, space.backbones[0]) for b in space.baselines
        ],
        "suggested": space.suggested,
        "size": space.size(),
        "num_combinations": space.num_combinations(),
    }


def presets_json() -> dict[str, Any]:
    """`spaces --json`."""
    return {"spaces": [space_json(load_space(name, Depths())) for name in preset_names()]}
