"""The commands of results: report, export, evaluate, predict, reproduce.

Argv -> options -> one call, as in `cli`. No logic.
"""

from pathlib import Path
from typing import Annotated

import typer

from studies.cli.main import print_json, stdout
from studies.cli.options import (
    SOURCES,
    AsJson,
    BackboneModule,
    CacheDir,
    Debug,
    Named,
    Storage,
    WeightsDir,
    option,
)
from studies.settings import DEFAULT_STORAGE, DEFAULTS

bundles = typer.Typer()

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` made.")]
Device = Annotated[str, option("auto, cpu, cuda, cuda:1.", DEFAULTS["device"], show_default=False)]
BundleStorage = Annotated[str | None, option("Database URL, or a SQLite file.", "the bundle's")]
Data = Annotated[str | None, option(SOURCES, "the study's")]


@bundles.command()
def report(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A study; without one: the latest."),
    ] = None,
    out: Annotated[Path | None, option("Folder of the report.", "reports/NAME")] = None,
    figures: Annotated[
        Path | None, option("Folder for the figures as PNG and SVG, for slides and papers.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    named: Named = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tasks A to E as one HTML file, as Markdown and as CSV tables."""
    from studies.report.report import report_study

    written = report_study(name or named, storage, out=out, figures=figures)
    if json_:
        print_json(written.as_json())
        return
    for line in written.lines():
        stdout().print(line, markup=False, soft_wrap=True)


@bundles.command()
def export(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A study; without one: the latest."),
    ] = None,
    strategy: Annotated[
        str | None, option("feature_extraction or fine_tuning.", "the better one")
    ] = None,
    out: Annotated[Path | None, option("Folder of the bundle.", "NAME-bundle")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train once more, on validation images too.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also as ONNX, held against the network.")
    ] = False,
    data: Data = None,
    storage: Storage = DEFAULT_STORAGE,
    backbone_module: BackboneModule = None,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    named: Named = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """The confirmed configuration as a folder: model, config, card, script."""
    from studies.bundle.export import ExportOptions, export_study
    from studies.bundle.reproduce import Places
    from studies.terminal.progress import start_progress

    options = ExportOptions(
        name=name or named,
        strategy=strategy,
        out=out,
        refit=refit,
        onnx=onnx,
        storage=storage,
        backbone_module=backbone_module,
        places=Places(data=data, weights_dir=weights_dir, cache_dir=cache_dir, device=device),
    )
    with start_progress() as progress:
        exported = export_study(options, progress)
    if json_:
        print_json(exported.as_json())
        return
    for line in exported.lines():
        stdout().print(line, markup=False, soft_wrap=True)


@bundles.command()
def evaluate(
    bundle: Bundle,
    again: Annotated[
        bool, typer.Option("--again", help="Open test images that were opened before.")
    ] = False,
    reason: Annotated[str | None, option("Why again; stays in the ledger.")] = None,
    prevalence: Annotated[
        float | None,
        option("Share of the second of two classes where the model will be used: adds PPV, NPV."),
    ] = None,
    data: Data = None,
    storage: Annotated[
        str | None, option("Database URL, or a SQLite file.", "the bundle's")
    ] = None,
    backbone_module: BackboneModule = None,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """The one final test evaluation: forecast, then both strategies on the test images."""
    from studies.bundle.reproduce import Places
    from studies.evaluation.evaluate import EvaluateOptions
    from studies.signals import StopSignals
    from studies.terminal.evaluation import print_evaluation
    from studies.terminal.progress import start_progress
    from studies.workflow import evaluate as evaluate_shown

    options = EvaluateOptions(
        bundle=bundle,
        again=again,
        reason=reason,
        prevalence=prevalence,
        storage=storage,
        backbone_module=backbone_module,
        places=Places(data=data, weights_dir=weights_dir, cache_dir=cache_dir, device=device),
    )
    with StopSignals() as signals, start_progress() as progress:
        found = evaluate_shown(options, progress, signals)
    if json_:
        print_json(found.as_json())
    else:
        print_evaluation(stdout(), found.opening, found.openings)


@bundles.command()
def predict(
    bundle: Bundle,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...|FOLDER", help="Image files, or folders of them."),
    ],
    csv: Annotated[Path | None, option("Write a row an image to this CSV file.")] = None,
    backbone_module: BackboneModule = None,
    device: Device = "auto",
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Probabilities of the classes for images. What is not an image is refused."""
    from studies.bundle.bundle import read_bundle
    from studies.bundle.predict import (
        image_paths,
        predict,
        predictions_json,
        print_predictions,
        write_csv,
    )
    from studies.terminal.progress import start_progress
    from transfer.device import choose_device, make_deterministic, num_threads

    chosen = choose_device(device)
    make_deterministic(num_threads(), chosen)
    with start_progress() as progress:
        paths = image_paths(images)
        loaded = read_bundle(bundle, backbone_module=backbone_module, progress=progress)
        predictions = predict(loaded, paths, chosen, progress)
    if csv is not None:
        write_csv(csv, loaded, predictions)
    if json_:
        print_json(predictions_json(loaded, predictions))
    elif csv is None:
        print_predictions(stdout(), loaded, predictions)
    else:
        stdout().print(f"{len(predictions)} predictions: {csv}", markup=False, soft_wrap=True)


@bundles.command()
def reproduce(
    bundle: Bundle,
    data: Data = None,
    backbone_module: BackboneModule = None,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a bundle's model again; exit code 1 where another validation metric comes out."""
    from studies.bundle.bundle import read_bundle
    from studies.bundle.reproduce import Places, reproduce
    from studies.terminal.progress import start_progress

    places = Places(data=data, weights_dir=weights_dir, cache_dir=cache_dir, device=device)
    with start_progress() as progress:
        loaded = read_bundle(bundle, backbone_module=backbone_module, progress=progress)
        found = reproduce(loaded, places, progress)
    if json_:
        print_json(found.as_json())
    else:
        for line in found.lines():
            stdout().print(line, markup=False, soft_wrap=True)
    if not found.is_equal:
        raise typer.Exit(1)
