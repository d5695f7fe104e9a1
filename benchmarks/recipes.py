"""What each recipe is worth on small data sets: paired differences over seeds, with intervals.

A seed draws the training images, the validation images (both from the training split: test images
stay sealed), the head and the batches. Every recipe is run at every learning rate and shown at
its best one, plain training too, and compared with plain training of the same seed. The numbers
are validation numbers of the best epoch, as a study would report them. Images are drawn one by
one: several of one subject may be on both sides. The seeds draw from one pool of images, so the
intervals are about this pool.

    python benchmarks/recipes.py --data ../shared/data/chest_xray --weights-dir ../shared/weights

prints one Markdown table a strategy, and a line a run on stderr. With --results FILE finished
runs are kept as lines of JSON and not run again: benchmarks/recipes.jsonl has those so far.
"""

import argparse
import dataclasses
import itertools
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studies.statistics.intervals import mean_interval
from transfer.activations.activations import Activations
from transfer.backbones.find import find_spec, interpolations_of
from transfer.cache import cache_folder
from transfer.config import Strategy, TransferConfig
from transfer.data.loading import ImageData, Split, load_data
from transfer.data.sources.open import open_source
from transfer.training.train import train
from transfer.weights.find import WeightFile, find_weights

FOR_BOTH: dict[str, dict[str, Any]] = {
    "weight_decay 0.1 (0.01)": {"weight_decay": 0.1},
    "dropout 0 (0.2)": {"dropout": 0.0},
    "label_smoothing 0.1": {"label_smoothing": 0.1},
    "class_weights balanced": {"class_weights": "balanced"},
    "mixup 0.2": {"mixup": 0.2},
    "ema_decay 0.99": {"ema_decay": 0.99},
    "num_views 4": {"num_views": 4},
}
FOR_FINE_TUNING: dict[str, dict[str, Any]] = {
    "head_init probe": {"head_init": "probe"},
    "layer_decay 0.75": {"layer_decay": 0.75},
    "gradual_unfreezing 0.5": {"gradual_unfreezing": 0.5},
    "batch_norm frozen": {"batch_norm": "frozen"},
}
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "fine_tuning": {"plain": {}, **FOR_FINE_TUNING, **FOR_BOTH},
    "feature_extraction": {"plain": {}, **FOR_BOTH},
}
METRICS = ("accuracy", "auroc", "loss")
SHOWN = METRICS[:2]  # The loss goes with the learning rate, and the best rates differ.


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


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training and the validation metrics of its best epoch; ``setting`` says on what."""

    setting: str
    strategy: str
    recipe: str
    learning_rate: float
    seed: int
    metrics: dict[str, float]

    @property
    def key(self) -> tuple[str, str, str, float, int]:
        return self.setting, self.strategy, self.recipe, self.learning_rate, self.seed


def setting_of(arguments: argparse.Namespace, weights: WeightFile) -> str:
    """What all runs have in common, in words."""
    return (
        f"{Path(arguments.data).name}: {arguments.backbone} ({weights.source}) at "
        f"{arguments.image_size} px, {arguments.train} training and {arguments.val} validation "
        f"images, {arguments.epochs} epochs, batches of 16, fine-tuning "
        f"{arguments.depth_share:.0%} of the layers"
    )


def run_all(arguments: argparse.Namespace, data: ImageData, weights: WeightFile) -> Iterator[Run]:
    """Every run that is not yet in the file of results, and those that are."""
    results: Path | None = arguments.results
    lines = results.read_text().splitlines() if results and results.exists() else []
    known = {run.key: run for run in (Run(**json.loads(line)) for line in lines)}
    setting = setting_of(arguments, weights)
    for seed in range(arguments.seeds):
        activations = Activations(
            data=drawn(data, seed, arguments.train, arguments.val),
            weights={arguments.backbone: weights},
            cache_dir=cache_folder(),
            device=torch.device("cpu"),
        )
        for strategy, recipes in RECIPES.items():
            rates = getattr(arguments, f"{strategy}_rates")
            for recipe, learning_rate in itertools.product(recipes, rates):
                run = known.get((setting, strategy, recipe, learning_rate, seed))
                if run is None:
                    config = _config(arguments, strategy, recipe, learning_rate, seed)
                    metrics = train(config, activations).best.val
                    run = Run(
                        setting=setting,
                        strategy=strategy,
                        recipe=recipe,
                        learning_rate=learning_rate,
                        seed=seed,
                        metrics={metric: metrics[metric] for metric in METRICS},
                    )
                    print(run, file=sys.stderr, flush=True)
                    if results is not None:
                        with results.open("a") as file:
                            file.write(json.dumps(dataclasses.asdict(run)) + "\n")
                yield run


def _config(
    arguments: argparse.Namespace, strategy: str, recipe: str, learning_rate: float, seed: int
) -> TransferConfig:
    depth = find_spec(arguments.backbone).depth
    k = round(arguments.depth_share * depth) if strategy == "fine_tuning" else 0
    return TransferConfig(
        backbone=arguments.backbone,
        strategy=Strategy(strategy),
        num_unfrozen_layers=k,
        learning_rate=learning_rate,
        batch_size=16,
        epochs=arguments.epochs,
        patience=arguments.epochs,
        seed=seed,
        **RECIPES[strategy][recipe],
    )


def best_rate(runs: Sequence[Run]) -> list[Run]:
    """The runs of one recipe at the rate with the best mean accuracy, by seed."""
    by_rate: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        by_rate.setdefault(run.learning_rate, []).append(run)
    return max(by_rate.values(), key=lambda those: float(np.mean(_values(those, "accuracy"))))


def _values(runs: Sequence[Run], metric: str) -> list[float]:
    return [run.metrics[metric] for run in runs]


def table(strategy: str, runs: Sequence[Run]) -> str:
    """Means of plain training, and each recipe's mean difference from it with its interval."""
    best = {
        recipe: best_rate([run for run in runs if run.recipe == recipe])
        for recipe in RECIPES[strategy]
    }
    plain = best.pop("plain")
    means = {metric: float(np.mean(_values(plain, metric))) for metric in SHOWN}
    lines = [
        f"{strategy}: plain training, at its best rate {plain[0].learning_rate:g}, has accuracy "
        f"{means['accuracy']:.1%}, AUROC {means['auroc']:.4f} (means of {len(plain)} seeds).",
        "",
        "| recipe | best rate | accuracy, points | AUROC, points |",
        "|---|---|---|---|",
    ]
    for recipe, those in best.items():
        cells = [_difference(those, plain, metric) for metric in SHOWN]
        lines.append(f"| {recipe} | {those[0].learning_rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(those: Sequence[Run], plain: Sequence[Run], metric: str) -> str:
    pairs = zip(_values(those, metric), _values(plain, metric), strict=True)
    differences = [100 * (value - than) for value, than in pairs]
    low, high = mean_interval(differences)
    text = f"{np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--train", type=int, default=200, help="training images of a seed")
    parser.add_argument("--val", type=int, default=400, help="validation images of a seed")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--depth-share", type=float, default=0.5)
    rates = {"fine_tuning": [2e-4, 1e-3, 3e-3, 1e-2], "feature_extraction": [1e-3, 1e-2, 3e-2]}
    for strategy, default in rates.items():
        flag = f"--{strategy.replace('_', '-')}-rates"
        parser.add_argument(flag, type=float, nargs="+", default=default)
    parser.add_argument("--results", type=Path, help="file that keeps finished runs")
    arguments = parser.parse_args()
    data = load_data(
        open_source(arguments.data),
        image_size=arguments.image_size,
        seed=0,
        cache_dir=cache_folder(),
        interpolations=interpolations_of([arguments.backbone]),
        with_views=True,
    )
    weights = find_weights(arguments.backbone, weights_dir=arguments.weights_dir)
    runs = list(run_all(arguments, data, weights))
    print(
        f"{setting_of(arguments, weights)}, {arguments.seeds} seeds; torch {torch.__version__}, "
        f"{platform.machine()}.\n"
    )
    for strategy in RECIPES:
        print(table(strategy, [run for run in runs if run.strategy == strategy]), end="\n\n")


if __name__ == "__main__":
    main()
