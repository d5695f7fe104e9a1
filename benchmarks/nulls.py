"""How often a report says that something helped in studies where nothing does.

    python benchmarks/nulls.py --runs 400

Of every study all configurations of both strategies, the default recipe and the logistic
regression on frozen features are equally good; trials differ by chance alone. Counted is how often
the report would say that fine-tuning learns task-specific features, that the search helped, or
that one strategy is the better one: on the validation images that chose epochs and configuration
(before `evaluate`), on the same images if they were taken for images that chose nothing, and on
test images (behind it); and how often it would raise the alarm that nothing was learned.

Legend: T trials, E epochs, S seeds, N images, C classes.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from studies.claims import judge
from studies.control_rows import Predictions, measure_learned
from studies.forecast import Predicted, forecast
from studies.measurements import measurement
from studies.scores import METRICS
from studies.statistics import Interval
from studies.verdict import Difference, difference_over_seeds
from studies.verdict_words import verdict_of

ACCURACY = METRICS["accuracy"]
TRUE_ACCURACY = 0.88
# Shares of what decides whether an image is called right: itself, the configuration, its training
# by a seed, the epoch. Which images suit a configuration carries over to its further seeds.
# Where patients have several images, half of each is the patient's.
OF_IMAGE, OF_CONFIGURATION, OF_TRAINING, OF_EPOCH = 0.5, 0.15, 0.1, 0.25
Floats = NDArray[np.float64]
SHARES = np.array([0.5, 0.5])  # of the classes among training images
WAYS = ("taken for images that chose nothing", "before the evaluation", "behind the evaluation")


@dataclass(frozen=True, kw_only=True)
class World:
    """A study in which nothing is better than anything else. ``seed_spread`` is of accuracy.

    ``images_each`` are of one patient; where that is more than one, the program knows it. The
    other strategy is searched in ``other_trials`` of ``other_epochs``: the fewer, the less its
    choice looks too good.
    """

    num_val: int
    images_each: int = 1
    num_test: int = 400
    num_trials: int = 15
    num_epochs: int = 15
    num_seeds: int = 3
    seed_spread: float = 0.0
    other_trials: int = 15
    other_epochs: int = 15


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was said of one study, by way of judging: a claim or a gain that is not there.

    ``differs`` says that one strategy was called better than the other. ``difference`` is that of
    fine-tuning and logistic regression on the validation images.
    """

    learns: dict[str, bool]
    helped: dict[str, bool]
    differs: dict[str, bool]
    alarm: bool
    difference: float


class _Images:
    """Labels, whose picture each is, and how easy it is for all trainings alike."""

    def __init__(self, rng: np.random.Generator, num_images: int, images_each: int) -> None:
        self.patient_N = np.arange(num_images) // images_each
        self.labels_N = self.patient_N % 2
        self.groups_N = self.patient_N if images_each > 1 else None
        self.ease_N = self.draw(rng)

    def draw(self, rng: np.random.Generator, *shape: int) -> Floats:
        """Standard normal numbers (..., N), half of whose variance is the patients'."""
        own = rng.normal(size=(*shape, len(self.patient_N)))
        if self.groups_N is None:
            return own
        of_patient = rng.normal(size=(*shape, self.patient_N[-1] + 1))[..., self.patient_N]
        return np.asarray((own + of_patient) / 2**0.5)


def _training(
    rng: np.random.Generator,
    sets: tuple[_Images, ...],
    suits: list[Floats],
    num_epochs: int,
    spread: float,
) -> list[Floats]:
    """Probabilities (E, N, C) of one training on each set of images; every epoch equally good.

    Args:
        suits: how well each image (N,) of each set suits the configuration.
    """
    accuracy = float(np.clip(rng.normal(TRUE_ACCURACY, spread), 0.55, 0.995))
    found = []
    for images, suits_N in zip(sets, suits, strict=True):
        latent_EN = (
            OF_IMAGE**0.5 * images.ease_N
            + OF_CONFIGURATION**0.5 * suits_N
            + OF_TRAINING**0.5 * images.draw(rng)
            + OF_EPOCH**0.5 * images.draw(rng, num_epochs)
        )
        sure_EN = norm.cdf(norm.ppf(accuracy) - latent_EN)
        right_EN = np.clip(0.5 + 0.98 * (sure_EN - 0.5), 0.01, 0.99)
        found.append(
            np.where(
                np.arange(2) == images.labels_N[:, None],
                right_EN[..., None],
                1 - right_EN[..., None],
            )
        )
    return found


def _best_epoch(labels_N: NDArray[np.int64], given_ENC: Floats) -> int:
    values = [
        (ACCURACY(labels_N, given_NC), -METRICS["loss"](labels_N, given_NC))
        for given_NC in given_ENC
    ]
    return max(range(len(values)), key=lambda e: values[e])


