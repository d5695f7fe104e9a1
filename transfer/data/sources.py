"""What a source offers before anything is decoded: classes, splits, names, labels, bytes.

Knows folders and the phantom. Opens no file until ``Items.read`` is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfer.data.decoding import SUFFIXES, Pixels, decode_image
from transfer.data.phantom import class_names, parse_phantom, phantom_images

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Items:
    """The images of one split: ``read`` gives an image's bytes, ``decode`` its pixels."""

    names: tuple[str, ...]
    labels_N: NDArray[np.int64]
    read: Callable[[int], bytes]
    decode: Callable[[bytes], Pixels]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: ``text`` is what the user wrote, ``name`` a short name made of it."""

    text: str
    name: str
    classes: tuple[str, ...]
    splits: dict[SplitName, Items]
    natural_size: int | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images of each class in each split."""
        return {
            split: {name: int((items.labels_N == i).sum()) for i, name in enumerate(self.classes)}
            for split, items in self.splits.items()
        }


def open_source(text: str) -> Source:
    """Find out what the data source ``text`` offers.

    Raises:
        ValueError: no such folder, no images, classes missing; the message names the way out.
    """
    if text == "phantom" or text.startswith("phantom:"):
        return _phantom(text)
    return _folder(text)


def _phantom(text: str) -> Source:
    spec = parse_phantom(text)
    return Source(
        text=text,
        name="phantom",
        classes=class_names(spec),
        splits={
            "train": _array_items("train", *phantom_images(spec, "train")),
            "test": _array_items("test", *phantom_images(spec, "test")),
        },
        natural_size=spec.size,
    )


def _array_items(split: str, images_NHW: Pixels, labels_N: NDArray[np.int64]) -> Items:
    shape = images_NHW.shape[1:]
    return Items(
        names=tuple(f"{split}/{i:05d}" for i in range(len(images_NHW))),
        labels_N=labels_N,
        read=lambda i: images_NHW[i].tobytes(),
        decode=lambda content: np.frombuffer(content, dtype=np.uint8).reshape(shape),
    )


def _folder(text: str) -> Source:
    root = Path(text).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"No folder '{text}'; --data takes a folder with train/CLASS, test/CLASS, or phantom."
        )
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise ValueError(
                f"{text} has no folder '{split}'; it must hold train/CLASS/ and test/CLASS/ "
                "(and may hold val/CLASS/)."
            )
    classes = _class_names(root / "train")
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        raise ValueError(
            f"{root / 'train'} must hold a folder for each of 2 classes, has {found}."
        )
    names: list[SplitName] = ["train", "test"]
    names += ["val"] if (root / "val").is_dir() else []
    return Source(
        text=str(root.resolve()),
        name=_short_name(root.resolve().name),
        classes=classes,
        splits={split: _folder_items(root, split, classes) for split in names},
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = (p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return tuple(sorted(names))


def _short_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip("._") or "study"


def _folder_items(root: Path, split: str, classes: tuple[str, ...]) -> Items:
    for name in _class_names(root / split):
        if name not in classes:
            raise ValueError(f"Class '{name}' is in {root / split} but not in {root / 'train'}.")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_below(root / split / name)
        if not found:
            raise ValueError(
                f"Class '{name}' has no image in {root / split}; every split must hold it "
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
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
