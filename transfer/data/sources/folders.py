"""Folders of image files: train/CLASS, test/CLASS and maybe val/CLASS, or only CLASS.

Finds files by their suffix and reads none of them. Hidden files and folders are passed over.
"""

import os
from pathlib import Path

import numpy as np

from transfer.data.decoding import SUFFIXES, decode_image
from transfer.data.sources.items import Items, Source, SplitName, in_class_order, short_name
from transfer.data.splits import find_groups

# What is meant for a split and must not become a class, nor be passed over.
OTHER_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What Windows leaves in folders of pictures.
OF_THE_SYSTEM = frozenset({"thumbs.db", "desktop.ini"})
LAYOUT = (
    "it must hold train/CLASS/ and test/CLASS/ (and may hold val/CLASS/), or only CLASS/ folders, "
    "of which splits are made"
)


def open_folder(root: Path, text: str, group_pattern: str | None = None) -> Source:
    """The source of a folder; the text in messages is the user's.

    Raises:
        ValueError: a split or a class is missing, or the pattern is of no use.
    """
    _refuse_other_names(root)
    given = [split for split in ("train", "test", "val") if (root / split).is_dir()]
    for split in ("train", "test"):
        if given and split not in given:
            raise ValueError(f"{text} has no folder '{split}'; {LAYOUT}.")
    classes = _class_names(root / "train" if given else root)
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        where = root / "train" if given else text
        raise ValueError(
            f"{where} must hold a folder for each of 2 classes or more, has {found}; {LAYOUT}."
        )
    splits: dict[SplitName, Items] = {}
    if given:
        splits["train"] = _items(root, root / "train", classes)
        splits["test"] = _items(root, root / "test", classes)
        if "val" in given:
            splits["val"] = _items(root, root / "val", classes)
    else:
        splits["all"] = _items(root, root, classes)
    splits, num_matched = find_groups(splits, group_pattern)
    return Source(
        text=str(root.resolve()),
        name=short_name(root.resolve().name),
        kind="folder" if given else "class folders",
        classes=classes,
        splits=splits,
        num_matched=num_matched,
        passed_over=_passed_over(root, [root / split for split in given] or [root]),
    )


def _refuse_other_names(root: Path) -> None:
    for name in _class_names(root):
        split = OTHER_NAMES.get(name.lower())
        if split not in (None, name):
            raise ValueError(
                f"Folder '{name}' in {root} looks like a split of another name; rename it to "
                f"'{split}', or if it is a class, to something else."
            )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = (p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return in_class_order(names)


def _items(root: Path, folder: Path, classes: tuple[str, ...]) -> Items:
    for name in _class_names(folder):
        if name not in classes:
            raise ValueError(
                f"Class '{name}' is in {folder} but not in {root / 'train'}; every split must "
                "hold the same classes."
            )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_below(folder / name)
        if not found:
            raise ValueError(
                f"Class '{name}' has no image in {folder}; every split must hold it "
                f"(images end in {', '.join(sorted(SUFFIXES))})."
            )
        paths += found
        labels += [label] * len(found)
    return Items(
        names=tuple(path.relative_to(root).as_posix() for path in paths),
        labels_N=np.array(labels, dtype=np.int64),
        read=lambda i: paths[i].read_bytes(),
        decode=decode_image,
    )


def _images_below(folder: Path) -> list[Path]:
    """Files, and links that lead nowhere: they can't be read, and are found to be so."""
    return [path for path in _files_below(folder) if path.suffix.lower() in SUFFIXES]


def _passed_over(root: Path, splits: list[Path]) -> tuple[str, ...]:
    """What is in the folder and no image of a class: other names, loose files, other folders."""
    folders = [split / name for split in splits for name in _class_names(split)]
    found = [
        path
        for folder in folders
        for path in _files_below(folder)
        if path.suffix.lower() not in SUFFIXES
    ]
    for place in {root, *splits}:
        known = {*folders, *splits}
        for path in sorted(place.iterdir()):
            is_loose_image = path.suffix.lower() in SUFFIXES and not path.is_dir()
            if is_loose_image or (path.is_dir() and path not in known):
                found.append(path)
    return tuple(
        path.relative_to(root).as_posix() + ("/" if path.is_dir() else "")
        for path in sorted(found)
        if not path.name.startswith(".") and path.name.lower() not in OF_THE_SYSTEM
    )


def _files_below(folder: Path) -> list[Path]:
    """All files below, in linked folders too, but for hidden ones.

    Raises:
        OSError: a folder that can't be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    found: list[Path] = []
    seen: set[str] = set()
    if not folder.is_dir():
        return found
    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # A link back up would lead around for ever.
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)
