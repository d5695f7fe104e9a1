"""What is kept of opened test images, so that report and diagnosis never open them again.

Legend: N test images, M images of training and validation, D features.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.database.artifacts import TEST_FEATURES, TEST_PREDICTIONS, TEST_THUMBNAILS
from studies.database.storage import StudyStorage, load_study
from studies.database.uploads import upload
from studies.evaluation.finalists import Finalists
from studies.evaluation.images import Said
from studies.evaluation.setup import Ready


def store(storage: StudyStorage, found: Finalists, ready: Ready, said: Said) -> dict[str, str]:
    """Keep predictions, features and thumbnails as artifacts of the study; ids by file name.

    Report and diagnosis read them, and never open the test images again. Groups are those of
    images, where they are known: of each set for itself. Features are rounded to
    float16 where they fit: they tell distributions apart, they predict nothing.
    """
    data = ready.data
    numbers = list(said.controls)
    groups = {
        "train_groups": data.train.groups_N,
        "val_groups": data.val.groups_N,
        "test_groups": said.groups_N,
    }
    known = {name: codes_N for name, codes_N in groups.items() if codes_N is not None}
    arrays: dict[str, dict[str, Any]] = {
        TEST_PREDICTIONS: {
            "names_N": np.array(said.names),
            "labels_N": said.labels_N,
            **({} if said.groups_N is None else {"groups_N": said.groups_N}),
            "bundle_NC": said.bundle_NC,
            **{f"{strategy}_SNC": logits for strategy, logits in said.by_strategy.items()},
            "control_numbers": np.array(numbers, np.int64),
            "controls_KNC": np.stack([said.controls[number] for number in numbers])
            if numbers
            else np.zeros((0, *said.bundle_NC.shape), np.float32),
        },
        TEST_FEATURES: {
            "backbones": np.array(list(said.features)),
            "train_positions": data.train.positions_N,
            "train_labels": data.train.labels_N,
            "val_positions": data.val.positions_N,
            "val_labels": data.val.labels_N,
            "test_labels": said.labels_N,
            **known,
            **{f"data_{i}": _half(pair[0]) for i, pair in enumerate(said.features.values())},
            **{f"test_{i}": _half(pair[1]) for i, pair in enumerate(said.features.values())},
        },
        TEST_THUMBNAILS: {"images_NHWC": said.thumbnails_NHWC},
    }
    study = load_study(storage, found.name)
    return {
        name: upload(storage, study, name, partial(np.savez_compressed, **content))
        for name, content in arrays.items()
    }


def _half(features_ND: NDArray[np.float32]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        half_ND = features_ND.astype(np.float16)
    return half_ND if np.isfinite(half_ND).all() else features_ND
