"""Outputs at the freeze boundary: what the frozen blocks give, computed once and kept.

A run asks for its boundary. It starts from the nearest one at hand below it, keeps the one that
saves most (`policy`), and computes the rest for every batch. Where a run starts changes no bit of
what it gets (`frozen`).

Legend: N images, B images of a batch, n images of a chunk, D features.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.activations.frozen import BlockCost, FrozenBlocks, as_rows, canonical, normalised
from transfer.activations.inputs import BoundaryInputs, Outputs, Rows, kept_outputs
from transfer.activations.inputs import Positions as Positions
from transfer.activations.policy import Occupant, plan
from transfer.activations.store import Array, Entries
from transfer.backbones.catalog import Interpolation
from transfer.backbones.find import find_backbone, find_spec
from transfer.cache import default_limit
from transfer.data.loading import LARGE, ImageData
from transfer.device import cpu_model, describe_device, retained_memory
from transfer.probe import Probe, solve_probe
from transfer.training.micro_batches import MemoryLimits, if_need_be_twice
from transfer.views import show_views
from transfer.weights.find import WeightFile, load_blocks

# Part of every key: raise it when what is computed or its layout changes.
FORMAT = 4

OnProgress = Callable[[str, int, int], None]


class Activations:
    """The frozen part of every backbone of a study, and what has been computed with it.

    ``seconds`` counts the time spent computing and fetching outputs of frozen blocks, in all.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        weights: Mapping[str, WeightFile],
        cache_dir: Path,
        device: torch.device,
        limit_bytes: int | None = None,
        boundaries: Mapping[str, Collection[int]] = MappingProxyType({}),
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            boundaries: those that runs may ask for, by backbone: for them outputs on the way to
                another one may be kept as well.
        """
        self.data = data
        self.device = device
        self.seconds = 0.0
        self._weights = weights
        self._boundaries = boundaries
        limit = default_limit(cache_dir) if limit_bytes is None else limit_bytes
        self._entries = Entries(cache_dir / "activations", cache_dir / "locks", limit)
        self._on_progress = on_progress
        self._pixels: dict[str, Rows] = {}
        self._pretrained_blocks: dict[str, nn.Sequential] = {}
        self._frozen_blocks: dict[str, FrozenBlocks] = {}
        self._costs: dict[tuple[str, int], list[BlockCost]] = {}
        self._probes: dict[str, Probe] = {}
        self._codes: dict[tuple[str, int], str] = {}

    def load(self, backbone: str, *, with_views: bool = False) -> None:
        """Have the blocks of a backbone in memory, and on a GPU the images: what its runs share.

        ``with_views``: the larger images, too, of which views are cut.

        Raises:
            NoRoomError: there is no memory for them.
        """

        def load() -> None:
            self._frozen(backbone)
            if self.device.type == "cuda":
                self._rows(find_spec(backbone).interpolation)
                if with_views:
                    self._rows(LARGE)

        with self._counted():
            if_need_be_twice(load, self.device)

    def blocks(self, backbone: str, boundary: int) -> nn.Sequential:
        """The pretrained blocks on the device: shared below the boundary, a copy above it.

        Raises:
            NoRoomError: there is no memory for them.
        """

        def blocks() -> nn.Sequential:
            pretrained = self._pretrained(backbone)
            return nn.Sequential(*pretrained[:boundary], *deepcopy(pretrained[boundary:]))

        return if_need_be_twice(blocks, self.device)

    def inputs(
        self,
        backbone: str,
        boundary: int,
        *,
        num_views: int = 1,
        flip: str = "horizontal",
        passes: int,
    ) -> BoundaryInputs:
        """What a run with this boundary starts from.

        What is worth keeping is computed and kept before this returns: a run's epochs look it up.

        Args:
            passes: how often the run will ask for every image: its epochs.

        Raises:
            ValueError: the data were loaded without what the backbone or its views need.
            NoRoomError: there is no memory for one image.
        """
        if num_views > 1:
            self.data.require_views()
        whole = self._frozen(backbone)

        def inputs(chunk_size: int) -> BoundaryInputs:
            # Part of every key: what other chunks gave is neither taken nor replaced.
            self._frozen_blocks[backbone] = whole.in_chunks_of(chunk_size)
            try:
                return self._inputs(backbone, boundary, num_views, flip, passes)
            finally:
                self._frozen_blocks[backbone] = whole

        with self._counted(), retained_memory():
            return MemoryLimits().first_that_fits(
                "chunk", whole.smaller_sizes(), inputs, self.device
            )

    def _inputs(
        self, backbone: str, boundary: int, num_views: int, flip: str, passes: int
    ) -> BoundaryInputs:
        start, arrays = self._at_hand(backbone, boundary, num_views, flip)
        was_at_hand = start == boundary
        if not was_at_hand:
            for end in self._worth_keeping(backbone, start, boundary, num_views, passes):
                kept = self._keep(backbone, start, arrays, end, num_views, flip)
                if kept is not None:
                    start, arrays = end, kept
        return BoundaryInputs(
            start=start,
            boundary=boundary,
            num_bytes=sum(array.nbytes for array in arrays),
            was_at_hand=was_at_hand,
            outputs=self._outputs(backbone, start, boundary, arrays, flip),
            counted=self._counted,
        )

    def features(self, backbone: str) -> Tensor:
        """Pooled features of all images, (N, D), float32, on the device, in the data's order."""
        with retained_memory():
            inputs = self.inputs(backbone, find_spec(backbone).depth, passes=2)
            return inputs.at(np.arange(len(self.data)))

    def probe(self, backbone: str) -> Probe:
        """The logistic regression on the training images' features, solved once."""
        if backbone not in self._probes:
            features_ND = self.features(backbone)[self.data.train.positions_N]
            with self._counted():
                self._on_progress(f"probe of {backbone}", 0, 1)
                self._probes[backbone] = solve_probe(
                    features_ND.cpu().numpy(),
                    self.data.train.labels_N,
                    self.data.train.groups_N,
                )
                self._on_progress(f"probe of {backbone}", 1, 1)
        return self._probes[backbone]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds += perf_counter() - started

    def _pretrained(self, backbone: str) -> nn.Sequential:
        if backbone not in self._pretrained_blocks:
            blocks = load_blocks(self._weights[backbone]).to(self.device)
            blocks = blocks.to(memory_format=torch.channels_last).eval()
            self._pretrained_blocks[backbone] = blocks
        return self._pretrained_blocks[backbone]

    def _frozen(self, backbone: str) -> FrozenBlocks:
        if backbone not in self._frozen_blocks:
            self._frozen_blocks[backbone] = FrozenBlocks(self._pretrained(backbone), self.device)
        return self._frozen_blocks[backbone]

    def _block_costs(self, backbone: str) -> list[BlockCost]:
        frozen = self._frozen(backbone)
        # Asked again for every size of chunk: for one that doesn't fit no kept outputs make way.
        key = (backbone, frozen.chunk_size)
        if key not in self._costs:
            positions_n = np.arange(frozen.chunk_size) % len(self.data)
            images_n3hw = self._images(backbone, "none", positions_n, np.zeros_like(positions_n))
            self._costs[key] = frozen.costs(images_n3hw)
        return self._costs[key]

    def _positions(self, view: int) -> Positions:
        """The images of which a view is kept: of the images themselves all, else for training."""
        return self.data.train.positions_N if view else np.arange(len(self.data))

    def _at_hand(
        self, backbone: str, boundary: int, num_views: int, flip: str
    ) -> tuple[int, list[Array]]:
        """The nearest boundary at or below this one kept of all views; 0 stands for the images."""
        for start in range(boundary, 0, -1) if self._entries.limit_bytes else ():
            keys = self._keys(backbone, start, num_views, flip)
            found = [
                self._entries.find(key, len(self._positions(view)))
                for view, key in enumerate(keys)
            ]
            entries = [entry for entry in found if entry is not None]
            if len(entries) == num_views:
                return start, [entry.rows for entry in entries]
        return 0, []

    def _worth_keeping(
        self, backbone: str, start: int, boundary: int, num_views: int, passes: int
    ) -> list[int]:
        if self._entries.limit_bytes == 0:
            return []
        num_images, num_train = len(self.data), len(self.data.train)
        num_rows = num_images + (num_views - 1) * num_train
        self._entries.remove_abandoned()
        return plan(
            self._block_costs(backbone),
            start,
            boundary,
            num_rows=num_rows,
            # At least twice what is computed: the trials that follow ask as well.
            num_uses=max(passes * num_images, 2 * num_rows),
            others=[
                other
                for other in self._boundaries.get(backbone, ())
                if other > start and not self._entries.has(self._key(backbone, other, 0))
            ],
            free_bytes=self._entries.free_bytes(),
            # What it is computed from may go as well: until then it stays mapped.
            occupants=[
                Occupant(num_bytes=stored.num_bytes, seconds=stored.seconds)
                for stored in self._entries.stored()
            ],
        )

    def _keep(
        self,
        backbone: str,
        start: int,
        arrays: list[Array],
        end: int,
        num_views: int,
        flip: str,
    ) -> list[Array] | None:
        """Compute the outputs at ``end`` of all views and keep them, or None without room."""
        keys = self._keys(backbone, end, num_views, flip)
        outputs, kept = self._outputs(backbone, start, end, arrays, flip), []
        row_shape = self._block_costs(backbone)[end - 1].row_shape
        for view, key in enumerate(keys):
            entry = self._entries.find_or_keep(
                key,
                (len(self._positions(view)), *row_shape),
                partial(self._computed, backbone, end, outputs, view),
                protected=keys,
            )
            if entry is None:
                return None
            kept.append(entry.rows)
        return kept

    def _computed(self, backbone: str, end: int, outputs: Outputs, view: int) -> Iterator[Array]:
        """The rows of an entry in their order, some at a time."""
        positions_N, done = self._positions(view), 0
        what = "features" if end == find_spec(backbone).depth else f"outputs of layer {end}"
        what = f"{what} of {backbone}" + (f", view {view}" if view else "")
        views_N = np.full_like(positions_N, view)
        for chunk in outputs.in_order(positions_N, views_N, of_one_size=True):
            yield as_rows(chunk).cpu().numpy()
            done += len(chunk)
            self._on_progress(what, done, len(positions_N))

    def _outputs(
        self, backbone: str, start: int, end: int, arrays: Sequence[Array], flip: str
    ) -> Outputs:
        gather = partial(self._images, backbone, flip)
        if arrays:
            rows = [Rows(array, self.device, share=1 / len(arrays)) for array in arrays]
            gather = partial(kept_outputs, rows, self.data.train.positions_N)
        return Outputs(frozen=self._frozen(backbone), start=start, end=end, gather=gather)

    def _images(
        self, backbone: str, flip: str, positions_B: Positions, views_B: Positions
    ) -> Tensor:
        """Normalised images or views of them, (B, 3, H, W), float32, channels last."""
        spec = find_spec(backbone)
        images_BCHW = self._taken(spec.interpolation, positions_B)
        is_view = views_B > 0
        if is_view.any():
            places = positions_B[is_view]
            views = show_views(
                self._taken(LARGE, places),
                [self.data.digests[i] for i in places],
                views_B[is_view],
                flip=flip,
                interpolation=spec.interpolation,
            )
            images_BCHW[torch.from_numpy(np.flatnonzero(is_view)).to(self.device)] = views
        return normalised(images_BCHW, spec)

    def _taken(self, which: Interpolation | Literal["large"], positions_B: Positions) -> Tensor:
        """Pixels as they were resized by this interpolation, or enlarged, (B, C, H, W)."""
        images_BHWC = self._rows(which).take(self.data.rows_N[positions_B])
        return images_BHWC.permute(0, 3, 1, 2).float()

    def _rows(self, which: Interpolation | Literal["large"]) -> Rows:
        if which not in self._pixels:
            self._pixels[which] = Rows(self.data.pixels(which), self.device)
        return self._pixels[which]

    def _code(self, backbone: str) -> str:
        """What names the code of a backbone: of one's own also what it makes of noise.

        The hash of its file says nothing of what the file imports.
        """
        found = find_backbone(backbone)
        if not found.is_own:
            return str(found.code)
        frozen = self._frozen(backbone)
        key = (backbone, frozen.chunk_size)
        if key not in self._codes:
            noise = np.random.default_rng(0)
            shape = (frozen.chunk_size, 3, self.data.image_size, self.data.image_size)
            x = canonical(torch.from_numpy(noise.standard_normal(shape, np.float32)))
            outputs = []
            for index in range(found.spec.depth):
                x = frozen.run(x.to(self.device), index, index + 1)
                outputs.append(_hash(as_rows(x).cpu().numpy()))
            self._codes[key] = f"{found.code} {' '.join(outputs)}"
        return self._codes[key]

    def _keys(self, backbone: str, boundary: int, num_views: int, flip: str) -> list[str]:
        return [self._key(backbone, boundary, view, flip) for view in range(num_views)]

    def _key(self, backbone: str, boundary: int, view: int, flip: str = "none") -> str:
        """Everything that may change a bit of the outputs. Of an image itself none is mirrored."""
        spec = find_spec(backbone)
        parts = (
            f"format={FORMAT}",
            f"backbone={backbone} boundary={boundary}",
            f"code={self._code(backbone)}",
            f"mean={spec.mean} std={spec.std}",
            f"weights={self._weights[backbone].sha256}",
            f"data={self.data.pixels_fingerprint}",
            f"image_size={self.data.image_size}",
            f"resize={self.data.resize} interpolation={spec.interpolation}",
            f"torch={torch.__version__}",
            f"device={_arithmetic(self.device)} {torch.backends.cpu.get_cpu_capability()}",
            f"chunk={self._frozen(backbone).chunk_size}",
            f"threads={torch.get_num_threads()}",
            # Only the training images have other views, and which these are depends on the split.
            f"view={view} {flip if view else ''}"
            f" {_hash(self.data.train.positions_N) if view else ''}",
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _arithmetic(device: torch.device) -> str:
    """The processor, and how a GPU multiplies in float32."""
    if device.type != "cuda":
        return cpu_model()
    short = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return f"{describe_device(device)} tf32={short}"


def _hash(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
