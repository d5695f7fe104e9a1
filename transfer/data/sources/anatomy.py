"""How one picture of a phantom is drawn: body, lungs, opacities, exposure.

Knows numpy and a single picture; nothing of splits, labels or what the user may ask for.

H = W = size pixels, K foci of an opacity in one image, P puffs in one focus. Lengths are in units
of half a picture, which spans -1..1 in x (to the right) and in y (down).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.floating[Any]]  # shape HW


class Kind(NamedTuple):
    """How the opacities of one class look: clusters of soft puffs, each around its focus."""

    name: str
    foci: tuple[int, int]  # fewest and most in one image
    radius: tuple[float, float]  # of a puff
    scatter: float  # standard deviation of the puffs around their focus
    height: tuple[float, float]  # of a focus in its lung: -1 at the apex, 1 at the base
    density: float


KINDS = (
    Kind("NORMAL", (0, 0), radius=(0.10, 0.10), scatter=0.00, height=(0.0, 0.0), density=0.0),
    Kind("OPACITY", (1, 3), radius=(0.05, 0.11), scatter=0.07, height=(-0.6, 0.7), density=1.0),
    Kind("NODULES", (3, 6), radius=(0.04, 0.06), scatter=0.01, height=(-0.7, 0.7), density=0.5),
    Kind("EFFUSION", (1, 2), radius=(0.16, 0.24), scatter=0.06, height=(0.9, 1.1), density=0.9),
    Kind("APICAL", (1, 2), radius=(0.08, 0.14), scatter=0.06, height=(-1.0, -0.7), density=0.7),
)
NUM_FOCI = max(kind.foci[1] for kind in KINDS)
NUM_PUFFS = 5
MOST_FAINT = 0.5  # share of its density that the faintest opacity lacks

SHARPNESS = 0.0045  # blur of every image, in picture sides
# What shift=1 does to an image.
VEIL, VEIL_UNEVENNESS = 0.03, 0.025  # density over the lungs
SOFTENING = 0.002  # blur, in picture sides
FLATTENING = 0.1  # lost share of the grey values' spread
BRIGHTENING = 8.0  # grey values

# Every image draws each of these uniformly from its range.
ANATOMY: Mapping[str, tuple[float, float]] = {
    "rotation": (-0.08, 0.08),  # radians
    "scale": (1.04, 1.22),
    "right": (-0.06, 0.06),
    "down": (0.00, 0.12),
    "torso_width": (0.92, 1.06),  # widths are half widths
    "neck_width": (0.26, 0.36),
    "shoulder_y": (-1.04, -0.88),  # where the neck ends
    "lung_x": (0.40, 0.46),
    "lung_y": (-0.06, 0.02),
    "lung_width": (0.29, 0.36),
    "lung_height": (0.66, 0.78),
    "diaphragm_y": (0.40, 0.56),  # of the tops of the two domes
    "diaphragm_tilt": (0.00, 0.04),  # the right dome, left in the picture, stands higher
    "heart_x": (0.06, 0.14),
    "heart_width": (0.26, 0.36),
    "heart_height": (0.26, 0.34),
    "air": (0.42, 0.60),  # from here on densities: how dark the lungs are
    "heart": (0.06, 0.16),
    "mediastinum": (0.10, 0.20),
    "spine": (0.08, 0.18),
    "clavicle": (0.05, 0.14),
    "ribs": (0.05, 0.12),
    "ribs_per_unit": (3.6, 4.6),
    "rib_phase": (0.0, 1.0),
    "rib_slope": (0.25, 0.50),
    "vessels": (0.03, 0.08),
    "hilum": (0.06, 0.18),
    "haze": (0.02, 0.07),  # slow unevenness of the whole picture
    "brightness": (110.0, 150.0),  # mean, standard deviation and noise of the grey values
    "spread": (42.0, 58.0),
    "noise": (2.0, 6.0),
}
Anatomy = Mapping[str, float]


def draw_image(
    rng: Generator, kind: Kind, size: int, contrast: float, shift: float
) -> NDArray[np.uint8]:
    """Draw one image: its body, then what lies in the lungs, then the exposure."""
    body = {name: rng.uniform(low, high) for name, (low, high) in ANATOMY.items()}
    opacity = contrast * _draw_opacity(rng, kind, body, size)
    fine, medium, slow = (_draw_field(rng, cells, size) for cells in (40, 14, 5))
    mottle = 0.6 * fine + medium
    x, y = _body_coordinates(body, size)
    torso, tissue = _torso(x, y, body)
    hilum = np.exp(-(((np.abs(x) - 0.2) / 0.16) ** 2) - ((y + 0.02) / 0.24) ** 2)
    in_lungs = (
        body["hilum"] * hilum
        + body["vessels"] * (0.4 + 1.2 * hilum) * mottle
        + body["air"] * np.tanh(opacity * np.exp(0.8 * mottle))
        + shift * (VEIL + VEIL_UNEVENNESS * medium)
        - body["air"]
    )
    density = tissue + _lungs(x, y, body) * in_lungs + _bones(x, y, body) + body["haze"] * slow
    return _expose(rng, torso * density, body, shift)


def _draw_opacity(rng: Generator, kind: Kind, body: Anatomy, size: int) -> Picture:
    """Sum the puffs of one image, Gaussian blobs around foci in the lungs."""
    how_many, faintness = rng.random(2)
    side_K, height_K, across_K, strength_K = rng.random((4, NUM_FOCI))
    offset_2KP = kind.scatter * rng.standard_normal((2, NUM_FOCI, NUM_PUFFS))
    radius_2KP = rng.uniform(*kind.radius, size=(2, NUM_FOCI, NUM_PUFFS))

    lowest, highest = kind.height
    height_K = lowest + (highest - lowest) * height_K
    reach_K = 0.75 * body["lung_width"] * np.sqrt(np.clip(1 - height_K**2, 0.1, 1.0))
    x_K = np.where(side_K < 0.5, -1, 1) * (body["lung_x"] + reach_K * (2 * across_K - 1))
    apex, base = body["lung_y"] - body["lung_height"], body["diaphragm_y"]
    y_K = (apex + base) / 2 + height_K * (base - apex) / 2
    x_KP, y_KP = np.stack([x_K, y_K])[:, :, None] + offset_2KP

    cos, sin = body["scale"] * np.cos(body["rotation"]), body["scale"] * np.sin(body["rotation"])
    right_KP = cos * x_KP - sin * y_KP + body["right"]
    down_KP = sin * x_KP + cos * y_KP + body["down"]
    profile_x, profile_y = (  # of shapes KPW and KPH
        np.exp(-0.5 * ((_pixel_centres(size) - at_KP[..., None]) / radius_KP[..., None]) ** 2)
        for at_KP, radius_KP in zip((right_KP, down_KP), radius_2KP, strict=True)
    )
    fewest, most = kind.foci
    is_there_K = np.arange(NUM_FOCI) < fewest + int(how_many * (most + 1 - fewest))
    density_K = kind.density * (1 - MOST_FAINT * faintness) * (0.8 + 0.4 * strength_K)
    profile_y *= (density_K * is_there_K)[:, None, None]
    opacity: Picture = np.tensordot(profile_y, profile_x, axes=([0, 1], [0, 1])).astype(np.float32)
    return opacity


def _draw_field(rng: Generator, cells: int, size: int) -> Picture:
    """Draw a smooth random field of variance 1, with this many cells along a side."""
    at = np.linspace(0.0, cells - 1.0, size, dtype=np.float32)
    weights = np.exp(-((at[:, None] - np.arange(cells, dtype=np.float32)) ** 2) / 0.72)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    field: Picture = weights @ rng.standard_normal((cells, cells), np.float32) @ weights.T
    return field


def _pixel_centres(size: int) -> Picture:
    return (2 * np.arange(size, dtype=np.float32) + 1) / size - 1


def _body_coordinates(body: Anatomy, size: int) -> tuple[Picture, Picture]:
    """Say where each pixel lies in the unrotated, unscaled, centred body: x and y."""
    right = _pixel_centres(size)[None, :] - np.float32(body["right"])
    down = _pixel_centres(size)[:, None] - np.float32(body["down"])
    cos = np.float32(np.cos(body["rotation"]) / body["scale"])
    sin = np.float32(np.sin(body["rotation"]) / body["scale"])
    return cos * right + sin * down, cos * down - sin * right


def _ramp(distance: Picture, width: float) -> Picture:
    """Rise from 0 to 1 over this width: the soft edge of an organ."""
    return (distance / width).clip(0.0, 1.0)


def _torso(x: Picture, y: Picture, body: Anatomy) -> tuple[Picture, Picture]:
    """Return the body's outline and the density of its soft tissue, the heart included."""
    shoulder = _ramp(y - body["shoulder_y"], 0.35)
    shoulder = shoulder * shoulder * (3 - 2 * shoulder)
    half_width = body["neck_width"] + (body["torso_width"] - body["neck_width"]) * shoulder
    thickness = np.sqrt(np.clip(1 - (x / (half_width + 0.04)) ** 2, 0.0, 1.0))
    mediastinum = np.exp(-((x / (0.17 + 0.06 * y)) ** 2))
    heart = (1 - 0.7 * mediastinum) * _heart(x, y, body)
    tissue = 0.3 + 0.55 * thickness + body["mediastinum"] * mediastinum + body["heart"] * heart
    return _ramp(half_width - np.abs(x), 0.06), tissue


