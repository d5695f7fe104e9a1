"""Augmentation as views: deterministic variants of an image, drawn for (image, view).

Transformations that keep the label, as in Krizhevsky et al. 2012 (section 4.1): mirroring, crops,
shifts and intensity, and small rotations.

View 0 is the image itself. What a view looks like depends on the image's pixels and the view's
number alone: not on the batch, the epoch, the strategy or who computes it, so that what frozen
blocks make of it can be kept, and so that both strategies see the same pictures.

Legend: B images of a batch, H W height and width, C channels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

ROTATION_DEGREES = 10.0
# A crop of the image, or the image with its border repeated: share of the side that is seen.
SCALE = (0.85, 1.1)
TRANSLATION = 0.05  # share of the side
BRIGHTNESS = 0.1  # share of the whole range
CONTRAST = 0.15


class View(NamedTuple):
    """One variant: ``matrix`` (2, 3) maps places in the view to places in the image."""

    matrix: NDArray[np.float32]
    brightness: float
    contrast: float


@lru_cache(maxsize=100_000)
def draw_view(digest: str, view: int) -> View:
    """Draw view number ``view`` >= 1 of the image with this hexadecimal pixel digest."""
    rng = np.random.default_rng([int(digest[:32], 16), view])
    flip = rng.choice([-1.0, 1.0])
    angle = np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    scale = rng.uniform(*SCALE)
    right, down = rng.uniform(-2 * TRANSLATION, 2 * TRANSLATION, size=2)  # a side spans -1..1
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return View(
        matrix=np.array([[flip * cos, -sin, right], [flip * sin, cos, down]], dtype=np.float32),
        brightness=255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS),
        contrast=1 + rng.uniform(-CONTRAST, CONTRAST),
    )


def show_views(images_BCHW: Tensor, digests: Sequence[str], views_B: NDArray[np.int64]) -> Tensor:
    """Replace each image by its view: float32 grey values in 0..255, whole numbers in and out."""
    changed: list[int] = np.flatnonzero(views_B).tolist()
    if not changed:
        return images_BCHW
    views = [draw_view(digests[i], int(views_B[i])) for i in changed]
    device = images_BCHW.device
    matrix_B23 = torch.from_numpy(np.stack([view.matrix for view in views])).to(device)
    brightness, contrast = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
        for values in ([view.brightness for view in views], [view.contrast for view in views])
    )
    index = torch.tensor(changed, device=device)
    pictures = images_BCHW[index].contiguous()
    grid = affine_grid(matrix_B23, list(pictures.shape), align_corners=False)
    pictures = grid_sample(pictures, grid, padding_mode="border", align_corners=False).round()
    # Whole numbers, so that a sum in float64 is exact and the mean the same in any batch.
    mean = pictures.double().mean(dim=(1, 2, 3), keepdim=True).float()
    pictures = (pictures - mean) * contrast + mean + brightness
    # Rounded, so that a view is a picture of 8 bits like the image itself.
    return images_BCHW.index_copy(0, index, pictures.clamp(0, 255).round())
