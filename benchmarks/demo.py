"""Whether the README's demo finds what fine-tuning is worth, on images that nothing was chosen by.

Runs the demo's study, takes the best trial of each strategy, trains it again with seeds that the
search did not use, and judges both on a fresh phantom of the same kind. The test set of the demo
is not opened.

    python benchmarks/demo.py --images 2000 --seeds 10

prints the two configurations, their accuracies, and the difference over seeds and images.
"""

import argparse
import dataclasses
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

import studies
from studies.database.trials import TrialRecord, best_trials
from studies.statistics.metrics import METRICS
from studies.statistics.paired import difference_over_seeds
from transfer.activations.activations import Activations
from transfer.cache import cache_folder
from transfer.config import Strategy, TransferConfig
from transfer.data.loading import ImageData, load_data
from transfer.data.sources.open import open_source
from transfer.device import make_deterministic
from transfer.inference import predict_logits
from transfer.training.train import train
from transfer.weights.find import WeightFile, find_weights

FRESH_SEED = 1_000
FIRST_SEED = 1_000  # The search trains with 0, confirming with 1, 2, ...


def fresh_images(count: int, image_size: int) -> tuple[ImageData, NDArray[np.int64]]:
    """A phantom with another seed, and the labels in its order."""
    source = open_source(f"phantom:train={count},test=10,seed={FRESH_SEED}")
    data = load_data(source, image_size=image_size, seed=0, cache_dir=cache_folder())
    labels_N = np.empty(len(data), np.int64)
    for split in (data.train, data.val):
        labels_N[split.positions_N] = split.labels_N
    return data, labels_N


def activations_of(data: ImageData, weights: WeightFile) -> Activations:
    return Activations(
        data=data,
        weights={weights.backbone: weights},
        cache_dir=cache_folder(),
        device=torch.device("cpu"),
    )


def probabilities(
    trial: TrialRecord, seeds: range, data: ImageData, fresh: ImageData
) -> NDArray[np.float64]:
    """Probabilities (S, N, C) that the trial's configuration gives to fresh images."""
    stored = {**trial.config, "strategy": Strategy(trial.config["strategy"])}
    weights = find_weights(stored["backbone"])
    seen, unseen = activations_of(data, weights), activations_of(fresh, weights)
    found = []
    for seed in seeds:
        config = dataclasses.replace(TransferConfig(**stored), seed=seed)
        state = train(config, seen).trained_state
        logits_NC = predict_logits(config, unseen, state, passes=len(seeds))
        found.append(torch.from_numpy(logits_NC).double().softmax(dim=1).numpy())
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="fresh phantom images")
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each strategy")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    with TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder) / 'demo.db'}"
        summary = studies.run(data="phantom", name="demo", storage=storage, confirm=False)
    # The study's own settings, so that both strategies train as they did in it.
    make_deterministic(arguments.threads, torch.device("cpu"))
    size = int(summary.study.settings["image_size"])
    data = load_data(open_source("phantom"), image_size=size, seed=0, cache_dir=cache_folder())
    fresh, labels_N = fresh_images(arguments.images, size)
    best = {str(t.strategy): t for t in reversed(best_trials(summary.records, summary.metric))}
    found = {}
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, {size} px"
    )
    for strategy, trial in sorted(best.items()):
        found[strategy] = probabilities(trial, seeds, data, fresh)
        values = [100 * METRICS["accuracy"](labels_N, p_NC) for p_NC in found[strategy]]
        shown = ", ".join(f"{k.partition('@')[0]}={v}" for k, v in trial.keyed_params.items())
        print(f"{strategy}: trial {trial.number}, validation {trial.value:.1%} ({shown})")
        print(f"  fresh images: mean {np.mean(values):.2f} %, {[round(v, 1) for v in values]}")
    difference = difference_over_seeds(
        METRICS["accuracy"], labels_N, found["fine_tuning"], found["feature_extraction"]
    )
    print(
        f"fine-tuning less feature extraction: {100 * difference.value:+.2f} points "
        f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}], {len(labels_N)} images, "
        f"{len(seeds)} seeds"
    )


if __name__ == "__main__":
    main()
