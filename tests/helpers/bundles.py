"""Bundles for tests: small ones made at once, and what a stranger could do to their files."""

import hashlib
import json

import numpy as np
import safetensors.torch
import torch
from PIL import Image

import studies
from studies.bundle.bundle import file_hash, write_bundle
from studies.bundle.card import model_card
from studies.bundle.config import (
    CONFIG,
    MODEL,
    BundleConfig,
    DataOrigin,
    Preprocessing,
    Scaling,
    Search,
    StudyOrigin,
    Validation,
    WeightsOrigin,
    checksum,
    configuration_of,
)
from studies.bundle.reproduce import Recipe, script_text
from transfer.backbones.find import find_spec
from transfer.config import TransferConfig
from transfer.weights.find import find_weights
from transfer.weights.whole import HEAD, whole_network

BACKBONE = "mobilenet_v3_small"


def head(num_classes, num_features, seed=0):
    """A head that gives logits of about 1: no probability is so near 0 or 1 that all agree."""
    noise = torch.Generator().manual_seed(seed)
    shapes = ((num_classes, num_features), (num_classes,))
    return {
        key: torch.randn(*shape, generator=noise) / 100
        for key, shape in zip(HEAD, shapes, strict=True)
    }


def bundle_config(files, classes=("NORMAL", "OPACITY"), window=None, **changes):
    backbone = changes.pop("backbone", BACKBONE)
    spec = find_spec(backbone)
    counts = dict.fromkeys(classes, 20)
    values = {
        "created": "2026-01-01T00:00:00+00:00",
        "configuration": configuration_of(
            TransferConfig(
                backbone=backbone,
                strategy="feature_extraction",
                learning_rate=1e-3,
                batch_size=16,
                seed=1,
            )
        ),
        "classes": classes,
        "preprocessing": Preprocessing(
            image_size=32,
            mean=spec.mean,
            std=spec.std,
            window=window,
            resize="squeeze",
            interpolation=spec.interpolation,
        ),
        "calibration": Scaling(scale=0.5, biases=(0.0, *[0.0] * (len(classes) - 1))),
        "threshold": 0.4 if len(classes) == 2 else None,
        "refit": False,
        "validation": Validation(
            metric="accuracy",
            value=0.75,
            values=(0.75, 0.5),
            metrics={"accuracy": 0.75, "loss": 0.5},
            best_epoch=3,
            num_images=20,
            loss_calibrated=0.4,
        ),
        "study": StudyOrigin(
            name="s",
            storage="sqlite:////nowhere/studies.db",
            trial=4,
            confirm_trial=0,
            seeds=(1, 2),
            seed=1,
            split_seed=0,
            resplit=False,
            threads=1,
        ),
        "search": Search(
            space="tiny",
            num_trials=5,
            num_pruned=1,
            num_failed=0,
            num_confirmed=2,
            choose="best",
        ),
        "data": DataOrigin(
            source="/data/images",
            group_pattern=None,
            fingerprint="0" * 64,
            test_fingerprint="1" * 64,
            counts={"train": counts, "val": counts, "test": counts},
            flags={},
            allowed=(),
            warnings=(),
            left_out={},
        ),
        "weights": WeightsOrigin(kind="random", sha256="random-0", seed=0),
        "backbone_module": None,
        "versions": {"python": "3.11.7"},
        "files": files,
    }
    return BundleConfig(**(values | changes))


HASHES = {"model.safetensors": "2" * 64, "reproduce.sh": "3" * 64}


def make_bundle(out, **changes):
    """Write a bundle of random weights; returns its folder."""
    config = bundle_config(HASHES, **changes)
    weight_file = find_weights(config.backbone, weights="random")
    trained = head(len(config.classes), find_spec(config.backbone).num_features)
    write_bundle(
        out,
        lambda files: bundle_config(dict(files), **changes),
        whole_network(weight_file, trained),
        script=script_text(Recipe.of(config), 0.75, refit=False, has_module=False),
        card=model_card,
    )
    return out


def edit(folder, change, *, signed=True):
    """Change what config.json says; signed, its checksum is the one of what it says then."""
    path = folder / CONFIG
    values = json.loads(path.read_text(encoding="utf-8"))
    told = values.pop("checksum")
    change(values)
    told = checksum(values) if signed else told
    path.write_text(json.dumps({"checksum": told, **values}), encoding="utf-8")


def replace_model(folder, content):
    """Put other bytes in place of the model, with the hash and the checksum that fit."""
    (folder / MODEL).write_bytes(content)
    edit(folder, lambda values: values["files"].update({MODEL: file_hash(folder / MODEL)}))


def edit_tensors(folder, change):
    tensors = safetensors.torch.load_file(folder / MODEL)
    change(tensors)
    replace_model(folder, safetensors.torch.save(tensors))


def save_images(folder, num_images, size=40, depth=8, seed=0):
    """Grey noise as PNG files."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(num_images):
        high, kind = (256, np.uint8) if depth == 8 else (65536, np.uint16)
        pixels = rng.integers(0, high, (size, size + i % 3), dtype=kind)
        paths.append(folder / f"{i:03d}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def tree_hash(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


SPACE = """
name = "tiny"
[backbone]
choices = ["resnet18"]
[strategy]
choices = ["feature_extraction", "fine_tuning"]
[learning_rate.feature_extraction]
low = 1e-3
high = 1e-2
log = true
[learning_rate.fine_tuning]
low = 1e-4
high = 1e-3
log = true
[batch_size]
choices = [16]
[num_unfrozen_layers.fine_tuning]
low = 1
high = 1
"""


def run_study(home, **given):
    """A small study with random weights in ``home``; returns its database."""
    home.mkdir(exist_ok=True)
    (home / "space.toml").write_text(SPACE, encoding="utf-8")
    storage = f"sqlite:///{home / 'studies.db'}"
    options = {
        "name": "s",
        "data": "phantom:train=60,test=20,size=32",
        "space": str(home / "space.toml"),
        "weights": "random",
        "epochs": 3,
        "trials": 4,
        "top": 1,
        "seeds": 2,
        "storage": storage,
        "cache_dir": home / "cache",
    }
    studies.run(**(options | given))
    return storage
