"""How alike two sets of features of the same images are. Knows arrays; nothing of networks.

Legend: N images, D and E features.
"""

import numpy as np
from numpy.typing import NDArray

# Its cost grows with the square of the images, its precision hardly.
MOST_IMAGES = 1000


def linear_cka(first_ND: NDArray[np.floating], second_NE: NDArray[np.floating]) -> float:
    """Linear centred kernel alignment: 1 for features that differ by rotation and scale alone.

    Without the bias of few images (the plain one nears 1 where there are more features than
    images, whatever they are): about 0, and below by chance, for features that have nothing in
    common. Of more than 1,000 images every k-th is taken.

    Sources: S. Kornblith et al., "Similarity of neural network representations revisited", ICML
    2019; the unbiased estimator: L. Song et al., "Feature selection via dependence maximization",
    Journal of Machine Learning Research 13 (2012), 1393-1434, equation 5.

    Raises:
        ValueError: not the same images, fewer than 4, or features that do not vary.
    """
    if len(first_ND) != len(second_NE) or len(first_ND) < 4:
        raise ValueError(
            "`4 or more images, the same for both` must hold, but got "
            f"{len(first_ND)} and {len(second_NE)}."
        )
    stride = -(-len(first_ND) // MOST_IMAGES)
    first_NN, second_NN = (_gram(features[::stride]) for features in (first_ND, second_NE))
    own = _hsic(first_NN, first_NN) * _hsic(second_NN, second_NN)
    if own <= 0:
        raise ValueError("`features that vary between images` must hold, but they don't.")
    return float(_hsic(first_NN, second_NN) / own**0.5)


def _gram(features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    centred_ND = np.asarray(features_ND, np.float64)
    centred_ND = centred_ND - centred_ND.mean(axis=0)
    gram_NN: NDArray[np.float64] = centred_ND @ centred_ND.T
    np.fill_diagonal(gram_NN, 0.0)
    return gram_NN


def _hsic(first_NN: NDArray[np.float64], second_NN: NDArray[np.float64]) -> float:
    """Unbiased Hilbert-Schmidt independence criterion of two Gram matrices without diagonal."""
    n = len(first_NN)
    product = float((first_NN * second_NN).sum())
    sums = float(first_NN.sum() * second_NN.sum()) / ((n - 1) * (n - 2))
    rows = float(first_NN.sum(axis=0) @ second_NN.sum(axis=0)) * 2 / (n - 2)
    return (product + sums - rows) / (n * (n - 3))
