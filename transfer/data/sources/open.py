"""From what the user wrote to a source: which of the kinds it is. Each kind has its own module.

Opens no image: what is found out needs names, headers and labels only.
"""

import os
from pathlib import Path

from transfer.data.sources.arrays import array_items, open_npy_folder, open_npz
from transfer.data.sources.folders import open_folder
from transfer.data.sources.items import Items, Source, refuse_pattern
from transfer.data.sources.manifest import open_manifest
from transfer.data.sources.medmnist import open_medmnist
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images

__all__ = ["Items", "Source", "open_source"]

WHAT_DATA_TAKES = (
    "--data takes a folder of images (train/CLASS/ and test/CLASS/, or only CLASS/), an .npz file "
    "with train_images, train_labels, .., a folder of CLASS.npy files, a .csv manifest with "
    "path,label, medmnist:NAME, or phantom"
)
SPLIT_FOLDERS = ("train", "val", "test")


def open_source(text: str, *, group_pattern: str | None = None) -> Source:
    """Find out what the data source ``text`` offers.

    ``group_pattern`` is a regular expression that finds in a file's name whose picture it is.

    Raises:
        ValueError: no such data, no images, classes missing; the message names the way out.
    """
    if text == "phantom" or text.startswith("phantom:"):
        refuse_pattern(group_pattern, text)
        return _phantom(text)
    if text.startswith("medmnist:"):
        refuse_pattern(group_pattern, text)
        return open_medmnist(text)
    try:
        return _from_path(text, Path(os.path.expanduser(text)), group_pattern)
    except OSError as error:
        raise ValueError(f"{text} can't be read ({error.strerror or error}).") from None


def _from_path(text: str, path: Path, group_pattern: str | None) -> Source:
    if text and os.path.isdir(path):
        if _holds_arrays(path, text):
            refuse_pattern(group_pattern, text)
            return open_npy_folder(path)
        return open_folder(path, text, group_pattern)
    if os.path.isfile(path) and path.suffix.lower() == ".npz":
        refuse_pattern(group_pattern, text)
        return open_npz(path)
    if os.path.isfile(path) and path.suffix.lower() == ".csv":
        return open_manifest(path, group_pattern)
    problem = f"Can't use {text!r}" if text and os.path.exists(path) else f"No data at {text!r}"
    raise ValueError(f"{problem}; {WHAT_DATA_TAKES}.")


def _holds_arrays(folder: Path, text: str) -> bool:
    """Whether it is a folder of .npy files; one that is also a folder of folders is refused."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any((folder / split).is_dir() for split in SPLIT_FOLDERS):
        return False
    arrays = sorted(path.name for path in found if path.suffix == ".npy")
    folders = sorted(path.name for path in found if path.is_dir())
    if arrays and folders:
        raise ValueError(
            f"{text} holds both .npy files ({arrays[0]}) and folders ({folders[0]}), so that its "
            "classes are unclear; move the ones or the others elsewhere."
        )
    return bool(arrays)


def _phantom(text: str) -> Source:
    spec = parse_phantom(text)
    return Source(
        text=text,
        name="phantom",
        kind="phantom",
        classes=class_names(spec),
        splits={
            "train": array_items("train", *phantom_images(spec, "train")),
            "test": array_items("test", *phantom_images(spec, "test")),
        },
        natural_size=spec.size,
    )
