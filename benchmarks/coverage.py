r"""How often intervals hold the truth and equal strategies are called different, by simulation.

Every run makes test images of one world and models of two equal strategies, and asks the
project's own functions, with the groups of the images and without. In worlds of two sets of
images, both drawn from the same subjects at large, it asks whether they are told apart. Results
are appended to a table of JSON lines, fifty runs a line, so that a long simulation goes on where
it was stopped. A run costs 10 to 20 ms; with AUROC 70 to 360 ms, and with two sets 170 to 610:

    python benchmarks/coverage.py --runs 1000 --out benchmarks/coverage.jsonl [--world 100x4]
    python benchmarks/coverage.py --runs 10000 --out benchmarks/coverage.jsonl \
        --metric accuracy --metric balanced_accuracy --metric f1 --metric loss
    python benchmarks/coverage.py --show --out benchmarks/coverage.jsonl

Legend: S seeds, N images, G groups, C classes.
"""

import argparse
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import norm

from studies.explanation.domain import auroc, find_domains, permutation_p
from studies.explanation.shift import Seen, find_path
from studies.statistics.intervals import bootstrap_over_seeds, stratified_bootstrap
from studies.statistics.metrics import METRICS, Floats, Labels
from studies.statistics.paired import difference_over_seeds

BLOCK = 50  # Runs of a line.
NUM_RESAMPLES = 400
NUM_SEEDS = 3
# Of what the truth is computed from: so many models, each on images of its own.
TRUTH_MODELS, TRUTH_IMAGES = 400, 4000


@dataclass(frozen=True, kw_only=True)
class World:
    """Groups of images, and models of one quality.

    A model is right about an image where a latent number is below a bound. Half of the latent
    number is the image's, and shared by all models, half is the model's own; of both, ``icc`` is
    the share that images of a group have in common. ``sizes`` are repeated over the groups of
    each class. ``spread`` moves a seed's models. ``tails`` are degrees of freedom of Student's t,
    in place of normal numbers.
    """

    groups: tuple[int, ...]  # of each class
    sizes: tuple[int, ...] = (1,)
    icc: float = 0.5
    accuracy: float = 0.88
    spread: float = 0.0
    tails: int | None = None
    metrics: tuple[str, ...] = ("accuracy",)


WORLDS = {
    "400x1": World(groups=(200, 200)),
    "133x3": World(groups=(67, 66), sizes=(3,)),
    "100x4": World(groups=(50, 50), sizes=(4,)),
    "40x10": World(groups=(20, 20), sizes=(10,)),
    "40x10 icc 0.8": World(groups=(20, 20), sizes=(10,), icc=0.8),
    "20x20": World(groups=(10, 10), sizes=(20,)),
    "uneven": World(groups=(40, 40), sizes=(1, 1, 2, 4, 17)),
    "few errors": World(groups=(50, 50), sizes=(4,), accuracy=0.98),
    "seeds differ": World(groups=(50, 50), sizes=(4,), spread=0.1),
    "90:10": World(
        groups=(90, 10), sizes=(4,), metrics=("accuracy", "balanced_accuracy", "auroc", "f1")
    ),
    "90:10 independent": World(
        groups=(360, 40), metrics=("accuracy", "balanced_accuracy", "auroc", "f1")
    ),
    "three classes": World(groups=(40, 30, 30), sizes=(4,), metrics=("accuracy", "f1", "auroc")),
    "heavy tails": World(groups=(50, 50), sizes=(4,), tails=3, metrics=("accuracy", "loss")),
}


@dataclass(frozen=True, kw_only=True)
class TwoSets:
    """Validation and test images of two classes that do not differ, and two models of them."""

    val: int  # groups
    test: int
    size: int = 1
    icc: float = 0.5
    metrics: tuple[str, ...] = ("domain",)


TWO_SETS = {
    "sets 100/200 x1": TwoSets(val=100, test=200),
    "sets 25/50 x4": TwoSets(val=25, test=50, size=4),
    "sets 25/50 x4 icc 0.8": TwoSets(val=25, test=50, size=4, icc=0.8),
    "sets 20/20 x10": TwoSets(val=20, test=20, size=10),
}
NUM_FEATURES = 60
EVERY = {**WORLDS, **TWO_SETS}
EVERY_METRIC = list(dict.fromkeys(m for world in EVERY.values() for m in world.metrics))


def images(world: World) -> tuple[Labels, Labels]:
    """Labels and groups of the images of a world, (N,) each."""
    labels, groups = [], []
    for label, count in enumerate(world.groups):
        for number in range(count):
            size = world.sizes[number % len(world.sizes)]
            labels += [label] * size
            groups += [sum(world.groups[:label]) + number] * size
    return np.array(labels), np.array(groups)


