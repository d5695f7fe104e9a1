"""The command line: argv -> options -> one call. No logic; errors become one line and a code."""

import json
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from studies.exits import exit_code
from studies.flags import (
    SOURCES,
    AsJson,
    BackboneModule,
    Backbones,
    CacheDir,
    CacheLimit,
    Debug,
    GroupPattern,
    ImageSize,
    Metric,
    Name,
    NoConfirm,
    NumViews,
    Precision,
    Set,
    Storage,
    Strategies,
    WeightsDir,
    option,
)
from studies.settings import DEFAULTS
from studies.signals import Interrupted
from studies.storage import DEFAULT_STORAGE

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Hyperparameter studies of transfer learning on small image data sets.",
)


@app.command()
def run(
    name: Annotated[str | None, option("Name of the study.", "from the data")] = None,
    data: Annotated[str | None, option(SOURCES, "phantom")] = None,
    group_pattern: GroupPattern = None,
    space: Annotated[
        str | None, option("Search space: a preset or a TOML file.", "default; demo with phantom")
    ] = None,
    set_: Set = None,
    backbones: Backbones = None,
    backbone_module: BackboneModule = None,
    strategies: Strategies = None,
    trials: Annotated[int | None, option("Trials in total.", DEFAULTS["trials"])] = None,
    timeout: Annotated[
        float | None, option("Seconds of trials in total; no new trial behind that.")
    ] = None,
    epochs: Annotated[int | None, option("Most epochs a trial.", DEFAULTS["epochs"])] = None,
    patience: Annotated[
        int | None, option("Epochs without a better one that end a trial.", DEFAULTS["patience"])
    ] = None,
    metric: Metric = None,
    image_size: ImageSize = None,
    num_views: NumViews = None,
    seed: Annotated[int | None, option("Seed of search and training.", DEFAULTS["seed"])] = None,
    storage: Storage = DEFAULT_STORAGE,
    weights: Annotated[
        str | None, option("imagenet, or random as a control.", DEFAULTS["weights"])
    ] = None,
    weights_dir: WeightsDir = None,
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1.", DEFAULTS["device"])] = None,
    precision: Precision = None,
    cache_dir: CacheDir = None,
    cache_limit: CacheLimit = None,
    sampler: Annotated[str | None, option("tpe or random.", DEFAULTS["sampler"])] = None,
    pruner: Annotated[str | None, option("median or none.", DEFAULTS["pruner"])] = None,
    no_confirm: NoConfirm = False,
    config: Annotated[Path | None, option("TOML file with these options; flags win.")] = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search: run a study, or go on with it. Without arguments: the built-in phantom."""
    given = {
        key: value
        for key, value in locals().items()
        if value is not None and key not in ("no_confirm", "config", "json_", "debug", "set_")
    }
    if set_:
        given["set"] = set_
    if storage == DEFAULT_STORAGE:
        del given["storage"]
    if no_confirm:
        given["confirm"] = False
    _run(given, config, as_json=json_)


def _run(given: dict[str, Any], config: Path | None, *, as_json: bool) -> None:
    from studies.progress import start_progress
    from studies.runner import run_study
    from studies.settings import read_options
    from studies.signals import StopSignals
    from studies.tables import print_summary, resume_command, summary_json

    options = read_options(given, config)
    named: list[str] = []
    try:
        with StopSignals() as signals, start_progress() as progress:
            summary = run_study(options, progress, signals, named.append)
    except Interrupted:
        name = named[0] if named else options.name
        again = resume_command(name, options.storage) if name else "the same command again"
        _stderr(f"Stopped; what is finished is stored. Go on with: {again}")
        raise
    if as_json:
        _print_json(summary_json(summary))
    else:
        print_summary(_stdout(), summary)


@app.command()
def status(
    name: Name = None,
    storage: Storage = DEFAULT_STORAGE,
    named: Annotated[str | None, typer.Option("--name", help="The same as NAME.")] = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Studies in the database, or the trials of one. Never creates a database."""
    from studies.status import print_status, status_json

    if json_:
        _print_json(status_json(storage, name or named))
    else:
        print_status(_stdout(), storage, name or named)


@app.command()
def data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCES)],
    group_pattern: GroupPattern = None,
    preview: Annotated[
        Path | None, option("Save training images of every class as this PNG file.")
    ] = None,
    image_size: ImageSize = None,
    backbone_module: BackboneModule = None,
    weights_dir: WeightsDir = None,
    cache_dir: CacheDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Classes, splits, sizes and groups of a source, and what `run` will do with it."""
    from studies.data_card import print_card
    from studies.outlook import look_at_data, print_outlook
    from studies.progress import start_progress
    from studies.settings import read_options

    given = _given(
        data=source,
        group_pattern=group_pattern,
        image_size=image_size,
        backbone_module=backbone_module,
        weights_dir=weights_dir,
        cache_dir=cache_dir,
    )
    options = read_options(given)
    with start_progress() as progress:
        found = look_at_data(options, preview, progress)
    if json_:
        _print_json(found)
        return
    print_card(_stdout(), found)
    print_outlook(_stdout(), found["run"])
    if preview is not None:
        _stdout().print(f"Training images: {preview}", markup=False, soft_wrap=True)


@app.command()
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
    from studies.backbone_table import look_at_backbones, print_backbones
    from studies.progress import start_progress

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
        _print_json({"backbones": rows})
    else:
        print_backbones(_stdout(), rows)


@app.command()
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
    from studies.space_table import (
        look_at_space,
        presets_json,
        print_presets,
        print_space,
        space_json,
    )

    given = _given(
        space=name,
        set=set_,
        backbones=backbones,
        backbone_module=backbone_module,
        strategies=strategies,
    )
    if not given:
        if json_:
            _print_json(presets_json())
        else:
            print_presets(_stdout())
        return
    space = look_at_space(given)
    if json_:
        _print_json(space_json(space))
    else:
        print_space(_stdout(), space)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Free it; studies may run.")] = False,
    cache_dir: CacheDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """What is kept of images and activations, how much room it takes; or free it."""
    from studies.cache_table import look_at_cache, print_cache

    found = look_at_cache(cache_dir, free=clear)
    if json_:
        _print_json(found)
    else:
        print_cache(_stdout(), found)


@app.command()
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(min=1, max=65000, help="First port to try.")] = 8080,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Don't open a browser.")
    ] = False,
    debug: Debug = False,
) -> None:
    """optuna-dashboard on this database, on 127.0.0.1 only."""
    from studies.dashboard import serve

    serve(storage, port, open_browser=not no_browser, announce=_stderr)


def _given(**values: Any) -> dict[str, Any]:
    """The options that were given, out of all that a command has."""
    return {name: value for name, value in values.items() if value not in (None, [])}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 the user's error, 1 a failure, 130 Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    warnings.filterwarnings("ignore", module="optuna")
    run_app = partial(app, argv, prog_name="python -m studies", standalone_mode=False)
    return exit_code(run_app, argv, _stderr)


def _stdout() -> Console:
    return Console(highlight=False)


def _stderr(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
