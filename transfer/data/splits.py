"""Training and validation splits: stratified and seeded. Knows labels, not images."""

import numpy as np
from numpy.typing import NDArray

VAL_SHARE = 0.2


def stratified_split(
    labels_N: NDArray[np.int64], seed: int, val_share: float = VAL_SHARE
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions for training and validation, each sorted; every class is in both.

    Raises:
        ValueError: a class has fewer than two images.
    """
    train, val = [], []
    for label in np.unique(labels_N):
        positions = np.flatnonzero(labels_N == label)
        if len(positions) < 2:
            raise ValueError(
                "Every class needs at least 2 training images (one is set aside for validation), "
                f"but class number {int(label) + 1} has {len(positions)}."
            )
        shuffled = np.random.default_rng([seed, int(label)]).permutation(positions)
        num_val = min(max(1, round(val_share * len(positions))), len(positions) - 1)
        val.append(shuffled[:num_val])
        train.append(shuffled[num_val:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))
