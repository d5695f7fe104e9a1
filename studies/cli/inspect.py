"""The commands that look and change nothing of a study: data, backbones, spaces, cache.

Argv -> options -> one call, as in `cli`. No logic.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from studies.cli.main import print_json, stdout
from studies.cli.options import (
    SOURCES,
    AllowLeakage,
    AsJson,
    BackboneModule,
    Backbones,
    CacheDir,
    Debug,
    DropDuplicates,
    GroupPattern,
    ImageSize,
    Resize,
    Set,
    SkipUnreadable,
    Strategies,
    WeightsDir,
    option,
)

look = typer.Typer()


@look.command()
def data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCES)],
    group_pattern: GroupPattern = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Show what may spoil a study; exit code 2 for errors."),
    ] = False,
    allow_leakage: AllowLeakage = False,
    skip_unreadable: SkipUnreadable = False,
    drop_duplicates: DropDuplicates = False,
    preview: Annotated[
        Path | None, option("Save training images of every class as this PNG file.")
    ] = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    backbone_module: BackboneModule = None,
    weights_dir: WeightsDir = None,
    cache_dir: CacheDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Classes, splits, sizes and groups of a source, and what `run` will do with it."""
    from studies.search.preview import check_data, look_at_data
    from studies.settings import read_options
    from studies.terminal.data import print_card, print_check, print_outlook
    from studies.terminal.progress import start_progress

    given = given_values(
        data=source,
        group_pattern=group_pattern,
        allow_leakage=allow_leakage,
        skip_unreadable=skip_unreadable,
        drop_duplicates=drop_duplicates,
        image_size=image_size,
        resize=resize,
        backbone_module=backbone_module,
        weights_dir=weights_dir,
        cache_dir=cache_dir,
    )
    options = read_options(given)
    if check:
        with start_progress() as progress:
            checked = check_data(options, progress)
        if json_:
            print_json(checked.as_json())
        else:
            print_check(stdout(), checked)
        checked.refuse()
        return
    with start_progress() as progress:
        found = look_at_data(options, preview, progress)
    if json_:
        print_json(found)
        return
    print_card(stdout(), found)
    print_outlook(stdout(), found["run"])
    if preview is not None:
        stdout().print(f"Training images: {preview}", markup=False, soft_wrap=True)


@look.command()
def backbones(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Without one: the table.")
    ] = None,
    backbone_module: BackboneModule = None,
    measure: Annotated[bool, typer.Option("--measure", help="Images a second, here.")] = False,
    image_size: ImageSize = None,
    weights_dir: WeightsDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Task A's table: layers, parameters, GMACs, ImageNet accuracy, weights at hand or how to."""
    from studies.search.preview import look_at_backbones
    from studies.terminal.backbones import print_backbones
    from studies.terminal.progress import start_progress

    with start_progress() as progress:
        rows = look_at_backbones(
            names or [],
            module=backbone_module,
            weights_dir=weights_dir,
            measure=measure,
            image_size=image_size,
            progress=progress,
        )
    if json_:
        print_json({"backbones": rows})
    else:
        print_backbones(stdout(), rows)


@look.command()
def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="Without one: those shipped.")
    ] = None,
    set_: Set = None,
    backbones: Backbones = None,
    backbone_module: BackboneModule = None,
    strategies: Strategies = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """The search spaces; or one with its ranges, conditions, baselines and size."""
    from studies.terminal.spaces import (
        look_at_space,
        presets_json,
        print_presets,
        print_space,
        space_json,
    )

    given = given_values(
        space=name,
        set=set_,
        backbones=backbones,
        backbone_module=backbone_module,
        strategies=strategies,
    )
    if not given:
        if json_:
            print_json(presets_json())
        else:
            print_presets(stdout())
        return
    space = look_at_space(given)
    if json_:
        print_json(space_json(space))
    else:
        print_space(stdout(), space)


@look.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Free it; studies may run.")] = False,
    cache_dir: CacheDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """What is kept of images and activations, how much room it takes; or free it."""
    from studies.terminal.cache import look_at_cache, print_cache

    found = look_at_cache(cache_dir, free=clear)
    if json_:
        print_json(found)
    else:
        print_cache(stdout(), found)


def given_values(**values: Any) -> dict[str, Any]:
    """The options that were given, out of all that a command has."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value != []
    }
