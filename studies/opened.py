"""The opened test images: what every finalist says of them, and what is kept to explain it later.

Called once the opening is recorded. Knows networks and images; no metric and no ledger.

Legend: N test images, M images of training and validation, S seeds, C classes, D features.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.artifacts import upload_artifact

from studies.artifacts import TEST_FEATURES, TEST_PREDICTIONS, TEST_THUMBNAILS
from studies.bundle import Bundle
from studies.calibration import Labels
from studies.chosen_run import read_trained
from studies.control_rows import KEYS, NONE
from studies.controls import log_probabilities
from studies.finalists import Finalists
from studies.progress import Progress
from studies.records import TrialRecord
from studies.retraining import Places, Recipe, find_same_weights, load_same_data
from studies.storage import StudyStorage, load_study
from transfer.activations import Activations
from transfer.cache import cache_folder, default_limit
from transfer.config import TransferConfig
from transfer.controls import CONTROLS
from transfer.data.decoding import resize
from transfer.data.loading import ImageData, unsealed
from transfer.device import choose_device
from transfer.trained import predict_logits
from transfer.weights import WeightFile, find_weights

Logits = NDArray[np.float32]

PREDICTIONS, FEATURES, THUMBNAILS = TEST_PREDICTIONS, TEST_FEATURES, TEST_THUMBNAILS
# Pixels of a side: enough to see what an error is about.
THUMBNAIL_SIZE = 96


@dataclass(frozen=True, kw_only=True)
class Ready:
    """All that the evaluation needs at hand, found before the seal is broken."""

    data: ImageData
    weights: Mapping[str, WeightFile]
    random_weights: Mapping[str, WeightFile]
    places: Places


@dataclass(frozen=True, kw_only=True)
class Said:
    """Logits for the test images: (N, C) of the bundle, (S, N, C) of each strategy's choice.

    ``controls`` has those of every control by the number of its trial. ``features`` are the
    pretrained ones of the finalists' backbones, (M, D) and (N, D).
    """

    names: tuple[str, ...]
    labels_N: Labels
    bundle_NC: Logits
    by_strategy: Mapping[str, Logits]
    controls: Mapping[int, Logits]
    features: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    thumbnails_NHWC: NDArray[np.uint8]


def get_ready(found: Finalists, places: Places, progress: Progress) -> Ready:
    """Find data and weights, so that nothing is missing once the seal is broken.

    Raises:
        UserError, ValueError: something is missing or not the study's.
    """
    recipe, settings = Recipe.of(found.bundle), found.study.settings
    weights = {}
    for backbone in _backbones(found):
        origin = recipe.weights.model_copy(
            update={"sha256": found.study.identity["weights"][backbone]}
        )
        config = replace(recipe.config, backbone=backbone)
        same = replace(recipe, config=config, weights=origin)
        weights[backbone] = find_same_weights(same, places)
    # Controls were fitted to the training images of the study, whatever split the bundle had.
    split = recipe.study.model_copy(update={"split_seed": settings["seed"]})
    data = load_same_data(replace(recipe, study=split), places, progress)
    if data.test_fingerprint != found.bundle.data.test_fingerprint:
        raise ValueError(
            f"The test images or labels are not those of study '{found.name}' (fingerprint "
            f"{data.test_fingerprint[:12]}, expected {found.bundle.data.test_fingerprint[:12]}); "
            "name the study's data with --data."
        )
    deep = [fact for fact in data.kept["test"].facts if ";16" in fact.mode]
    if deep and data.window is None:
        raise ValueError(
            f"{len(deep)} test images have 16 bits, but the training images have 8, so that "
            "nothing says how they become images of 8 bits; convert them."
        )
    return Ready(
        data=data,
        weights=weights,
        random_weights={
            backbone: find_weights(backbone, weights="random", seed=settings["seed"])
            for backbone in weights
        },
        places=places,
    )


def _backbones(found: Finalists) -> list[str]:
    trained = [run.config["backbone"] for c in found.candidates.values() for run in c.runs]
    trained += [run.config["backbone"] for run in found.recipes]
    looked_at = [run.keyed_params[KEYS[1]] for run in found.on_features]
    return [name for name in dict.fromkeys([*trained, *looked_at]) if name != NONE]


def open_test_images(
    storage: StudyStorage, bundle: Bundle, found: Finalists, ready: Ready, progress: Progress
) -> Said:
    """Break the seal: every finalist and control looks at the test images, and nothing else does.

    Raises:
        ValueError: an image of 16 bits among data of 8.
    """
    device, cache_dir = choose_device(ready.places.device), cache_folder(ready.places.cache_dir)
    test = unsealed(ready.data)

    def look(data: ImageData, weights: Mapping[str, WeightFile], cache: Path) -> Activations:
        return Activations(
            data=data,
            weights=weights,
            cache_dir=cache,
            device=device,
            limit_bytes=default_limit(cache),
        )

    trained = {str(strategy): list(c.runs) for strategy, c in found.candidates.items()}
    total = 1 + sum(map(len, trained.values())) + len(found.controls)
    asked = _asked(progress, total)
    # What is computed of the test images is forgotten with the folder.
    with tempfile.TemporaryDirectory(prefix="opened-") as name:
        folder = Path(name)
        pretrained = (
            look(ready.data, ready.weights, cache_dir),
            look(test, ready.weights, folder),
        )
        random = (
            look(ready.data, ready.random_weights, cache_dir),
            look(test, ready.random_weights, folder),
        )

        def of_run(run: TrialRecord, passes: int) -> Logits:
            config, state = TransferConfig(**run.config), read_trained(storage, run)
            return predict_logits(config, pretrained[1], state, passes=passes)

        bundle_NC = asked(bundle.classifier(device).logits(test.images_NHWC))
        by_strategy = {
            strategy: np.stack([asked(of_run(run, len(runs))) for run in runs])
            for strategy, runs in trained.items()
        }
        controls = {}
        for run in found.on_features:
            is_random = run.keyed_params[KEYS[2]] == "random"
            is_random = is_random and found.study.settings["weights"] != "random"
            controls[run.number] = asked(_of_control(run, *(random if is_random else pretrained)))
        for run in found.recipes:
            controls[run.number] = asked(of_run(run, 1))
        backbones = dict.fromkeys(runs[0].config["backbone"] for runs in trained.values())
        known, opened = pretrained
        return Said(
            names=test.names,
            labels_N=test.val.labels_N,
            bundle_NC=bundle_NC,
            by_strategy=by_strategy,
            controls=controls,
            features={
                name: (_features(known, name), _features(opened, name)) for name in backbones
            },
            thumbnails_NHWC=np.stack([_thumbnail(image) for image in test.images_NHWC]),
        )


def _asked(progress: Progress, total: int) -> Callable[[Logits], Logits]:
    """Says how many networks have looked, whenever one has."""
    done = 0
    progress.work("test images", done, total)

    def asked(logits: Logits) -> Logits:
        nonlocal done
        done += 1
        progress.work("test images", done, total)
        return logits

    return asked


def _of_control(run: TrialRecord, known: Activations, opened: Activations) -> Logits:
    """A control fitted to training images as it was, and asked about the test images."""
    name, backbone, _ = (run.keyed_params[key] for key in KEYS)
    train, num_test = known.data.train, len(opened.data)
    if backbone == NONE:
        known_MD = np.zeros((len(known.data), 0), np.float32)
        opened_ND = np.zeros((num_test, 0), np.float32)
    else:
        known_MD, opened_ND = _features(known, backbone), _features(opened, backbone)
    predict = CONTROLS[name](known_MD[train.positions_N], train.labels_N, len(known.data.classes))
    return log_probabilities(predict(opened_ND))


def _features(activations: Activations, backbone: str) -> NDArray[np.float32]:
    return np.asarray(activations.features(backbone).cpu().numpy(), dtype=np.float32)


def _thumbnail(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = min(THUMBNAIL_SIZE, len(image_HWC))
    grey = (image_HWC == image_HWC[..., :1]).all()
    small = resize(image_HWC[..., 0] if grey else image_HWC, size)
    return np.repeat(small[..., None], 3, axis=2) if grey else small


def store(storage: StudyStorage, found: Finalists, ready: Ready, said: Said) -> dict[str, str]:
    """Keep predictions, features and thumbnails as artifacts of the study; ids by file name.

    Report and diagnosis read them, and never open the test images again. Features are rounded to
    float16 where they fit: they tell distributions apart, they predict nothing.
    """
    data = ready.data
    numbers = list(said.controls)
    arrays: dict[str, dict[str, Any]] = {
        PREDICTIONS: {
            "names_N": np.array(said.names),
            "labels_N": said.labels_N,
            "bundle_NC": said.bundle_NC,
            **{f"{strategy}_SNC": logits for strategy, logits in said.by_strategy.items()},
            "control_numbers": np.array(numbers, np.int64),
            "controls_KNC": np.stack([said.controls[number] for number in numbers])
            if numbers
            else np.zeros((0, *said.bundle_NC.shape), np.float32),
        },
        FEATURES: {
            "backbones": np.array(list(said.features)),
            "train_positions": data.train.positions_N,
            "train_labels": data.train.labels_N,
            "val_positions": data.val.positions_N,
            "val_labels": data.val.labels_N,
            "test_labels": said.labels_N,
            **{f"data_{i}": _half(pair[0]) for i, pair in enumerate(said.features.values())},
            **{f"test_{i}": _half(pair[1]) for i, pair in enumerate(said.features.values())},
        },
        THUMBNAILS: {"images_NHWC": _grey_if_all(said.thumbnails_NHWC)},
    }
    study = load_study(storage, found.name)
    ids = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in arrays.items():
            path = Path(folder) / name
            np.savez_compressed(path, **content)
            ids[name] = upload_artifact(
                artifact_store=storage.artifacts, file_path=str(path), study_or_trial=study
            )
    return ids


def _half(features_ND: NDArray[np.float32]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        half_ND = features_ND.astype(np.float16)
    return half_ND if np.isfinite(half_ND).all() else features_ND


def _grey_if_all(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images_NHWC[..., :1] if (images_NHWC == images_NHWC[..., :1]).all() else images_NHWC
