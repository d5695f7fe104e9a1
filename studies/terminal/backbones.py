"""The table of backbones: layers, size, cost, accuracy, where weights are, speed if measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

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
