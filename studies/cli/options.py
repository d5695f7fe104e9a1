"""Flags that several commands share or that take many lines, each defined once.

Knows their texts, not what they do.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from studies.settings import DEFAULTS


def option(text: str, default: object = None, **given: Any) -> Any:
    """A flag with a text for the help, and what is taken where it is left out."""
    # Escaped: rich takes what stands in brackets for markup and shows nothing.
    shown = "" if default is None else rf" \[default: {default}]"
    return typer.Option(*given.pop("flags", ()), help=f"{text}{shown}", **given)


SOURCES = "Folder of images, .npz, folder of .npy, .csv manifest, medmnist:NAME or phantom."
Storage = Annotated[str, typer.Option(help="Database URL, or a SQLite file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A study; without one: all studies.")
]
Named = Annotated[str | None, typer.Option("--name", help="The same as NAME.")]
GroupPattern = Annotated[
    str | None,
    option("Regular expression on file names: images of one group (patient) stay together."),
]
AllowLeakage = Annotated[
    bool, typer.Option("--allow-leakage", help="Go on with images or subjects in two splits.")
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that can't be read.")
]
DropDuplicates = Annotated[
    bool,
    typer.Option(
        "--drop-duplicates", help="Of images in two splits keep the copy that is trained on."
    ),
]
Set = Annotated[
    list[str] | None,
    option("Give a parameter anew, as learning_rate@fine_tuning=1e-6..1e-3.", flags=["--set"]),
]
Backbones = Annotated[
    str | None, option("Backbones, comma-separated; torchvision:NAME and timm:NAME as well.")
]
BackboneModule = Annotated[
    Path | None, option("Python file with backbones of your own. Its code is run.")
]
Strategies = Annotated[
    str | None, option("feature_extraction, fine_tuning, or both, comma-separated.")
]
ImageSize = Annotated[
    int | None, option("Side of the square images in pixels.", DEFAULTS["image_size"])
]
Resize = Annotated[
    str | None,
    option("How images become squares: squeeze, pad or crop.", DEFAULTS["resize"]),
]
Metric = Annotated[
    str | None, option("accuracy, balanced_accuracy, auroc, f1 or loss.", DEFAULTS["metric"])
]
ChooseBy = Annotated[
    str | None,
    option(
        "What chooses epochs, trials and candidates on validation images: metric, or "
        "calibrated_loss (log loss at its best temperature).",
        DEFAULTS["choose_by"],
    ),
]
NumViews = Annotated[
    int | None,
    option(
        "Views of each training image, itself one.",
        DEFAULTS["num_views"],
        flags=["--views", "--num-views"],
    ),
]
Share = Annotated[
    str | None,
    option(
        "trials or seconds: of what each strategy has an equal share; with seconds the order "
        "depends on the clock.",
        DEFAULTS["share"],
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Run configurations that failed again, once each."),
]
Flip = Annotated[
    str | None,
    option("How views may be mirrored: none, horizontal or both.", DEFAULTS["flip"]),
]
NoConfirm = Annotated[bool, typer.Option("--no-confirm", help="Don't repeat the best over seeds.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Don't write reports/NAME.")]
Top = Annotated[
    int | None, option("Best configurations of each strategy to confirm.", "2; demo 1")
]
Seeds = Annotated[int | None, option("Seeds to confirm each with.", "3")]
Choose = Annotated[
    str | None,
    option("best mean, or cheapest within one standard error of the difference.", "best"),
]
Resplit = Annotated[
    bool | None,
    typer.Option("--resplit/--no-resplit", help="Draw validation images anew for every seed."),
]
Margin = Annotated[
    float | None,
    option(
        "Difference between strategies that would matter, declared before confirming.",
        "0.02 for 2 points; of loss 2 % of the entropy of the class shares",
    ),
]
Precision = Annotated[
    str | None,
    option("auto, fp32, bf16 or fp16, for trained layers.", DEFAULTS["precision"]),
]
WeightsDir = Annotated[Path | None, option("Folder with NAME.safetensors or NAME.pth.")]
CacheDir = Annotated[
    Path | None,
    option("Folder of decoded images and features.", "STUDIES_CACHE_DIR, else the user's"),
]
CacheLimit = Annotated[
    str | None,
    option("Most bytes of activations kept, as 2GB; 0: none, nor used.", "half of what is free"),
]
