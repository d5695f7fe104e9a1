"""Studies in which nothing helps, and what a report says of them.

Of every study all configurations of both strategies, the default recipe and the logistic
regressions on frozen features are equally good; trials differ by chance alone, and so do the
epochs and the seconds of a training. Told is whether the report says that one of its claims holds
or does not hold, that the search helped, or that one strategy is the better one: on the validation
images that chose epochs and configuration (before `evaluate`), on the same images if they were
taken for images that chose nothing, and on test images (behind it); and whether it raises the
alarm that nothing was learned. `simulated_studies.py` counts it.

Legend: T trials, E epochs, S seeds, N images, C classes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from studies.report.claims import Measured, claims, judge
from studies.results.controls import Predictions, measure_learned
from studies.statistics.forecast import Predicted, forecast
from studies.statistics.intervals import Interval
from studies.statistics.metrics import METRICS
from studies.statistics.paired import (
    Measurement,
    chosen_elsewhere,
    difference_over_seeds,
    measurement,
    ratio_over_seeds,
    training_harm,
)
from studies.statistics.verdict_words import verdict_of

ACCURACY = METRICS["accuracy"]
TRUE_ACCURACY = 0.88
# Shares of what decides whether an image is called right: itself, the configuration, its training
# by a seed, the epoch. Which images suit a configuration carries over to its further seeds.
# Where patients have several images, half of each is the patient's.
OF_IMAGE, OF_CONFIGURATION, OF_TRAINING, OF_EPOCH = 0.5, 0.15, 0.1, 0.25
Floats = NDArray[np.float64]
SHARES = np.array([0.5, 0.5])  # of the classes among training images
SECONDS_SPREAD = 0.1  # of the logarithm of a training's seconds
WAYS = ("as if nothing had chosen", "before evaluate", "behind evaluate")
HELPED, DIFFERS, ALARM = "the search helped", "one strategy is better", "alarm"
AHEAD = "fine-tuning looks better than logistic regression by"
SAID = ("holds here", "does not hold here")


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
class _Choice:
    """A strategy's configuration over seeds.

    ``predictions`` are of validation and of test images, (S, N, C) each, ``optimism`` by how much
    they look too good at most, ``seconds`` of each seed's training; ``elsewhere`` are of
    validation images at epochs that other ones chose.
    """

    predictions: tuple[Floats, Floats]
    optimism: float
    elsewhere: Floats
    harm: Measurement | None
    seconds: list[float]


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


def _elsewhere(val: _Images, given_ENC: Floats) -> Floats:
    found_NC = chosen_elsewhere(val.labels_N, given_ENC, val.groups_N)
    assert found_NC is not None
    return found_NC


def null_study(world: World, seed: int) -> dict[str, float]:
    """One study: a search of each strategy, its best trial over seeds, recipe, regressions.

    Returns:
        1 or 0 for each thing that is said of it, by what it is and, but for the alarm, by way of
        judging; and by how much fine-tuning looks better than logistic regression on the
        validation images.
    """
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

    def search(num_trials: int, num_epochs: int) -> _Choice:
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
        return _Choice(
            predictions=over_seeds(runs),
            optimism=max(0.0, predicted.optimism),
            elsewhere=np.stack([_elsewhere(val, given[0]) for given in runs]),
            harm=training_harm(val.labels_N, [given[0] for given in runs], groups_N=val.groups_N),
            seconds=np.exp(SECONDS_SPREAD * rng.normal(size=world.num_seeds)).tolist(),
        )

    def regression() -> tuple[Floats, Floats]:
        """It has neither epochs nor seeds."""
        return over_seeds([_training(rng, (val, test), configuration(), 1, 0.0)])

    tuned = search(world.num_trials, world.num_epochs)
    extracted = search(world.other_trials, world.other_epochs)
    default = configuration()
    recipe = over_seeds([train(default) for _ in range(world.num_seeds)])
    probe, random_probe = regression(), regression()

    def said(way: str) -> dict[str, bool]:
        images, place = (test, 1) if way == WAYS[2] else (val, 0)

        def over(
            first: tuple[Floats, Floats],
            second: tuple[Floats, Floats],
            optimism: tuple[float, float] | None = None,
        ) -> Measurement:
            found = difference_over_seeds(
                ACCURACY,
                images.labels_N,
                first[place],
                second[place],
                num_resamples=500,
                groups_N=images.groups_N,
            )
            return measurement(found, optimism if way == WAYS[1] else None)

        both = over(tuned.predictions, extracted.predictions, (tuned.optimism, extracted.optimism))
        found = claims(
            Measured(
                images=way,
                num_train=world.num_val,
                tuned_over_extracted=both,
                tuned_over_probe=over(tuned.predictions, probe, (tuned.optimism, 0.0)),
                pretrained_over_random=over(probe, random_probe),
                seconds_ratio=ratio_over_seeds(tuned.seconds, extracted.seconds),
                tuned_harm=tuned.harm,
                extracted_harm=extracted.harm,
            )
        )
        first, second = both.optimism or (0.0, 0.0)
        moved = Interval(value=both.value, low=both.low - first, high=both.high + second)
        gain = over(tuned.predictions, recipe, (tuned.optimism, 0.0))
        return {
            **{c.text: c.verdict in SAID for c in found if c.verdict != "not measured"},
            HELPED: judge(gain) == SAID[0],
            DIFFERS: verdict_of(moved, None) != "undecided",
        }

    values = [
        float(np.mean([ACCURACY(val.labels_N, given_NC) for given_NC in each[0]]))
        for each in (tuned.predictions, probe)
    ]
    best, elsewhere = (
        Predictions(val.labels_N, said_SNC, val.groups_N)
        for said_SNC in (tuned.predictions[0], tuned.elsewhere)
    )
    learned = measure_learned([best], ["a", "b"], SHARES, elsewhere=[elsewhere])
    return {
        **{
            f"{what}, {way}": float(is_said) for way in WAYS for what, is_said in said(way).items()
        },
        ALARM: float(not learned.is_shown),
        AHEAD: values[0] - values[1],
    }


ROWS = {
    "78 images": World(num_val=78),
    "400 images": World(num_val=400),
    "400 images, seeds differ": World(num_val=400, seed_spread=0.015),
    "133 patients of 3 images": World(num_val=399, num_test=399, images_each=3),
    "400 images, 30 trials against 4": World(
        num_val=400, num_trials=30, other_trials=4, other_epochs=3
    ),
    "200 images, 20 trials against 1": World(
        num_val=200, num_trials=20, other_trials=1, other_epochs=1
    ),
}
