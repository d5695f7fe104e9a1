"""What each recipe is worth on small data sets: paired differences over seeds, with intervals.

A seed draws the training images, the validation images (both from the training split: test images
stay sealed), the head and the batches. Every recipe is compared with plain training of the same
seed. The numbers are validation numbers of the best epoch, as a study would report them.

    python benchmarks/recipes.py --data ../shared/data/chest_xray --weights-dir ../shared/weights

prints one Markdown table a strategy and a log line a run on stderr.
"""

import argparse
import dataclasses
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from studies.statistics import mean_interval
from transfer.activations import Activations
from transfer.backbones import find_spec
from transfer.cache import cache_folder
from transfer.config import TransferConfig
from transfer.data.loading import ImageData, Split, load_data
from transfer.data.sources import open_source
from transfer.training import train
from transfer.weights import WeightFile, find_weights

FOR_BOTH = {
    "weight_decay 0.1 (0.01)": {"weight_decay": 0.1},
    "dropout 0 (0.2)": {"dropout": 0.0},
    "label_smoothing 0.1": {"label_smoothing": 0.1},
    "class_weights balanced": {"class_weights": "balanced"},
    "mixup 0.2": {"mixup": 0.2},
    "ema_decay 0.99": {"ema_decay": 0.99},
    "num_views 4": {"num_views": 4},
}
FOR_FINE_TUNING = {
    "head_init probe": {"head_init": "probe"},
    "layer_decay 0.75": {"layer_decay": 0.75},
    "gradual_unfreezing 0.5": {"gradual_unfreezing": 0.5},
    "batch_norm frozen": {"batch_norm": "frozen"},
}
RECIPES = {
    "fine_tuning": {"plain": {}, **FOR_FINE_TUNING, **FOR_BOTH},
    "feature_extraction": {"plain": {}, **FOR_BOTH},
}
METRICS = ("accuracy", "auroc", "loss")


def drawn(data: ImageData, seed: int, num_train: int, num_val: int) -> ImageData:
    """The same images with other training and validation images, drawn at the set's own rates."""
    labels_N = np.empty(len(data), dtype=np.int64)
    for split in (data.train, data.val):
        labels_N[split.positions_N] = split.labels_N
    order = np.random.default_rng(seed).permutation(len(data))
    train, val = np.sort(order[:num_train]), np.sort(order[num_train : num_train + num_val])
    return dataclasses.replace(
        data,
        train=Split(positions_N=train, labels_N=labels_N[train]),
        val=Split(positions_N=val, labels_N=labels_N[val]),
    )


def runs(
    arguments: argparse.Namespace, data: ImageData, weights: WeightFile, strategy: str
) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Recipe, seed and validation metrics of every run."""
    k = round(arguments.depth_share * find_spec(arguments.backbone).depth)
    rate = {
        "fine_tuning": arguments.fine_tuning_rate,
        "feature_extraction": arguments.feature_extraction_rate,
    }[strategy]
    for seed in range(arguments.seeds):
        activations = Activations(
            data=drawn(data, seed, arguments.train, arguments.val),
            weights={arguments.backbone: weights},
            cache_dir=cache_folder(),
            device=torch.device("cpu"),
        )
        for recipe, fields in RECIPES[strategy].items():
            started = perf_counter()
            config = TransferConfig(
                backbone=arguments.backbone,
                strategy=strategy,
                num_unfrozen_layers=k if strategy == "fine_tuning" else 0,
                learning_rate=rate,
                batch_size=16,
                epochs=arguments.epochs,
                patience=arguments.epochs,
                seed=seed,
                **fields,
            )
            best = train(config, activations).best.val
            print(
                f"{strategy} {recipe}, seed {seed}: accuracy {best['accuracy']:.4f}, "
                f"AUROC {best['auroc']:.4f}, loss {best['loss']:.4f}, "
                f"{perf_counter() - started:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            yield recipe, seed, best


def table(strategy: str, values: Mapping[str, list[dict[str, float]]]) -> str:
    """Means of plain training, and each recipe's mean difference from it with its interval."""
    plain = values["plain"]
    means = {metric: float(np.mean([run[metric] for run in plain])) for metric in METRICS}
    lines = [
        f"{strategy}: plain training has accuracy {means['accuracy']:.1%}, AUROC "
        f"{means['auroc']:.4f}, loss {means['loss']:.3f} (means of {len(plain)} seeds).",
        "",
        "| recipe | accuracy, points | AUROC, points | loss |",
        "|---|---|---|---|",
    ]
    for recipe, those in values.items():
        if recipe != "plain":
            cells = [_difference(those, plain, metric) for metric in METRICS]
            lines.append(f"| {recipe} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(those: list[dict[str, float]], plain: list[dict[str, float]], metric: str) -> str:
    factor, digits = (1, 3) if metric == "loss" else (100, 1)
    differences = [factor * (a[metric] - b[metric]) for a, b in zip(those, plain, strict=True)]
    low, high = mean_interval(differences)
    text = f"{np.mean(differences):+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--strategies", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--train", type=int, default=200, help="training images of a seed")
    parser.add_argument("--val", type=int, default=500, help="validation images of a seed")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--depth-share", type=float, default=0.5)
    parser.add_argument("--fine-tuning-rate", type=float, default=3e-4)
    parser.add_argument("--feature-extraction-rate", type=float, default=1e-2)
    arguments = parser.parse_args()
    data = load_data(
        open_source(arguments.data),
        image_size=arguments.image_size,
        seed=0,
        cache_dir=cache_folder(),
    )
    weights = find_weights(arguments.backbone, weights_dir=arguments.weights_dir)
    print(
        f"{Path(arguments.data).name}: {arguments.backbone} "
        f"({weights.source}) at {arguments.image_size} px, {arguments.train} training and "
        f"{arguments.val} validation images, {arguments.epochs} epochs, batches of 16, rates "
        f"{arguments.fine_tuning_rate:g} and {arguments.feature_extraction_rate:g}, fine-tuning "
        f"{arguments.depth_share:.0%} of the layers, {arguments.seeds} seeds; torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}.\n"
    )
    for strategy in arguments.strategies:
        values: dict[str, list[dict[str, float]]] = {}
        for recipe, _, best in runs(arguments, data, weights, strategy):
            values.setdefault(recipe, []).append(best)
        print(table(strategy, values), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