def _latent(world: World, groups_N: Labels, rng: np.random.Generator) -> Floats:
    def drawn(count: int) -> Floats:
        return (
            rng.normal(size=count) if world.tails is None else rng.standard_t(world.tails, count)
        )

    of_group = world.icc**0.5 * drawn(int(groups_N.max()) + 1)[groups_N]
    return np.asarray(of_group + (1 - world.icc) ** 0.5 * drawn(len(groups_N)))


def models(
    world: World,
    labels_N: Labels,
    groups_N: Labels,
    shared_N: Floats,
    num_seeds: int,
    rng: np.random.Generator,
) -> Floats:
    """Probabilities (S, N, C) of a strategy's seeds."""
    num_classes, found = len(world.groups), []
    for moved in rng.normal(0, world.spread, num_seeds):
        latent_N = (shared_N + _latent(world, groups_N, rng)) / 2**0.5
        margin_N = norm.ppf(world.accuracy) + moved - latent_N
        logits_NC = np.full((len(labels_N), num_classes), -2.0)
        other_N = (labels_N + rng.integers(1, num_classes, len(labels_N))) % num_classes
        logits_NC[np.arange(len(labels_N)), other_N] = 0.0
        logits_NC[np.arange(len(labels_N)), labels_N] = 2 * margin_N
        found.append(softmax(logits_NC, axis=1))
    return np.stack(found)


