"""Studies of transfer learning on small image data sets: search, compare, explain.

The command line is ``python -m studies``; the same things from Python: ``run``, ``trials``,
``export_bundle``, ``evaluate_bundle``, ``predict_images``, ``rename_study``, ``delete_study``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.bundle.export import Exported
    from studies.bundle.predict import Prediction
    from studies.database.trials import trials
    from studies.database.upkeep import delete_study, rename_study
    from studies.evaluation.evaluate import Evaluated
    from studies.results.study import RunSummary

__all__ = [
    "delete_study",
    "evaluate_bundle",
    "export_bundle",
    "predict_images",
    "rename_study",
    "run",
    "trials",
]


def run(**options: Any) -> "RunSummary":
    """Run a study, or go on with one; options are those of ``python -m studies run``.

    Raises:
        ValueError: something asked for is wrong, out of reach or different from before.
        StudyFailedError: trials ran and none is complete.
    """
    from studies import workflow
    from studies.settings import read_options
    from studies.signals import StopSignals
    from studies.terminal.progress import LineProgress

    with StopSignals() as signals:
        return workflow.run(read_options(options), LineProgress(), signals)


def export_bundle(name: str | None = None, **options: Any) -> "Exported":
    """Write the bundle of a study's confirmed configuration; options are those of `export`.

    Raises:
        ValueError: nothing is confirmed, or something asked for is wrong or missing.
        StudyFailedError: the refit, or writing the network as ONNX, failed.
    """
    from studies.bundle.export import ExportOptions, export_study
    from studies.terminal.progress import LineProgress

    return export_study(ExportOptions(name=name, **_with_places(options)), LineProgress())


def evaluate_bundle(bundle: Path | str, **options: Any) -> "Evaluated":
    """Open the test images of a bundle's study, once; options are those of `evaluate`.

    Raises:
        ValueError: something is missing or not the study's, or the test images were opened before.
    """
    from studies import workflow
    from studies.evaluation.evaluate import EvaluateOptions
    from studies.signals import StopSignals
    from studies.terminal.progress import LineProgress

    given = EvaluateOptions(bundle=Path(bundle), **_with_places(options))
    with StopSignals() as signals:
        return workflow.evaluate(given, LineProgress(), signals)


def predict_images(
    bundle: Path | str,
    images: Sequence[Path | str],
    *,
    device: str = "auto",
    backbone_module: Path | None = None,
) -> "list[Prediction]":
    """Class and probabilities of image files, and of those in folders, by a bundle's model.

    Raises:
        ValueError: the bundle is damaged, or something is no image.
    """
    from studies.bundle.bundle import read_bundle
    from studies.bundle.predict import image_paths, predict
    from studies.terminal.progress import LineProgress
    from transfer.device import choose_device, make_deterministic, num_threads

    chosen = choose_device(device)
    make_deterministic(num_threads(), chosen)
    progress = LineProgress()
    paths = image_paths([Path(image) for image in images])
    loaded = read_bundle(Path(bundle), backbone_module=backbone_module, progress=progress)
    return predict(loaded, paths, chosen, progress)


def _with_places(options: dict[str, Any]) -> dict[str, Any]:
    """The options with those that say where things are on this machine put together."""
    from studies.bundle.reproduce import Places

    names = ("data", "weights_dir", "cache_dir", "device")
    places = {name: options.pop(name) for name in names if name in options}
    for folder in ("weights_dir", "cache_dir"):
        if places.get(folder) is not None:
            places[folder] = Path(places[folder])
    return {**options, "places": Places(**places)}


def __getattr__(name: str) -> Any:
    # Reading records needs pandas and Optuna: not at the import of the package.
    if name == "trials":
        from studies.database.trials import trials

        return trials
    if name in ("delete_study", "rename_study"):
        from studies.database import upkeep

        return getattr(upkeep, name)
    raise AttributeError(f"module 'studies' has no attribute '{name}'")
