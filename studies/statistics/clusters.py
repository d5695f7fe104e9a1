"""Images that come in groups: how groups are drawn, and how many images they are worth.

A group is a subject, a slide, a video: images that are no independent evidence of each other.
Pure functions of labels and of ``groups_N``, which are whole numbers, or None where nobody knows
whose pictures they are; then images are taken as independent.

Legend: N images, G groups.

Sources: J. N. K. Rao, A. J. Scott, "A simple method for the analysis of clustered binary data",
Biometrics 48 (1992), 577-585: the number of images that count; A. C. Davison, D. V. Hinkley,
"Bootstrap methods and their application", 1997, section 3.8: groups are drawn whole.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from studies.statistics.metrics import Floats, Labels


class Clusters(NamedTuple):
    """The group of each image, (N,) from 0 on, and the stratum that each group is drawn in, (G,).

    Groups of one class are drawn class by class; those that hold several are a stratum of their
    own, unless it is one group.
    """

    group_N: Labels
    stratum_G: Labels

    @property
    def degrees_of_freedom(self) -> int:
        """Of a variance between groups within their strata."""
        return len(self.stratum_G) - len(np.unique(self.stratum_G))

    @property
    def has_lone(self) -> bool:
        """Whether a stratum has one group, which is never drawn otherwise."""
        return bool((np.bincount(self.stratum_G) == 1).any())


def images_words(num_images: int, num_subjects: int | None, images: str) -> str:
    """How many ``images`` (what they are called), and of how many subjects where that is known."""
    if num_subjects is None:
        return f"{num_images:,} {images}, taken as independent"
    return f"{num_images:,} {images} of {num_subjects:,} subject{'' if num_subjects == 1 else 's'}"


def num_subjects(groups_N: Labels | None) -> int | None:
    """How many groups there are; None where none are known."""
    return None if groups_N is None else len(np.unique(groups_N))


def find_clusters(labels_N: Labels, groups_N: Labels | None) -> Clusters | None:
    """The groups of images; None where images are drawn one by one: each is its own group.

    Raises:
        ValueError: there is not one group for each image.
    """
    if groups_N is None:
        return None
    if np.shape(groups_N) != np.shape(labels_N):
        raise ValueError(
            f"`groups_N` must hold a group for each of {len(labels_N)} images, but got shape "
            f"{np.shape(groups_N)}."
        )
    names, group_N = np.unique(groups_N, return_inverse=True)
    if len(names) == len(labels_N):
        return None
    lowest_G = np.full(len(names), np.iinfo(np.int64).max)
    highest_G = np.full(len(names), -1)
    np.minimum.at(lowest_G, group_N, labels_N)
    np.maximum.at(highest_G, group_N, labels_N)
    several = int(np.max(labels_N)) + 1
    stratum_G = np.where(lowest_G == highest_G, lowest_G, several)
    alone = np.flatnonzero(stratum_G == several)
    pure = np.unique(stratum_G[stratum_G < several])
    if len(alone) == 1 and np.isin(labels_N[group_N == alone[0]], pure).all():
        # By itself it would never be drawn: it goes to the class of most of its images. Where it
        # alone has a class it must stay in every draw.
        counts_C = np.bincount(labels_N[group_N == alone[0]], minlength=several)
        stratum_G[alone] = pure[counts_C[pure].argmax()]
    return Clusters(group_N, stratum_G)


def images_worth(clusters: Clusters, of_images: float, of_groups: float) -> float:
    """The number of independent images that tell as much: N over the design effect, G to N.

    The design effect is the variance by groups over that by images. From few errors nobody can
    tell it: two errors more, of images whose groups err as one, make it N / G where there are
    none.

    Args:
        of_images, of_groups: variances of a metric in [0, 1], images and groups being drawn.
    """
    num_images, num_groups = len(clusters.group_N), len(clusters.stratum_G)
    of_images += 2 / num_images**2
    of_groups += 2 / (num_images * num_groups)
    return float(np.clip(num_images * of_images / of_groups, num_groups, num_images))


def share_worth(
    hits_N: Floats, groups_N: Labels | None, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Of a share of images: the independent images they are worth, and Student's t; or None.

    None where images are drawn one by one. Images all of one group are worth one.
    """
    clusters = find_clusters(np.zeros(len(hits_N), np.int64), groups_N)
    if clusters is None:
        return None
    if not clusters.degrees_of_freedom:
        return 1.0, float(norm.ppf((1 + confidence) / 2))
    num_images, num_groups = len(hits_N), len(clusters.stratum_G)
    share = float(np.mean(hits_N))
    errors_G = np.bincount(clusters.group_N, hits_N - share)
    of_groups = float(errors_G @ errors_G) / num_images**2 * num_groups / (num_groups - 1)
    of_images = share * (1 - share) / (num_images - 1)
    width = float(student_t.ppf((1 + confidence) / 2, clusters.degrees_of_freedom))
    return images_worth(clusters, of_images, of_groups), width