@lru_cache
def truth(name: str, metric: str) -> float:
    """What further seeds on further images average to, in the classes' shares of the world."""
    world, rng = WORLDS[name], np.random.default_rng(12345)
    labels_N, groups_N = images(world)
    copies = -(-TRUTH_IMAGES // len(labels_N))
    many_N = np.tile(labels_N, copies)
    of_N = np.concatenate([groups_N + i * (groups_N.max() + 1) for i in range(copies)])
    values = []
    for _ in range(TRUTH_MODELS):
        shared_N = _latent(world, of_N, rng)
        values.append(METRICS[metric](many_N, models(world, many_N, of_N, shared_N, 1, rng)[0]))
    return float(np.mean(values))


def one_run(name: str, metric: str, number: int, *, by_group: bool) -> dict[str, list[float]]:
    """The intervals of one run: of a model, of a mean over seeds, of the difference of two."""
    world = WORLDS[name]
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    labels_N, groups_N = images(world)
    shared_N = _latent(world, groups_N, rng)
    first, second = (models(world, labels_N, groups_N, shared_N, NUM_SEEDS, rng) for _ in range(2))
    given: dict[str, Any] = {
        "num_resamples": NUM_RESAMPLES,
        "seed": number,
        "groups_N": groups_N if by_group else None,
    }
    score = METRICS[metric]
    found = {
        "model": stratified_bootstrap(score, labels_N, first[0], **given),
        "mean": bootstrap_over_seeds(score, labels_N, first, **given),
        "difference": difference_over_seeds(score, labels_N, first, second, **given),
    }
    return {what: [float(i.value), float(i.low), float(i.high)] for what, i in found.items()}


def block(name: str, metric: str, first: int, count: int, *, by_group: bool) -> dict[str, Any]:
    """A line of the table: how many of these runs hold the truth."""
    runs = [one_run(name, metric, n, by_group=by_group) for n in range(first, first + count)]
    goal = truth(name, metric)

    def holds(what: str, value: float) -> int:
        return sum(bool(run[what][1] <= value <= run[what][2]) for run in runs)

    return {
        "world": name,
        "metric": metric,
        "by_group": by_group,
        "first": first,
        "runs": count,
        "truth": goal,
        "model_covered": holds("model", goal),
        "mean_covered": holds("mean", goal),
        "different": count - holds("difference", 0.0),
        "mean_width": float(np.mean([run["mean"][2] - run["mean"][1] for run in runs])),
        "first_run": runs[0],
    }


def _seen(world: TwoSets, num_groups: int, rng: np.random.Generator, *, by_group: bool) -> Seen:
    """Images of one set: features, and models that look at the first of them."""
    groups_N = np.repeat(np.arange(num_groups), world.size)
    labels_N = groups_N % 2
    spread_D = 1 / np.sqrt(np.arange(1, NUM_FEATURES + 1))
    own_ND = rng.normal(size=(len(groups_N), NUM_FEATURES))
    of_group_ND = rng.normal(size=(num_groups, NUM_FEATURES))[groups_N]
    features_ND = (world.icc**0.5 * of_group_ND + (1 - world.icc) ** 0.5 * own_ND) * spread_D
    features_ND[:, 0] += 1.2 * (2 * labels_N - 1)
    noise_SN = 0.3 * rng.normal(size=(2, len(groups_N)))
    margins_SN = 2 * (features_ND[:, 0] + noise_SN)
    return Seen(
        labels_N=labels_N,
        probabilities_SNC=softmax(np.stack([-margins_SN, margins_SN], axis=2) / 2, axis=2),
        features_ND=features_ND,
        groups_N=groups_N if by_group else None,
    )


def one_run_of_sets(name: str, number: int, *, by_group: bool) -> dict[str, float]:
    """Whether the two sets are told apart, and what the steps of the explanation say."""
    world = TWO_SETS[name]
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    val, test = (_seen(world, n, rng, by_group=by_group) for n in (world.val, world.test))
    found = find_domains(
        val.features_ND, test.features_ND, seed=number, groups=(val.groups_N, test.groups_N)
    )
    assert found is not None
    labels_U = np.concatenate([val.labels_N, test.labels_N])
    path = find_path(METRICS["accuracy"], val, test, num_resamples=50, seed=number)
    interval = auroc(found)
    return {
        "auroc": interval.value,
        "interval_excludes_half": float(interval.low > 0.5),
        "p": permutation_p(found, labels_U),
        "matched": path.matched,
        "shift_leaves_0": float(path.shift.low > 0 or path.shift.high < 0),
        "rest_leaves_0": float(path.rest.low > 0 or path.rest.high < 0),
    }


def block_of_sets(name: str, first: int, count: int, *, by_group: bool) -> dict[str, Any]:
    """A line of the table: means over these runs."""
    runs = [one_run_of_sets(name, n, by_group=by_group) for n in range(first, first + count)]
    means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    return {
        "world": name,
        "metric": "domain",
        "by_group": by_group,
        "first": first,
        "runs": count,
        **means,
        "told_apart": float(np.mean([run["p"] < 0.05 for run in runs])),
        "first_run": runs[0],
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a table; none where there is no table yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def missing(
    lines: Sequence[dict[str, Any]],
    names: Sequence[str],
    num_runs: int,
    metrics: Sequence[str] = EVERY_METRIC,
) -> Iterator[tuple[str, str, bool, int]]:
    """World, metric, with groups or without, and first run of the blocks that are not there."""
    known = {(line["world"], line["metric"], line["by_group"], line["first"]) for line in lines}
    for first in range(0, num_runs, BLOCK):
        for name in names:
            for metric in (m for m in EVERY[name].metrics if m in metrics):
                for by_group in (False, True):
                    if (name, metric, by_group, first) not in known:
                        yield name, metric, by_group, first


def show(lines: Sequence[dict[str, Any]]) -> None:
    """Print the table: percentages over all runs."""
    rows: dict[tuple[str, str, bool], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in (line for line in lines if line["world"] in WORLDS):
        row = rows[line["world"], line["metric"], line["by_group"]]
        for key in ("runs", "model_covered", "mean_covered", "different"):
            row[key] += line[key]
        row["width"] += line["mean_width"] * line["runs"]
    print("world                metric             groups  runs  model  mean  different  width")
    for (name, metric, by_group), row in rows.items():
        runs = row["runs"]
        rates = (100 * row[key] / runs for key in ("model_covered", "mean_covered", "different"))
        print(
            f"{name:20} {metric:18} {'yes' if by_group else 'no':6} {runs:5.0f}  "
            "{:5.1f} {:5.1f}  {:8.1f}".format(*rates)
            + f"  {row['width'] / runs:6.3f}"
        )


def show_sets(lines: Sequence[dict[str, Any]]) -> None:
    """Print the table of the worlds of two sets: means, shares in per cent."""
    shares = ("interval_excludes_half", "told_apart", "matched", "shift_leaves_0", "rest_leaves_0")
    rows: dict[tuple[str, bool], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in (line for line in lines if line["world"] in TWO_SETS):
        for key in ("auroc", *shares):
            rows[line["world"], line["by_group"]][key] += line[key] * line["runs"]
        rows[line["world"], line["by_group"]]["runs"] += line["runs"]
    if rows:
        print("two sets                groups  runs  AUROC  " + "  ".join(shares))
    for (name, by_group), row in rows.items():
        cells = "  ".join(f"{100 * row[key] / row['runs']:{len(key)}.1f}" for key in shares)
        print(
            f"{name:23} {'yes' if by_group else 'no':6} {row['runs']:5.0f}  "
            f"{row['auroc'] / row['runs']:5.2f}  {cells}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="of each row; rounded up to 50s")
    parser.add_argument("--world", action="append", choices=list(EVERY), help="default: all")
    parser.add_argument("--metric", action="append", choices=EVERY_METRIC, help="default: all")
    parser.add_argument("--out", type=Path, required=True, help="table of JSON lines")
    parser.add_argument("--show", action="store_true", help="print the table, run nothing")
    arguments = parser.parse_args()
    if not arguments.show:
        names = arguments.world or list(EVERY)
        metrics = arguments.metric or EVERY_METRIC
        there = read(arguments.out)
        for name, metric, by_group, first in missing(there, names, arguments.runs, metrics):
            if name in TWO_SETS:
                line = block_of_sets(name, first, BLOCK, by_group=by_group)
            else:
                line = block(name, metric, first, BLOCK, by_group=by_group)
            with arguments.out.open("a", encoding="utf-8") as table:
                table.write(json.dumps(line) + "\n")
    show(read(arguments.out))
    show_sets(read(arguments.out))


if __name__ == "__main__":
    main()
