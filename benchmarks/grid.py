"""Learning rates of fine-tuning, the head's own rate, and what should choose: one grid, resumable.

Training, validation and held-out images are drawn by group from the *training* images of a data
set; its test images stay shut. Every training stores, for each epoch, the metrics of validation
and of held-out images, so that how epochs and configurations are chosen is decided afterwards.

    python benchmarks/grid.py run --data ../shared/data/chest_xray --image-size 96 \\
        --group-pattern '(person\\d+|IM-\\d+)' --weights-dir ../shared/weights
    python benchmarks/grid.py run --data ../shared/data/pneumoniamnist.npz --image-size 64 \\
        --weights-dir ../shared/weights
    python benchmarks/grid.py tables

`run` appends a line a training to benchmarks/grid.jsonl and leaves out what is there; `tables`
prints what follows from it as Markdown.

Legend: N images, C classes, S splits.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from studies.statistics.intervals import mean_interval
from transfer.activations.activations import Activations
from transfer.backbones.find import find_spec
from transfer.cache import cache_folder
from transfer.config import Strategy, TransferConfig
from transfer.data.loading import ImageData, Split, load_data
from transfer.data.sources.open import open_source
from transfer.device import cpu_model, make_deterministic
from transfer.training.calibrated_loss import calibrated_loss
from transfer.training.metrics import classification_metrics
from transfer.training.result import EpochRecord
from transfer.training.train import DivergedError, train
from transfer.weights.find import WeightFile, find_weights

RESULTS = Path(__file__).with_name("grid.jsonl")
BACKBONES = ("mobilenet_v2", "efficientnet_lite0")
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
PROBE_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
DEPTH_SHARES = (0.25, 0.5, 1.0)
# How the head learns beside the backbone: at so many times its rate, or from a solved probe.
HEADS = ("1", "10", "probe")
BATCH_SIZE = 32
SPLITS = 12  # for what should choose; the rates are judged on the first one alone
# What enters the choice on every split, so that a split is a small study.
CHOICE_RATES = (1e-4, 1e-3, 3e-3)
CHOICE_SHARES = (0.25, 0.5)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many images train, validate and are held out, and for how many epochs they train.

    ``head_rates`` and ``head_shares`` are those with which the heads beyond the first are tried.
    """

    train: int
    val: int
    held_out: int
    epochs: int
    rates: tuple[float, ...] = RATES
    head_rates: tuple[float, ...] = RATES
    head_shares: tuple[float, ...] = DEPTH_SHARES


