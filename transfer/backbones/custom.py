"""One's own backbones: from a Python file, or from an installed package that names them.

Both are code that runs here. `BACKBONES = {"my_net": build}` in a file, or an entry point of group
`transfer_studies.backbones` that names such a function `build`, which returns the blocks as an
`nn.Sequential`: each takes one tensor and gives one, the last (N, D) or (N, D, h, w). The weights
that are in them are what is transferred. MEAN and STD of the same module, if it has them, are
those of RGB images in [0, 1]; INTERPOLATION is "bilinear" (the default) or "bicubic", by which
images are resized; IMAGE_SIZE is the only one, in pixels, that the blocks take.

Shapes: N images, D features, h x w pixels.
"""

import hashlib
import importlib.util
import inspect
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import get_args

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from transfer.backbones.catalog import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneSpec,
    Interpolation,
)
from transfer.backbones.table import Backbone, run_blocks
from transfer.messages import one_line

GROUP = "transfer_studies.backbones"
USUAL_SIZES = (64, 224)

from_files: dict[str, Backbone] = {}


def backbones_from_file(path: Path) -> tuple[str, ...]:
    """Run a Python file and make its backbones known in this process; returns their names.

    This runs the code in the file with all that you may do: give it your own files only. Raises
    ValueError, one line that names the file, if it fails or defines no backbones that work.
    """
    module = _executed(path)
    builders = getattr(module, "BACKBONES", None)
    if not isinstance(builders, dict) or not builders:
        raise _broken(path, "it defines no BACKBONES = {'my_net': build}")
    found, code = {}, f"file {hashlib.sha256(path.read_bytes()).hexdigest()}"
    for name, build in builders.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name) or name in BACKBONES:
            raise _broken(path, f"the name {name!r} is taken or none (letters, digits, . _ -)")
        try:
            found[name] = _own_backbone(name, build, module, code)
        except ValueError as error:
            raise _broken(path, f"backbone {name!r}: {error}") from error
    from_files.update(found)
    return tuple(found)


def installed_backbone(name: str) -> Backbone | None:
    """Return the backbone that an installed package calls `name`, or None.

    The package is imported only now. Raises ValueError, one line that names it, if it fails.
    """
    for entry_point in _entry_points():
        if entry_point.name == name:
            return _loaded(entry_point)
    return None


def installed_names() -> list[str]:
    """Return the names of backbones in installed packages, without importing them."""
    return sorted({entry_point.name for entry_point in _entry_points()})


def _entry_points() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))


def _loaded(entry_point: EntryPoint) -> Backbone:
    try:
        build = entry_point.load()
        package = entry_point.dist
        code = f"{package.name} {package.version}" if package else entry_point.value
        return _own_backbone(entry_point.name, build, inspect.getmodule(build), code)
    except Exception as error:  # code of the package
        raise ValueError(
            f"Backbone {entry_point.name!r} of {entry_point.value} does not work: "
            f"{one_line(error)}; mend or uninstall the package."
        ) from error


def _executed(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"backbones_in_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise _broken(path, "it is no Python file (NAME.py)")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and the like look their module up by name.
    sys.modules[spec.name] = module
    try:
        with torch.random.fork_rng(devices=[]):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # code of the user
        del sys.modules[spec.name]
        raise _broken(path, f"running it raises {one_line(error)}") from error
    return module


def _broken(path: Path, reason: str) -> ValueError:
    return ValueError(f"Backbones file {path} can't be used: {reason}.")


def _own_backbone(
    name: str, build: Callable[[], object], module: ModuleType | None, code: str
) -> Backbone:
    """Build the blocks once, see that they keep their promises, and describe them."""
    with torch.random.fork_rng(devices=[]):
        network = _built(build)
    blocks = list(network.eval())
    uses = Counter(parameter for block in blocks for parameter in set(block.parameters()))
    if not uses:
        raise ValueError("its blocks have no parameters")
    if max(uses.values()) > 1:
        raise ValueError("some of its blocks share weights")
    num_features, gmacs = _measured(blocks, _image_sizes(module))
    spec = BackboneSpec(
        name=name,
        depth=len(blocks),
        num_features=num_features,
        num_parameters=sum(parameter.numel() for parameter in uses),
        gmacs=round(list(gmacs.values())[-1], 3),
        imagenet_accuracy=None,
        mean=_colours(module, "MEAN", IMAGENET_MEAN),
        std=_colours(module, "STD", IMAGENET_STD),
        interpolation=_interpolation(module),
    )
    return Backbone(
        spec=spec,
        build=partial(_built, build),
        split=_blocks,
        head=lambda network: nn.Sequential(),
        image_size=next(iter(gmacs)),
        native_size=list(gmacs)[-1],
        is_own=True,
        code=code,
    )


def _blocks(network: nn.Module) -> list[nn.Module]:
    assert isinstance(network, nn.Sequential)
    return list(network)


def _built(build: Callable[[], object]) -> nn.Sequential:
    """Return a network that no later call shares tensors with."""
    try:
        network = build()
    except Exception as error:  # code of the user
        raise ValueError(f"building it raises {one_line(error)}") from error
    if not isinstance(network, nn.Sequential) or len(network) == 0:
        kind = type(network).__name__
        raise ValueError(f"build() must return an nn.Sequential of blocks, but gave a {kind}")
    return deepcopy(network)


def _image_sizes(module: ModuleType | None) -> tuple[int, ...]:
    size = getattr(module, "IMAGE_SIZE", None)
    if size is None:
        return USUAL_SIZES
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"IMAGE_SIZE must be a number of pixels, but got {size!r}")
    return (size,)


def _interpolation(module: ModuleType | None) -> Interpolation:
    value = getattr(module, "INTERPOLATION", "bilinear")
    choices: tuple[Interpolation, ...] = get_args(Interpolation)
    if value not in choices:
        raise ValueError(f"INTERPOLATION must be one of {', '.join(choices)}, but got {value!r}")
    return choices[choices.index(value)]


def _measured(
    blocks: list[nn.Module], image_sizes: tuple[int, ...]
) -> tuple[int, dict[int, float]]:
    """Return D, and the GMACs of one image for each of the sizes at which the blocks run."""
    gmacs: dict[int, float] = {}
    reasons = []
    for size in image_sizes:
        noise_N3hw = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                outputs = run_blocks(blocks, noise_N3hw)
            gmacs[size], num_features = counter.get_total_flops() / 4e9, outputs.shape[1]
        except Exception as error:  # code of the user
            reasons.append(f"with images of {size} x {size} pixels {one_line(error)}")
    if not gmacs:
        raise ValueError("; ".join(reasons))
    return num_features, gmacs


def _colours(
    module: ModuleType | None, name: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    values = getattr(module, name, default)
    try:
        red, green, blue = map(float, values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be three numbers, but got {values!r}") from None
    lowest = 0.0 if name == "STD" else -math.inf
    if not all(lowest < value < math.inf for value in (red, green, blue)):
        raise ValueError(f"{name} must be finite, and STD above 0, but got {values!r}")
    return red, green, blue
