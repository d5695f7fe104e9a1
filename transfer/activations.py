"""Outputs at the freeze boundary: what the frozen blocks give, computed once and kept.

Kept today: the pooled features behind the last block (boundary = depth) of every image and of
the training images' views, which every feature extraction shares. A lower boundary starts from
the images. ``inputs`` alone decides where a run starts, so that more boundaries can be kept
without its callers knowing.

Legend: N images, B images of a batch, C channels, h w height and width, D features.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transfer.backbones import find_backbone, find_spec, pool
from transfer.cache import written_whole
from transfer.data.loading import ImageData
from transfer.probe import Probe, solve_probe
from transfer.views import show_views
from transfer.weights import WeightFile, load_blocks

# Part of every key: raise it when what is computed or its layout changes.
FORMAT = 2
BATCH_SIZE = 64

OnProgress = Callable[[str, int, int], None]
Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BoundaryInputs:
    """What a run starts from: the outputs at its freeze boundary.

    ``at(positions_B, views_B)`` gives them for these views of the images, or for the images
    themselves where ``views_B`` is None: float32, on the device.
    """

    at: Callable[[Positions, Positions | None], Tensor]

    def batches(
        self, positions: Sequence[Positions], views: Sequence[Positions] | None = None
    ) -> Iterator[Tensor]:
        """One tensor for each batch of positions, in their order."""
        shown = itertools.repeat(None) if views is None else views
        for positions_B, views_B in zip(positions, shown, strict=False):
            yield self.at(positions_B, views_B)


class Activations:
    """The frozen part of every backbone of a study, and what has been computed with it.

    ``seconds`` counts the time spent computing, in all.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        weights: Mapping[str, WeightFile],
        cache_dir: Path,
        device: torch.device,
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> None:
        self.data = data
        self.device = device
        self.seconds = 0.0
        self._weights = weights
        self._folder = cache_dir / "activations"
        self._on_progress = on_progress
        self._blocks: dict[str, nn.Sequential] = {}
        self._features: dict[tuple[str, int], Tensor] = {}
        self._probes: dict[str, Probe] = {}

    def blocks(self, backbone: str, boundary: int) -> nn.Sequential:
        """The pretrained blocks on the device: shared below the boundary, a copy above it."""
        pretrained = self._pretrained(backbone)
        return nn.Sequential(*pretrained[:boundary], *deepcopy(pretrained[boundary:]))

    def inputs(self, backbone: str, boundary: int, num_views: int = 1) -> BoundaryInputs:
        """Start from the nearest kept boundary at or below ``boundary``.

        What is kept is there when this returns, of all views: a run's epochs only look it up.
        """
        if boundary == find_spec(backbone).depth:
            for view in range(num_views):
                self.features(backbone, view)
            return BoundaryInputs(at=partial(self._features_at, backbone))
        return BoundaryInputs(at=partial(self._recomputed, backbone, boundary))

    def features(self, backbone: str, view: int = 0) -> Tensor:
        """Pooled features, float32, on the device, in the data's order.

        (N, D) of all images for view 0; of the training images alone for another view.
        """
        if (backbone, view) not in self._features:
            started = perf_counter()
            positions_N = self.data.train.positions_N if view else np.arange(len(self.data))
            path = self._folder / f"{self._key(backbone, view)}.safetensors"
            features_ND = _read(path, (len(positions_N), find_spec(backbone).num_features))
            if features_ND is None:
                features_ND = self._compute(backbone, positions_N, view)
                with written_whole(path) as temporary:
                    save_file({"features": features_ND}, temporary)
            self._features[backbone, view] = features_ND.to(self.device)
            self.seconds += perf_counter() - started
        return self._features[backbone, view]

    def probe(self, backbone: str) -> Probe:
        """The logistic regression on the training images' features, solved once."""
        if backbone not in self._probes:
            features_ND = self.features(backbone)[self.data.train.positions_N]
            started = perf_counter()
            self._on_progress(f"probe of {backbone}", 0, 1)
            self._probes[backbone] = solve_probe(
                features_ND.cpu().numpy(), self.data.train.labels_N
            )
            self._on_progress(f"probe of {backbone}", 1, 1)
            self.seconds += perf_counter() - started
        return self._probes[backbone]

    def _features_at(
        self, backbone: str, positions_B: Positions, views_B: Positions | None = None
    ) -> Tensor:
        features_BD = self.features(backbone)[positions_B]
        for view in np.unique(views_B[views_B > 0]) if views_B is not None else ():
            these = np.flatnonzero(views_B == view)
            rows = np.searchsorted(self.data.train.positions_N, positions_B[these])
            features_BD[these] = self.features(backbone, int(view))[rows]
        return features_BD

    @torch.no_grad()
    def _recomputed(
        self,
        backbone: str,
        boundary: int,
        positions_B: Positions,
        views_B: Positions | None = None,
    ) -> Tensor:
        x = self._images(backbone, positions_B, views_B)
        for block in self._pretrained(backbone)[:boundary]:
            x = block(x)
        return x

    def _pretrained(self, backbone: str) -> nn.Sequential:
        if backbone not in self._blocks:
            blocks = load_blocks(self._weights[backbone]).to(self.device)
            self._blocks[backbone] = blocks.to(memory_format=torch.channels_last).eval()
        return self._blocks[backbone]

    @torch.inference_mode()
    def _compute(self, backbone: str, positions_N: Positions, view: int) -> Tensor:
        blocks, num_images = self._pretrained(backbone), len(positions_N)
        what = f"features of {backbone}" + (f", view {view}" if view else "")
        views_B = np.full(BATCH_SIZE, view) if view else None
        parts = []
        for start in range(0, num_images, BATCH_SIZE):
            # The last batch is filled up, so that an image's features don't depend on its company.
            positions_B = positions_N[np.arange(start, start + BATCH_SIZE) % num_images]
            features_BD = pool(blocks(self._images(backbone, positions_B, views_B)))
            parts.append(features_BD[: num_images - start].float().cpu())
            self._on_progress(what, min(start + BATCH_SIZE, num_images), num_images)
        return torch.cat(parts)

    def _images(
        self, backbone: str, positions_B: Positions, views_B: Positions | None = None
    ) -> Tensor:
        """Normalised images, (B, 3, H, W), float32, channels last, on the device."""
        spec = find_spec(backbone)
        images_BHWC = torch.from_numpy(self.data.images(positions_B)).to(self.device)
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float()
        if views_B is not None:
            digests = [self.data.digests[i] for i in positions_B]
            images_BCHW = show_views(images_BCHW, digests, views_B)
        mean = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        normalised = (images_BCHW.div(255) - mean) / std
        return normalised.contiguous(memory_format=torch.channels_last)

    def _key(self, backbone: str, view: int) -> str:
        """Everything that may change a bit of the features."""
        spec = find_spec(backbone)
        parts = (
            f"format={FORMAT}",
            f"backbone={backbone}",
            f"code={find_backbone(backbone).code}",
            f"mean={spec.mean} std={spec.std}",
            f"weights={self._weights[backbone].sha256}",
            f"data={self.data.pixels_fingerprint}",
            f"image_size={self.data.image_size}",
            f"torch={torch.__version__}",
            f"device={self.device.type}",
            f"threads={torch.get_num_threads()}",
            # Only the training images have other views, and which these are depends on the split.
            f"view={view} {_hash(self.data.train.positions_N) if view else ''}",
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _hash(positions_N: Positions) -> str:
    return hashlib.sha256(positions_N.tobytes()).hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The stored features, or None where they are missing, torn or of another shape or type."""
    try:
        features_ND = load_file(path)["features"]
    except (OSError, KeyError, SafetensorError):
        return None
    right = features_ND.shape == shape and features_ND.dtype == torch.float32
    return features_ND if right else None