SIZES = (
    Size(train=200, val=50, held_out=400, epochs=8),
    # A training takes a minute: every other rate, and the other heads where they may matter most.
    Size(
        train=1600,
        val=200,
        held_out=200,
        epochs=5,
        rates=(3e-5, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        head_rates=(1e-3, 3e-3),
        head_shares=(0.5,),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one line of the results is about; its fields are the line's key."""

    data: str
    image_size: int
    num_train: int
    split: int
    backbone: str
    strategy: str
    depth_share: float
    learning_rate: float
    head: str


def trainings(data: str, image_size: int, size: Size, split: int) -> Iterator[Training]:
    """Everything that is trained on one split: probes, all rates, then the other heads."""
    rates = size.rates if split == 0 else CHOICE_RATES
    shares = DEPTH_SHARES if split == 0 else CHOICE_SHARES
    others = HEADS[1:] if split == 0 else ()
    wanted = [
        *itertools.product(BACKBONES, ("feature_extraction",), (0.0,), HEADS[:1], PROBE_RATES),
        *itertools.product(BACKBONES, ("fine_tuning",), shares, HEADS[:1], rates),
        *itertools.product(BACKBONES, ("fine_tuning",), size.head_shares, others, size.head_rates),
    ]
    for backbone, strategy, share, head, rate in wanted:
        yield Training(
            data=data,
            image_size=image_size,
            num_train=size.train,
            split=split,
            backbone=backbone,
            strategy=strategy,
            depth_share=share,
            learning_rate=rate,
            head=head,
        )


def drawn_by_group(
    labels_N: NDArray[np.int64], groups_N: Sequence[str], counts: Sequence[int], seed: int
) -> list[NDArray[np.int64]]:
    """Disjoint sets of about so many positions; images of one group come to the same set.

    Groups in random order fill the first set, then the second and so on: classes stand in them as
    in the whole.
    """
    names, group_N = np.unique(np.asarray(groups_N), return_inverse=True)
    order = np.random.default_rng([seed, 3]).permutation(len(names))
    sizes = np.bincount(group_N, minlength=len(names))[order]
    bounds = np.searchsorted(np.cumsum(sizes), np.cumsum(counts), side="left")
    found, start = [], 0
    for bound in bounds.tolist():
        found.append(np.flatnonzero(np.isin(group_N, order[start : bound + 1])))
        start = bound + 1
    if any(len(set(labels_N[part].tolist())) < 2 for part in found):
        raise ValueError(f"`every set has 2 classes` must hold, but not with seed {seed}.")
    return found


def pool_of(data: ImageData) -> tuple[NDArray[np.int64], list[str]]:
    """Labels and groups of all images but the test images; alone where no groups are known."""
    labels_N = np.empty(len(data), np.int64)
    for split in (data.train, data.val):
        labels_N[split.positions_N] = split.labels_N
    group_of: dict[str, str] = {}
    for name in ("train", "val"):
        part = data.kept[name]
        names = part.names
        group_of |= dict(zip(names, part.groups if part.groups else names, strict=True))
    return labels_N, [group_of[name] for name in data.names]


def measured(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64]) -> dict[str, float]:
    """What of an epoch is kept."""
    found = classification_metrics(torch.from_numpy(logits_NC), torch.from_numpy(labels_N))
    found["calibrated_loss"] = calibrated_loss(logits_NC, labels_N)
    return {key: round(found[key], 5) for key in ("accuracy", "loss", "calibrated_loss", "auroc")}


def config_of(training: Training, size: Size) -> TransferConfig:
    """The configuration of a training: it runs all its epochs, whatever validation says."""
    depth = find_spec(training.backbone).depth
    head: dict[str, Any] = {}
    if training.head == "probe":
        head = {"head_init": "probe"}
    elif training.head != "1":
        head = {"head_rate_factor": float(training.head)}
    return TransferConfig(
        backbone=training.backbone,
        strategy=Strategy(training.strategy),
        learning_rate=training.learning_rate,
        batch_size=BATCH_SIZE,
        num_unfrozen_layers=max(round(training.depth_share * depth), training.depth_share > 0),
        epochs=size.epochs,
        patience=size.epochs,
        seed=training.split,
        **head,
    )


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The images of one split: validation and held-out images are validated together.

    ``is_val_N`` tells which of the images of ``data.val`` are there to choose by.
    """

    data: ImageData
    is_val_N: NDArray[np.bool_]


def draw(data: ImageData, size: Size, split: int) -> Draw:
    """Draw training, validation and held-out images of one split."""
    labels_N, groups_N = pool_of(data)
    counts = (size.train, size.val, size.held_out)
    train_N, val_N, held_out_N = drawn_by_group(labels_N, groups_N, counts, split)
    judged_N = np.sort(np.concatenate([val_N, held_out_N]))
    return Draw(
        data=replace(
            data,
            train=Split(positions_N=train_N, labels_N=labels_N[train_N]),
            val=Split(positions_N=judged_N, labels_N=labels_N[judged_N]),
        ),
        is_val_N=np.isin(judged_N, val_N),
    )


def run_one(
    training: Training, size: Size, drawn: Draw, activations: Activations
) -> dict[str, Any]:
    """Train and return the line to keep; ``epochs`` ends where the training diverged."""
    started, epochs = perf_counter(), []
    labels_N, is_val_N = drawn.data.val.labels_N, drawn.is_val_N

    def on_epoch(record: EpochRecord) -> bool:
        logits_NC = record.val_logits_NC
        epochs.append(
            {
                "val": measured(logits_NC[is_val_N], labels_N[is_val_N]),
                "held_out": measured(logits_NC[~is_val_N], labels_N[~is_val_N]),
            }
        )
        return False

    try:
        train(config_of(training, size), activations, on_epoch)
        diverged = False
    except DivergedError:
        diverged = True
    majority = float(np.bincount(labels_N[~is_val_N]).max() / (~is_val_N).sum())
    return {
        **asdict(training),
        "epochs": epochs,
        "diverged": diverged,
        "majority": round(majority, 5),
        "images": [len(drawn.data.train), int(is_val_N.sum()), int((~is_val_N).sum())],
        "seconds": round(perf_counter() - started, 1),
        "processor": cpu_model(),
    }


def run(arguments: argparse.Namespace) -> None:
    """Train what is not yet in the file of results, the small studies first, large sets last."""
    make_deterministic(arguments.threads, torch.device("cpu"))
    name = Path(arguments.data).name
    done = {key_of(line) for line in read(arguments.results)}
    data = load_data(
        open_source(arguments.data, group_pattern=arguments.group_pattern),
        image_size=arguments.image_size,
        seed=0,
        cache_dir=cache_folder(),
        skip_unreadable=True,
        drop_duplicates=True,
    )
    weights = {b: find_weights(b, weights_dir=arguments.weights_dir) for b in BACKBONES}
    wanted = [(SIZES[0], split) for split in range(1, SPLITS)] + [(size, 0) for size in SIZES]
    for size, split in wanted:
        todo = [
            training
            for training in trainings(name, arguments.image_size, size, split)
            if key_of(asdict(training)) not in done
        ]
        if not todo:
            continue
        drawn = draw(data, size, split)
        activations = make_activations(drawn.data, weights)
        for training in todo:
            line = run_one(training, size, drawn, activations)
            with arguments.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            held_out = [epoch["held_out"]["accuracy"] for epoch in line["epochs"]]
            print(
                f"{key_of(line)}: {held_out} in {line['seconds']} s", file=sys.stderr, flush=True
            )


def make_activations(data: ImageData, weights: Mapping[str, WeightFile]) -> Activations:
    """The frozen part of all backbones on these images, on the CPU."""
    return Activations(
        data=data, weights=weights, cache_dir=cache_folder(), device=torch.device("cpu")
    )


def key_of(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a line is about, so that nothing is trained twice."""
    return tuple(line[field.name] for field in fields(Training))


def read(results: Path) -> list[dict[str, Any]]:
    """The lines that are there."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def chosen_epoch(line: Mapping[str, Any], by: str) -> dict[str, Any]:
    """The epoch with the best validation value of ``by``; ties go to the lower loss."""
    epochs: list[dict[str, Any]] = line["epochs"]
    return min(epochs, key=lambda epoch: rank(epoch["val"], by))


def rank(values: Mapping[str, float], by: str) -> tuple[float, float]:
    """Smaller is better."""
    return (values[by] if by.endswith("loss") else -values[by]), values["loss"]


def held_out(line: Mapping[str, Any], by: str = "accuracy") -> float:
    """Held-out accuracy at the epoch that ``by`` chooses; the majority's where it diverged."""
    if line["diverged"] or not line["epochs"]:
        return float(line["majority"])
    return float(chosen_epoch(line, by)["held_out"]["accuracy"])


def rate_tables(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Held-out accuracy by rate, a row for each size, backbone, depth and head of the first split.

    A rate is *unable to learn* where it gains less than a quarter of what the best one gains over
    the majority class.
    """
    settings = sorted({(line["data"], line["image_size"], line["num_train"]) for line in lines})
    for name, image_size, num_train in settings:
        own = [
            line
            for line in lines
            if (line["data"], line["image_size"], line["num_train"], line["split"])
            == (name, image_size, num_train, 0)
            and line["strategy"] == "fine_tuning"
        ]
        if not own:
            continue
        yield f"### {name}, {image_size} px, {num_train} training images\n"
        yield f"| backbone | layers | head | {' | '.join(f'{r:g}' for r in RATES)} | best |"
        yield f"|---|---|---|{'---|' * (len(RATES) + 1)}"
        for backbone, share, head in itertools.product(BACKBONES, DEPTH_SHARES, HEADS):
            row = {
                line["learning_rate"]: line
                for line in own
                if (line["backbone"], line["depth_share"], line["head"]) == (backbone, share, head)
            }
            if not row:
                continue
            values = {rate: held_out(line) for rate, line in row.items()}
            best = max(values, key=lambda rate: values[rate])
            majority = row[best]["majority"]
            learns = majority + (values[best] - majority) / 4
            cells = [
                "" if r not in values else f"{values[r]:.1%}" + ("*" * (values[r] < learns))
                for r in RATES
            ]
            yield f"| {backbone} | {share:.0%} | {head} | {' | '.join(cells)} | {best:g} |"
        yield "\n`*`: gains less than a quarter of what the best rate gains over the majority.\n"


def choice_table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What each criterion's choice of epoch and configuration is worth on held-out images."""
    yield "| data | chosen by | splits | held-out accuracy | less choosing by accuracy, points |"
    yield "|---|---|---|---|---|"
    for name in sorted({line["data"] for line in lines}):
        by_split: dict[int, list[dict[str, Any]]] = {}
        for line in lines:
            is_here = line["data"] == name and line["num_train"] == SIZES[0].train
            if is_here and is_candidate(line) and not line["diverged"]:
                by_split.setdefault(line["split"], []).append(line)
        most = max(map(len, by_split.values()), default=0)  # others are not finished
        whole = {split: found for split, found in by_split.items() if len(found) == most}
        accuracies = {
            by: [chosen_of(found, by) for _, found in sorted(whole.items())]
            for by in ("accuracy", "loss", "auroc", "calibrated_loss")
        }
        for by, values in accuracies.items():
            gains = [100 * (v - w) for v, w in zip(values, accuracies["accuracy"], strict=True)]
            text = ""
            if by != "accuracy" and len(gains) > 1:
                low, high = mean_interval(gains)
                text = f"{np.mean(gains):+.2f} [{low:+.2f}, {high:+.2f}]"
            yield f"| {name} | {by} | {len(values)} | {np.mean(values):.2%} | {text} |"


def is_candidate(line: Mapping[str, Any]) -> bool:
    """Whether a training is one of those that every split has."""
    if line["strategy"] == "feature_extraction":
        return True
    is_of_rates = line["learning_rate"] in CHOICE_RATES and line["depth_share"] in CHOICE_SHARES
    return is_of_rates and line["head"] == HEADS[0]


def chosen_of(lines: Sequence[dict[str, Any]], by: str) -> float:
    """Held-out accuracy of the configuration that ``by`` chooses, at the epoch that it chooses."""
    best = min(lines, key=lambda line: rank(chosen_epoch(line, by)["val"], by))
    return held_out(best, by)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--data", help="a folder of images, a list of them, or an .npz archive")
    parser.add_argument("--group-pattern", help="a regular expression that finds the subject")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.what == "run":
        if arguments.data is None:
            parser.error("run needs --data")
        run(arguments)
        return
    lines = read(arguments.results)
    for line in [*rate_tables(lines), *choice_table(lines)]:
        print(line)


if __name__ == "__main__":
    main()
