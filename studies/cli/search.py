"""The command line: argv -> options -> one call. No logic; errors become one line and a code.

The commands that only look stand in `look`, those around a bundle in `bundle_commands`, those that
delete and rename in `upkeep_commands`.
"""

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.cli.inspect import given_values, look
from studies.cli.main import exit_code, print_json, stderr, stdout
from studies.cli.options import (
    SOURCES,
    AllowLeakage,
    AsJson,
    BackboneModule,
    Backbones,
    CacheDir,
    CacheLimit,
    Choose,
    ChooseBy,
    Debug,
    DropDuplicates,
    Flip,
    GroupPattern,
    ImageSize,
    Margin,
    Metric,
    Name,
    Named,
    NoConfirm,
    NoReport,
    NumViews,
    Precision,
    Resize,
    Resplit,
    RetryFailed,
    Seeds,
    Set,
    Share,
    SkipUnreadable,
    Storage,
    Strategies,
    Top,
    WeightsDir,
    option,
)
from studies.cli.results import bundles
from studies.cli.upkeep import upkeep
from studies.settings import DEFAULT_STORAGE, DEFAULTS
from studies.signals import Interrupted

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
    allow_leakage: AllowLeakage = False,
    skip_unreadable: SkipUnreadable = False,
    drop_duplicates: DropDuplicates = False,
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
    choose_by: ChooseBy = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    num_views: NumViews = None,
    flip: Flip = None,
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
    share: Share = None,
    sampler: Annotated[str | None, option("tpe or random.", DEFAULTS["sampler"])] = None,
    pruner: Annotated[str | None, option("median or none.", DEFAULTS["pruner"])] = None,
    retry_failed: RetryFailed = False,
    no_confirm: NoConfirm = False,
    no_report: NoReport = False,
    top: Top = None,
    seeds: Seeds = None,
    choose: Choose = None,
    resplit: Resplit = None,
    margin: Margin = None,
    config: Annotated[Path | None, option("TOML file with these options; flags win.")] = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search: run a study, or go on with it. Without arguments: the built-in phantom."""
    given = {
        key: value
        for key, value in locals().items()
        if value is not None
        and (value is not False or key == "resplit")
        and key not in ("no_confirm", "no_report", "config", "json_", "debug", "set_")
    }
    if set_:
        given["set"] = set_
    if storage == DEFAULT_STORAGE:
        del given["storage"]
    if no_confirm:
        given["confirm"] = False
    _run(given, config, as_json=json_, with_report=not no_report)


def _run(given: dict[str, Any], config: Path | None, *, as_json: bool, with_report: bool) -> None:
    from studies.terminal.study import print_summary, summary_json
    from studies.workflow import run as run_study

    summary = _work(given, config, run_study, as_json=as_json, command="run")
    written = _report(summary) if with_report else None
    if as_json:
        report = None if written is None else written.as_json()
        print_json({**summary_json(summary), "report": report})
        return
    print_summary(stdout(), summary)
    if written is not None:
        stdout().print(written.lines()[-1], markup=False, soft_wrap=True)


def _report(summary: Any) -> Any:
    """The report of a study that has run, which is none the worse where there can be none."""
    from studies.report.report import write_report
    from studies.results.study import read_evidence

    try:
        return write_report(read_evidence(summary.storage, summary.name))
    except Exception as error:
        stderr(f"No report: {error}")
        return None


def _work(
    given: dict[str, Any], config: Path | None, work: Any, *, as_json: bool, command: str
) -> Any:
    """Do long work with its progress shown; say how to go on where it was stopped."""
    from studies.data_check import DataRefusedError
    from studies.settings import read_options
    from studies.signals import StopSignals
    from studies.terminal.progress import start_progress
    from studies.terminal.study import resume_command

    options = read_options(given, config)
    named: list[str] = []
    try:
        with StopSignals() as signals, start_progress() as progress:
            return work(options, progress, signals, named.append)
    except DataRefusedError as error:
        if as_json:
            print_json(error.as_json)
        raise
    except Interrupted:
        name = named[0] if named else options.name
        again = resume_command(name, options, command) if name else "the same command again"
        stderr(f"Stopped; what is finished is stored. Go on with: {again}")
        raise


@app.command()
def confirm(
    name: Name = None,
    top: Top = None,
    seeds: Seeds = None,
    choose: Choose = None,
    resplit: Resplit = None,
    margin: Margin = None,
    data: Annotated[str | None, option(SOURCES, "the study's")] = None,
    storage: Storage = DEFAULT_STORAGE,
    backbone_module: BackboneModule = None,
    weights_dir: WeightsDir = None,
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1.", DEFAULTS["device"])] = None,
    cache_dir: CacheDir = None,
    cache_limit: CacheLimit = None,
    named: Named = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train the best of each strategy over several seeds, and choose by their mean."""
    from studies.terminal.study import print_verdict, verdict_json
    from studies.workflow import confirm as confirm_stored

    given = given_values(
        name=name or named,
        top=top,
        seeds=seeds,
        choose=choose,
        margin=margin,
        data=data,
        storage=None if storage == DEFAULT_STORAGE else storage,
        backbone_module=backbone_module,
        weights_dir=weights_dir,
        device=device,
        cache_dir=cache_dir,
        cache_limit=cache_limit,
    )
    if resplit is not None:
        given["resplit"] = resplit
    found = _work(given, None, confirm_stored, as_json=json_, command="confirm")
    if json_:
        print_json(verdict_json(found))
    else:
        print_verdict(stdout(), found)


@app.command()
def status(
    name: Name = None,
    storage: Storage = DEFAULT_STORAGE,
    named: Named = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Studies in the database, or the trials of one. Never creates a database."""
    from studies.terminal.status import print_status, status_json

    if json_:
        print_json(status_json(storage, name or named))
    else:
        print_status(stdout(), storage, name or named)


# Their commands stand beside these.
app.add_typer(look)
app.add_typer(bundles)
app.add_typer(upkeep)


@app.command()
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all, and there is no login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="First port to try.")] = 8080,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Don't open a browser.")
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Serve a snapshot that nobody can change (SQLite)."),
    ] = False,
    debug: Debug = False,
) -> None:
    """optuna-dashboard on this database, for this machine alone unless --host says otherwise."""
    from studies.dashboard.server import serve

    serve(
        storage,
        port,
        host=host,
        read_only=read_only,
        open_browser=not no_browser,
        announce=stderr,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 the user's error, 1 a failure, 130 Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    warnings.filterwarnings("ignore", module="optuna")
    run_app = partial(app, argv, prog_name="python -m studies", standalone_mode=False)
    return exit_code(run_app, argv, stderr)
