"""The table of backbones: layers, size, cost, accuracy, where weights are, and speed if measured.

Knows backbones by their description; knows neither studies nor data. Loads torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from studies.search.places import run_module
from studies.settings import DEFAULTS, read_options
from studies.watchers import Progress
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.custom import installed_names
from transfer.backbones.find import find_spec
from transfer.device import choose_device
from transfer.training.throughput import OnProgress, measure_throughput
from transfer.weights.find import weights_at_hand, weights_hint

COLUMNS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "name": ("backbone", str),
    "layers": ("layers", str),
    "parameters": ("parameters\n(millions)", lambda count: f"{count / 1e6:.1f}"),
    "gmacs": ("GMACs", lambda gmacs: f"{gmacs:.2f}"),
    "imagenet_accuracy": (
        "ImageNet\ntop-1 (%)",
        lambda percent: "-" if percent is None else f"{percent:.1f}",
    ),
    "images_per_second_frozen": ("images/s\nfrozen", lambda rate: f"{rate:.0f}"),
    "images_per_second_training": ("images/s\ntraining", lambda rate: f"{rate:.0f}"),
    "weights": ("weights", str),
}
TEXT = ("name", "weights")


def look_at_backbones(
    names: Sequence[str],
    *,
    module: Path | None,
    weights_dir: Path | None,
    measure: bool,
    image_size: int | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return the rows of `backbone_rows`, those of the file `module` with them.

    The file's code is run, and `progress` says so. Raises ValueError as `backbone_rows` does, and
    for an image size that no study takes.
    """
    given = {} if image_size is None else {"image_size": image_size}
    size = read_options(given).image_size or DEFAULTS["image_size"]
    own = () if module is None else run_module(module, progress).names
    return backbone_rows(
        names or (*BACKBONES, *own, *installed_names()),
        weights_dir=weights_dir,
        measure=measure,
        image_size=size,
        on_progress=progress.work,
    )


def backbone_rows(
    names: Iterable[str] = (),
    *,
    weights_dir: Path | None = None,
    measure: bool = False,
    image_size: int = 224,
    device: str = "auto",
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[dict[str, Any]]:
    """Return one row for each backbone, for the whole table if no names are given.

    Keys: `name`, `layers`, `parameters`, `gmacs` (10^9 at 224 x 224, or at the only size it
    takes), `imagenet_accuracy` (percent or None), `weights` (where they are or how to get them),
    `at_hand`; with `measure` also `images_per_second_frozen` and `images_per_second_training` at
    `image_size` pixels. Raises ValueError, one line, for an unknown backbone.
    """
    rows = [_described(name, weights_dir) for name in names or BACKBONES]
    if measure:
        chosen = choose_device(device)
        for row in rows:
            measured = measure_throughput(
                row["name"], image_size=image_size, device=chosen, on_progress=on_progress
            )
            row |= vars(measured)
    return rows


def _described(name: str, weights_dir: Path | None) -> dict[str, Any]:
    spec = find_spec(name)
    return {
        "name": name,
        "layers": spec.depth,
        "parameters": spec.num_parameters,
        "gmacs": spec.gmacs,
        "imagenet_accuracy": spec.imagenet_accuracy,
        "weights": weights_hint(name, weights_dir),
        "at_hand": weights_at_hand(name, weights_dir),
    }


def print_backbones(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows as a table, of 80 columns if nothing was measured, and how to read it."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    keys = [key for key in COLUMNS if all(key in row for row in rows)]
    for key in keys:
        is_text = key in TEXT
        table.add_column(
            COLUMNS[key][0],
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
            min_width=len("mobilenet_v3_large") if key == "name" else None,
        )
    for row in rows:
        table.add_row(*(COLUMNS[key][1](row[key]) for key in keys))
    console.print(table, markup=False)
    console.print(
        "Layers can be unfrozen one by one, from the last. GMACs: 10^9 multiply-accumulates for "
        "an image of 224 x 224 pixels, or of the size that the weights were trained at. "
        "Others: torchvision:NAME, timm:NAME.",
        markup=False,
    )
