"""Augmentation as views: deterministic variants of an image, drawn for (image, view).

Transformations that keep the label, as in Krizhevsky et al. 2012 (section 4.1): mirroring, crops,
shifts and intensity, and small rotations.

View 0 is the image itself. What a view looks like depends on the image's pixels, the view's
number and the choice of mirroring alone: not on the batch, the epoch, the strategy or who computes
it, so that what frozen blocks make of it can be kept, and so that both strategies see the same
pictures.

A view is warped at twice the size of the images, from the original's pixels at that size, and then
reduced as the images are: warping an image that is already small would blur what is at the limit
of its resolution.

Legend: B views of a batch, H W height and width of the images, C channels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from transfer.backbones.catalog import Interpolation

ROTATION_DEGREES = 10.0
# A crop of the image, or the image with its border repeated: share of the side that is seen.
SCALE = (0.85, 1.1)
TRANSLATION = 0.05  # share of the side
BRIGHTNESS = 0.1  # share of the whole range
CONTRAST = 0.15

# Pillow's filters for half the size: triangle, and cubic convolution with a = -1/2 (R. Keys,
# "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics,
# Speech, and Signal Processing 29 (1981), 1153-1160).
HALVING: dict[Interpolation, tuple[float, ...]] = {
    "bilinear": tuple(w / 8 for w in (1, 3, 3, 1)),
    "bicubic": tuple(w / 256 for w in (-3, -9, 29, 111, 111, 29, -9, -3)),
}


class View(NamedTuple):
    """One variant: ``matrix`` (2, 3) maps places in the view to places in the image."""

    matrix: NDArray[np.float32]
    brightness: float
    contrast: float


@lru_cache(maxsize=100_000)
def draw_view(digest: str, view: int, flip: str = "horizontal") -> View:
    """Draw view number ``view`` >= 1 of the image with this hexadecimal pixel digest.

    Views that differ in ``flip`` alone are turned, cropped and lit the same.
    """
    rng = np.random.default_rng([int(digest[:32], 16), view])
    mirror = rng.choice([-1.0, 1.0])
    angle = np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    scale = rng.uniform(*SCALE)
    right, down = rng.uniform(-2 * TRANSLATION, 2 * TRANSLATION, size=2)  # a side spans -1..1
    brightness = 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast = 1 + rng.uniform(-CONTRAST, CONTRAST)
    overturn = rng.choice([-1.0, 1.0])
    across = 1.0 if flip == "none" else mirror
    along = overturn if flip == "both" else 1.0
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return View(
        matrix=np.array(
            [[across * cos, -along * sin, right], [across * sin, along * cos, down]],
            dtype=np.float32,
        ),
        brightness=brightness,
        contrast=contrast,
    )


def show_views(
    large_BCHW: Tensor,
    digests: Sequence[str],
    views_B: NDArray[np.int64],
    *,
    flip: str = "horizontal",
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """The views, (B, C, H, W), of pictures of 2H x 2W: float32, whole numbers of 0..255 both.

    Args:
        digests: of the pixels of each image.
        views_B: the number of each view, >= 1.
        interpolation: by which the images themselves were resized.
    """
    assert views_B.all()
    views = [draw_view(d, int(v), flip) for d, v in zip(digests, views_B, strict=True)]
    device = large_BCHW.device
    matrix_B23 = torch.from_numpy(np.stack([view.matrix for view in views])).to(device)
    brightness, contrast = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
        for values in ([view.brightness for view in views], [view.contrast for view in views])
    )
    pictures = large_BCHW.contiguous()
    grid = affine_grid(matrix_B23, list(pictures.shape), align_corners=False)
    pictures = grid_sample(
        pictures, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    pictures = _halved(_whole(pictures), HALVING[interpolation])
    # Whole numbers, so that a sum in float64 is exact and the mean the same in any batch.
    mean = pictures.double().mean(dim=(1, 2, 3), keepdim=True).float()
    # Rounded, so that a view is a picture of 8 bits like the image itself.
    return _whole((pictures - mean) * contrast + mean + brightness)


def _halved(pictures: Tensor, weights: Sequence[float]) -> Tensor:
    """Half the width and height, first the one and then the other as Pillow does it."""
    margin = len(weights) // 2 - 1
    for _ in range(2):
        padded = pad(pictures, (margin, margin, 0, 0), mode="replicate")
        end = padded.shape[-1] - len(weights) + 1
        # Whole numbers by weights of 8 bits: the sum is exact in float32, whatever its order.
        pictures = weights[0] * padded[..., 0:end:2]
        for i, weight in enumerate(weights[1:], start=1):
            pictures.add_(padded[..., i : end + i : 2], alpha=weight)
        pictures = _whole(pictures).mT
    return pictures


def _whole(pictures: Tensor) -> Tensor:
    """Grey values as 8 bits have them."""
    return pictures.clamp(0, 255).round()
