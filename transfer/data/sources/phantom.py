"""The built-in synthetic data set: grey, chest-like pictures, with opacities in the lungs or not.

A phantom, as in imaging: an object with known properties for checking an instrument. Its knobs
plant a cause (few images, subtle contrast, label noise, a shift between train and test), so that
what a study concludes can be held against the truth. Knows numpy; nothing of torch, files or the
command line. How a picture is drawn is ``anatomy``'s to know.

N images, H = W = size pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from transfer.data.sources.anatomy import KINDS, draw_image

Labels = NDArray[np.int64]
Split = Literal["train", "test"]

# NORMAL test images take the whole shift, those of the other classes a share, train images none.
OTHERS_SHARE = 0.3

RANGES: Mapping[str, tuple[float, float]] = {
    "train": (10, 20_000),
    "test": (10, 20_000),
    "size": (32, 512),
    "contrast": (0.0, 5.0),
    "label_noise": (0.0, 1.0),
    "shift": (0.0, 3.0),
    "classes": (2, len(KINDS)),
    "seed": (0, 2**32 - 1),
}
KNOWN_KEYS = f"known keys: {', '.join(RANGES)}."


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """What fixes a phantom, bit for bit; raises ValueError for a value out of its range."""

    train: int = 400  # images; validation images are split from them elsewhere
    test: int = 300
    size: int = 96  # pixels, square
    contrast: float = 1.0  # strength of the opacities; 0: the classes cannot be told apart
    label_noise: float = 0.0  # share of train labels replaced by another class; test stays clean
    shift: float = 0.0  # hazier, softer, flatter test images, NORMAL ones most; 0: none
    classes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(
                    f"`{low} <= {name} <= {high}` must hold for phantom data, "
                    f"but got {name}={value}; {KNOWN_KEYS}"
                )


def parse_phantom(source: str) -> PhantomSpec:
    """Read 'phantom' or 'phantom:key=value,..'; a ValueError names the key, the value, the law."""
    head, colon, options = source.partition(":")
    if head != "phantom":
        raise ValueError(f"Unknown phantom {source!r}; write phantom or phantom:key=value,..")
    types = {field.name: field.type for field in fields(PhantomSpec)}
    values: dict[str, Any] = {}
    for option in options.split(",") if colon else ():
        key, equals, text = (part.strip() for part in option.partition("="))
        if not equals:
            raise ValueError(f"Phantom options are key=value, but got {option!r}; {KNOWN_KEYS}")
        if key not in types:
            raise ValueError(f"Unknown phantom key {key!r} in {option!r}; {KNOWN_KEYS}")
        if key in values:
            raise ValueError(f"Phantom key {key!r} is given again in {option!r}; {KNOWN_KEYS}")
        kind, law = (int, "an integer") if types[key] is int else (float, "a number")
        try:
            values[key] = kind(text)
        except ValueError:
            raise ValueError(f"{key} must be {law}, but got {text!r}; {KNOWN_KEYS}") from None
    return PhantomSpec(**values)


def class_names(spec: PhantomSpec) -> tuple[str, ...]:
    """Name the classes in the order of their labels."""
    return tuple(kind.name for kind in KINDS[: spec.classes])


def phantom_images(spec: PhantomSpec, split: Split) -> tuple[NDArray[np.uint8], Labels]:
    """Draw one split, the same bits for the same spec: images_NHW and labels_N.

    Every image has a random stream of its own, and the number of its draws doesn't depend on its
    class. So a knob changes nothing but what it names, and a larger split begins with the smaller.
    """
    is_test = split == "test"
    num_images, stream = (spec.test, 1) if is_test else (spec.train, 0)
    kinds_N = _draw_kinds(default_rng([spec.seed, stream, 0, 0]), num_images, spec.classes)
    images_NHW = np.empty((num_images, spec.size, spec.size), np.uint8)
    for i, kind in enumerate(kinds_N):
        shift = spec.shift * is_test * (1.0 if kind == 0 else OTHERS_SHARE)
        rng = default_rng([spec.seed, stream, 1, i])
        images_NHW[i] = draw_image(rng, KINDS[kind], spec.size, spec.contrast, shift)
    if is_test:
        return images_NHW, kinds_N
    return images_NHW, _mislabel(default_rng([spec.seed, stream, 2, 0]), kinds_N, spec)


def _draw_kinds(rng: Generator, num_images: int, num_classes: int) -> Labels:
    """Shuffle round by round, each class once in a round: balanced however many are taken."""
    num_rounds = -(-num_images // num_classes)
    rounds = np.tile(np.arange(num_classes, dtype=np.int64), (num_rounds, 1))
    return rng.permuted(rounds, axis=1).ravel()[:num_images]


def _mislabel(rng: Generator, labels_N: Labels, spec: PhantomSpec) -> Labels:
    """Move the stated share of the labels to another class."""
    num_wrong = round(spec.label_noise * len(labels_N))
    wrong = rng.permutation(len(labels_N))[:num_wrong]
    moved_N = labels_N.copy()
    moved_N[wrong] += rng.integers(1, spec.classes, size=num_wrong)
    return moved_N % spec.classes
