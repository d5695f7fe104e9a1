"""The opened test images: what every finalist says of them, and what is kept to explain it later.

Called once the opening is recorded; what is kept spares report and explanation another opening.
Knows networks and images; no metric and no ledger.

Legend: N test images, M images of training and validation, S seeds, C classes, D features.
"""

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from studies.bundle.bundle import Bundle
from studies.bundle.export import read_trained
from studies.database.artifacts import TEST_FEATURES, TEST_PREDICTIONS, TEST_THUMBNAILS, upload
from studies.database.storage import StudyStorage, load_study
from studies.database.trials import TrialRecord
from studies.evaluation.setup import Finalists, Ready
from studies.results.controls import KEYS, NONE
from studies.search.controls import log_probabilities
from studies.statistics.metrics import Labels
from studies.watchers import Progress
from transfer.activations.activations import Activations
from transfer.cache import default_limit
from transfer.config import TransferConfig
from transfer.controls import CONTROLS
from transfer.data.decoding import resize
from transfer.data.loading import ImageData
from transfer.data.unsealing import unsealed
from transfer.inference import predict_logits
from transfer.weights.find import WeightFile

Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Said:
    """Logits for the test images: (N, C) of the bundle, (S, N, C) of each strategy's choice.

    ``controls`` has those of every control by the number of its trial. ``groups_N`` is None where
    nobody knows whose pictures they are.``features`` are the
    pretrained ones of the finalists' backbones, (M, D) and (N, D).
    """

    names: tuple[str, ...]
    labels_N: Labels
    bundle_NC: Logits
    by_strategy: Mapping[str, Logits]
    controls: Mapping[int, Logits]
    groups_N: Labels | None = None
    features: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    thumbnails_NHWC: NDArray[np.uint8]


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


# Pixels of a side: enough to see what an error is about.
THUMBNAIL_SIZE = 96


def open_test_images(
    storage: StudyStorage, bundle: Bundle, found: Finalists, ready: Ready, progress: Progress
) -> Said:
    """Break the seal: every finalist and control looks at the test images, and nothing else does.

    Raises:
        ValueError: an image of 16 bits among data of 8.
    """
    with _opened_folder(ready.cache_dir) as folder:

        def look() -> Said:
            test = unsealed(ready.data, folder, progress.work)
            return _said(storage, bundle, found, ready, test, folder, progress)

        try:
            return look()
        finally:
            # What is in the folder is mapped no longer: Windows removes no open file.
            gc.collect()


@contextmanager
def _opened_folder(cache_dir: Path) -> Iterator[Path]:
    """A folder for what is computed of opened images, forgotten at the end of the block.

    One that a killed process has left is forgotten now.
    """
    place = cache_dir / "opened"
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        lock = FileLock(left / ".lock", blocking=False)
        try:
            with lock:
                shutil.rmtree(left, ignore_errors=True)
        except (Timeout, OSError):
            continue  # Of an evaluation that is running.
    with (
        tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as name,
        FileLock(Path(name) / ".lock"),
    ):
        yield Path(name)


def _said(
    storage: StudyStorage,
    bundle: Bundle,
    found: Finalists,
    ready: Ready,
    test: ImageData,
    folder: Path,
    progress: Progress,
) -> Said:
    """What every finalist says of the opened images."""
    device = ready.device

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
    pretrained = (
        look(ready.data, ready.weights, ready.cache_dir),
        look(test, ready.weights, folder),
    )
    random = (
        look(ready.data, ready.random_weights, ready.cache_dir),
        look(test, ready.random_weights, folder),
    )

    def of_run(run: TrialRecord, passes: int) -> Logits:
        config, state = TransferConfig(**run.config), read_trained(storage, run)
        return predict_logits(config, pretrained[1], state, passes=passes)

    interpolation = bundle.config.preprocessing.interpolation
    bundle_NC = asked(bundle.classifier(device).logits(test.pixels(interpolation)))
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
        groups_N=test.val.groups_N,
        bundle_NC=bundle_NC,
        by_strategy=by_strategy,
        controls=controls,
        features={name: (_features(known, name), _features(opened, name)) for name in backbones},
        thumbnails_NHWC=_thumbnails(test.images_NHWC),
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
    predict = CONTROLS[name](
        known_MD[train.positions_N], train.labels_N, len(known.data.classes), train.groups_N
    )
    return log_probabilities(predict(opened_ND))


def _features(activations: Activations, backbone: str) -> NDArray[np.float32]:
    return np.asarray(activations.features(backbone).cpu().numpy(), dtype=np.float32)


def _thumbnails(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    num_images, height, _, channels = images_NHWC.shape
    size = min(THUMBNAIL_SIZE, height)
    small_NHWC = np.empty((num_images, size, size, channels), np.uint8)
    for small_HWC, image_HWC in zip(small_NHWC, images_NHWC, strict=True):
        found = resize(image_HWC[..., 0] if channels == 1 else np.asarray(image_HWC), size)
        small_HWC[...] = found.reshape(small_HWC.shape)
    return small_NHWC