def null_study(world: World, seed: int) -> Outcome:
    """One study: a search of each strategy, its best trial over seeds, recipe, regression."""
    rng = np.random.default_rng(seed)
    val, test = (_Images(rng, n, world.images_each) for n in (world.num_val, world.num_test))

    def configuration() -> list[Floats]:
        return [images.draw(rng) for images in (val, test)]

    def train(suits: list[Floats], num_epochs: int = world.num_epochs) -> list[Floats]:
        return _training(rng, (val, test), suits, num_epochs, world.seed_spread)

    def over_seeds(trainings: list[list[Floats]]) -> tuple[Floats, Floats]:
        best = [_best_epoch(val.labels_N, given[0]) for given in trainings]
        on_val, on_test = (
            np.stack([given[i][epoch] for given, epoch in zip(trainings, best, strict=True)])
            for i in (0, 1)
        )
        return on_val, on_test

    def search(num_trials: int, num_epochs: int) -> tuple[tuple[Floats, Floats], float]:
        """What the choice says over seeds, and by how much it looks too good at most."""
        configurations = [configuration() for _ in range(num_trials)]
        trials = [train(suits, num_epochs)[0] for suits in configurations]
        best = max(
            range(num_trials),
            key=lambda t: max(ACCURACY(val.labels_N, given_NC) for given_NC in trials[t]),
        )
        runs = [train(configurations[best], num_epochs) for _ in range(world.num_seeds)]
        predicted = forecast(
            [Predicted(val.labels_N, given_ENC, val.groups_N) for given_ENC in trials],
            [Predicted(val.labels_N, given[0], val.groups_N) for given in runs],
            ACCURACY,
            num_test=world.num_test,
            num_models=world.num_seeds,
            num_resamples=200,
        )
        return over_seeds(runs), max(0.0, predicted.optimism)

    searched, of_searched = search(world.num_trials, world.num_epochs)
    other_strategy, of_other = search(world.other_trials, world.other_epochs)
    default = configuration()
    recipe = over_seeds([train(default) for _ in range(world.num_seeds)])
    # Logistic regression has neither epochs nor seeds.
    probe = over_seeds([_training(rng, (val, test), configuration(), 1, 0.0)])
    sets = {
        WAYS[0]: (val, 0, None),
        WAYS[1]: (val, 0, (of_searched, 0.0)),
        WAYS[2]: (test, 1, None),
    }

    def difference(other: tuple[Floats, Floats], way: str) -> Difference:
        images, place, _ = sets[way]
        return difference_over_seeds(
            ACCURACY,
            images.labels_N,
            searched[place],
            other[place],
            num_resamples=500,
            groups_N=images.groups_N,
        )

    def said(other: tuple[Floats, Floats], way: str) -> bool:
        return judge(measurement(difference(other, way), sets[way][2])) == "holds here"

    def differs(way: str) -> bool:
        found = difference(other_strategy, way)
        first, second = (of_searched, of_other) if way == WAYS[1] else (0.0, 0.0)
        moved = Interval(value=found.value, low=found.low - first, high=found.high + second)
        return verdict_of(moved, None) != "undecided"

    values = [
        float(np.mean([ACCURACY(val.labels_N, given_NC) for given_NC in each[0]]))
        for each in (searched, probe)
    ]
    return Outcome(
        learns={way: said(probe, way) for way in WAYS},
        helped={way: said(recipe, way) for way in WAYS},
        differs={way: differs(way) for way in WAYS},
        alarm=not measure_learned(
            [Predictions(val.labels_N, searched[0], val.groups_N)], ["a", "b"], SHARES
        ).is_shown,
        difference=values[0] - values[1],
    )


ROWS = (
    World(num_val=78),
    World(num_val=400),
    World(num_val=400, seed_spread=0.015),
    World(num_val=399, num_test=399, images_each=3),
    World(num_val=400, num_trials=30, other_trials=4, other_epochs=3),
)


def main() -> None:
    """Print a table, a row a world and way of judging."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="Studies of each world.")
    given = parser.parse_args()
    for world in ROWS:
        found = [null_study(world, seed) for seed in range(given.runs)]
        difference = 100 * np.mean([each.difference for each in found])
        print(
            f"{world.num_val} validation images, {world.images_each} a patient, seeds differ by "
            f"{100 * world.seed_spread:g} points, {world.num_trials} and {world.other_trials} "
            f"trials, {given.runs} studies; fine-tuning looks better than logistic regression "
            f"by {difference:+.1f} points; alarm "
            f"{100 * np.mean([each.alarm for each in found]):.1f} %"
        )
        for way in WAYS:
            learns, helped, differs = (
                100 * np.mean([getattr(each, name)[way] for each in found])
                for name in ("learns", "helped", "differs")
            )
            print(
                f'  {way}: "learns" {learns:.1f} %, "the search helped" {helped:.1f} %, '
                f"one strategy better {differs:.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
