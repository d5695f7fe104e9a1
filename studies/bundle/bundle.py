"""The bundle: a folder with a trained model and all that is known of it, written and read.

It appears whole, can be moved, and is refused where anything in it doesn't fit. Loading it
executes nothing: JSON and safetensors are data. Knows no study's database.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from studies.backbone_module import run_module
from studies.bundle.config import (
    CARD,
    CONFIG,
    FILES,
    HASHED,
    MODEL,
    ONNX,
    SCRIPT,
    WAY_OUT,
    BundleConfig,
    config_text,
    read_config,
)
from studies.errors import UserError
from studies.statistics import calibration
from studies.statistics.metrics import Floats, Labels
from studies.watchers import Progress
from transfer.backbones.find import find_spec
from transfer.inference import Classifier
from transfer.messages import one_line
from transfer.weights.find import WeightFile
from transfer.weights.whole import HEAD, Kind, kinds_of

Tensors = Mapping[str, Tensor]
# As safetensors spells them.
DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL"}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was checked. ``weight_file`` has all its blocks, ``head`` the linear layer."""

    folder: Path
    config: BundleConfig
    weight_file: WeightFile
    head: Tensors

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.classes

    def classifier(self, device: torch.device) -> Classifier:
        """The network; it gives the logits (B, C) of uint8 images (B, H, W, 1 or 3)."""
        return Classifier(self.weight_file, self.head, device)

    def probabilities(self, logits_NC: NDArray[np.float32]) -> Floats:
        """Calibrated probabilities of the classes."""
        scaling = self.config.calibration
        mended = calibration.Calibration(scale=scaling.scale, biases=scaling.biases)
        return mended.probabilities(logits_NC)

    def called(self, probabilities_NC: Floats) -> Labels:
        """The class that each image is called: by the threshold, or the most probable one."""
        return calibration.called(probabilities_NC, self.config.threshold)


def write_bundle(
    out: Path,
    config: Callable[[Mapping[str, str]], BundleConfig],
    tensors: Tensors,
    *,
    script: str,
    card: Callable[[BundleConfig], str],
    add_onnx: Callable[[Path], None] | None = None,
) -> BundleConfig:
    """Write a bundle into the folder ``out``, which appears whole or not at all.

    Args:
        config: is told the hashes of the files.
        add_onnx: writes the ONNX file to a path.

    Raises:
        UserError: ``out`` holds anything else than a bundle of this study, or can't be written.
    """
    out = out.resolve()
    with _appearing_whole(out) as folder:
        safetensors.torch.save_file(dict(tensors), folder / MODEL)
        (folder / SCRIPT).write_text(script, encoding="utf-8")
        (folder / SCRIPT).chmod(0o755)
        if add_onnx is not None:
            add_onnx(folder / ONNX)
        hashes = {name: file_hash(folder / name) for name in HASHED if (folder / name).exists()}
        written = config(hashes)
        study = written.study
        refuse_to_replace(out, study.name, study.storage, study.search_id)
        (folder / CARD).write_text(card(written), encoding="utf-8")
        # The library lets nobody else read what it writes.
        shutil.copymode(folder / CARD, folder / MODEL)
        (folder / CONFIG).write_text(config_text(written), encoding="utf-8")
    return written