def _heart(x: Picture, y: Picture, body: Anatomy) -> Picture:
    right = x - body["heart_x"]
    across, along = right / body["heart_width"], (y - 0.25 - 0.3 * right) / body["heart_height"]
    return _ramp(1 - across**2 - along**2, 0.4)


def _lungs(x: Picture, y: Picture, body: Anatomy) -> Picture:
    """Return how much of each pixel is lung: two ovals, cut by the diaphragm and by the heart."""
    outward = np.abs(x) - body["lung_x"]
    along = (y - body["lung_y"]) / body["lung_height"]
    across = outward / (body["lung_width"] * (1 + 0.18 * along))
    dome = body["diaphragm_y"] + np.sign(x) * body["diaphragm_tilt"] + 1.2 * (outward + 0.05) ** 2
    oval = _ramp(1 - across**2 - along**2, 0.3)
    return oval * _ramp(dome - y, 0.08) * (1 - 0.85 * _heart(x, y, body))


def _bones(x: Picture, y: Picture, body: Anatomy) -> Picture:
    """Return the density of spine, clavicles and ribs, those of the back and those in front."""
    side = np.abs(x)
    back = y - body["rib_slope"] * side + 0.55 * side**2
    front = 0.9 * (y + 0.9 * body["rib_slope"] * side)
    back_wave, front_wave = (
        np.clip(1.2 * np.cos(2 * np.pi * (level * body["ribs_per_unit"] + phase)) - 0.2, 0.0, 1.0)
        for level, phase in ((back, body["rib_phase"]), (front, 1.7 * body["rib_phase"]))
    )
    cage = _ramp(0.86 - side, 0.1) * _ramp(0.75 - y, 0.3) * _ramp(y + 0.85, 0.15)
    spine = np.exp(-((x / 0.1) ** 2)) * (1 + 0.25 * np.cos(10 * np.pi * y))
    bow = y + 0.60 + 0.22 * (side - 0.3) - 0.25 * (side - 0.3) ** 2
    clavicle = np.exp(-((bow / 0.035) ** 2)) * _ramp(0.74 - side, 0.1) * _ramp(side - 0.06, 0.05)
    ribs = body["ribs"] * cage * (back_wave + 0.45 * front_wave)
    bones: Picture = ribs + body["spine"] * spine + body["clavicle"] * clavicle
    return bones


def _expose(rng: Generator, density: Picture, body: Anatomy, shift: float) -> NDArray[np.uint8]:
    """Turn densities into grey values of a drawn brightness and spread, with noise.

    Normalised *after* the opacities are in, so that brightness gives no class away.
    """
    blurred = ndimage.gaussian_filter(density, (SHARPNESS + SOFTENING * shift) * len(density))
    grey = (blurred - blurred.mean()) / blurred.std()
    grey *= body["spread"] * (1 - FLATTENING * shift)
    grey += body["brightness"] + BRIGHTENING * shift
    grey += body["noise"] * rng.standard_normal(grey.shape, np.float32)
    picture: NDArray[np.uint8] = grey.round().clip(0, 255).astype(np.uint8)
    return picture