def refuse_to_replace(out: Path, name: str, storage: str, search_id: str | None = None) -> None:
    """Raise ``UserError`` unless ``out`` is new, empty or a bundle of this study."""
    way_out = "name another folder with --out, or remove it"
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UserError(f"{out} is there and no folder; {way_out}.")
    there = sorted(path.name for path in out.iterdir())
    if not there:
        return
    # What isn't ours would be lost with the folder.
    foreign = [found for found in there if found not in FILES]
    if foreign or CONFIG not in there:
        what = f"holds '{foreign[0]}'" if foreign else f"has no {CONFIG}"
        raise UserError(f"{out} is there and no bundle: it {what}; {way_out}.")
    try:
        before = read_config(out).study
    except UserError as error:
        raise UserError(f"{out} is there and can't be read: {error} Or {way_out}.") from None
    if search_id is not None and before.search_id is not None:
        is_same, former = before.search_id == search_id, "another "
    else:
        is_same, former = (before.name, before.storage) == (name, storage), ""
    if not is_same:
        raise UserError(
            f"{out} is a bundle of {former}study '{before.name}' in {before.storage}; {way_out}."
        )


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` when the block ends, or vanishes when it fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); change --out.") from None
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror or error}).") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_bundle(
    folder: Path, *, backbone_module: Path | None = None, progress: Progress | None = None
) -> Bundle:
    """Read a bundle and check all of it.

    Args:
        backbone_module: the file of one's own backbone, which is run if it is the bundle's.

    Raises:
        UserError: something is missing, damaged, changed, or doesn't fit; the file is named.
    """
    config = read_config(folder)
    for name in HASHED:
        _check_hash(folder / name, config.files.get(name))
    _run_own(folder, config, backbone_module, progress)
    path = folder / MODEL
    try:
        spec = find_spec(config.backbone)
        kinds = kinds_of(config.backbone, len(config.classes))
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    pre = config.preprocessing
    if (pre.mean, pre.std, pre.interpolation) != (spec.mean, spec.std, spec.interpolation):
        raise UserError(
            f"{folder / CONFIG}: mean, std or interpolation are not those of backbone "
            f"'{config.backbone}' here; "
            "use the version of its package that is named in the bundle's versions."
        )
    tensors = _checked_tensors(path, kinds)
    return Bundle(
        folder=folder,
        config=config,
        weight_file=WeightFile(
            backbone=config.backbone, path=path, sha256=config.files[MODEL], source="bundle"
        ),
        head={key: tensors[key].clone() for key in HEAD},
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path: Path, told: str | None) -> None:
    if told is None:
        if path.exists():
            raise UserError(f"{path} is not in {CONFIG}: it was added; {WAY_OUT}.")
        return
    if not path.is_file():
        raise UserError(f"{path} is missing; {WAY_OUT}.")
    try:
        found = file_hash(path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); {WAY_OUT}.") from None
    if found != told:
        raise UserError(f"{path} was changed or cut short: its hash differs; {WAY_OUT}.")


def _run_own(
    folder: Path, config: BundleConfig, given: Path | None, progress: Progress | None
) -> None:
    """Run the file of the bundle's own backbone: only where its user gives it, and the same."""
    stored = config.backbone_module
    if stored is None:
        return
    if given is None:
        raise UserError(
            f"{folder / CONFIG}: backbone '{config.backbone}' comes from {stored.file!r}; give "
            "--backbone-module FILE to let that code run."
        )
    if given.is_file() and file_hash(given) != stored.sha256:
        raise UserError(f"{given} is not the file that the bundle's backbone comes from.")
    run_module(given, progress.message if progress else partial(print, file=sys.stderr))


def _checked_tensors(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Tensor]:
    """The tensors of a model: these names, shapes and types, and every number finite."""
    reason = None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Names and shapes first: nothing is loaded that doesn't fit.
            reason = _misfit(file, kinds)
        tensors = {} if reason else safetensors.torch.load_file(path)
    except Exception as error:  # the library's own kinds, and those of the system
        raise UserError(f"{path} is no safetensors file ({one_line(error)}); {WAY_OUT}.") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            reason = f"tensor '{key}' holds values that are not finite"
    if reason:
        raise UserError(f"{path} does not fit its backbone and classes: {reason}; {WAY_OUT}.")
    return tensors


def _misfit(file: Any, kinds: Mapping[str, Kind]) -> str | None:
    names = set(file.keys())
    for what, odd in (("missing", kinds.keys() - names), ("unknown", names - kinds.keys())):
        if odd:
            return f"tensor {sorted(odd)[0]!r} is {what}"
    for key, kind in kinds.items():
        found = file.get_slice(key)
        shape, dtype = tuple(found.get_shape()), found.get_dtype()
        if shape != kind.shape:
            return f"tensor '{key}' has shape {shape}, expected {kind.shape}"
        if dtype != DTYPES.get(kind.dtype):
            return f"tensor '{key}' has type {dtype}, expected {DTYPES.get(kind.dtype)}"
    return None
