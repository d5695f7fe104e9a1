"""How good forecasts, corrections and verdicts are in simulated studies, whose truth is known.

Every run makes what a study would have stored and asks the project's own functions. Results are
appended to a table of JSON lines, fifty runs a line, so that a long simulation goes on where it
was stopped; tests compare what is stored with what they promise, and single runs with today's:

    python benchmarks/simulated_studies.py --runs 1000 --out benchmarks/simulated_studies.jsonl
    python benchmarks/simulated_studies.py --show --out benchmarks/simulated_studies.jsonl

`--only` takes the worlds whose names begin so: a run of most costs 2 to 70 ms, of a null study 0.2
to 0.6 s, of a forecast by calibrated loss 0.7 to 1.4. `benchmarks/coverage.py` has the worlds of
intervals on test images.

Legend: S seeds, E epochs, N images, C classes.
"""

import argparse
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nulls import ROWS, null_study
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from studies.results.controls import Predictions, measure_learned
from studies.statistics.calibration import find_calibration_error, find_recalibration
from studies.statistics.forecast import Forecast, Predicted, forecast
from studies.statistics.intervals import Interval, bootstrap_over_seeds
from studies.statistics.metrics import CALIBRATED_LOSS, METRICS
from studies.statistics.optimism import Optimism, selection_optimism
from studies.statistics.paired import Difference, chosen_elsewhere, difference_over_seeds
from studies.statistics.verdict_words import is_within, verdict_of

BLOCK = 50  # runs of a line
NUM_TRIALS, NUM_EPOCHS, NUM_TEST, TOP = 30, 20, 400, 2
ACCURACY = METRICS["accuracy"]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
# Of a run, by name: shares of them are told where they are 0 or 1, else means.
Found = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search and its confirmation, of two equally frequent classes.

    ``shared`` is of what decides on an image the part that is the image's ease, ``own`` the part
    that all trainings of a configuration share, ``of_seed`` the part that all epochs of a training
    share; the rest lasts by 0.8 an epoch. ``spread`` is of the true accuracies of configurations,
    ``seed_spread`` of those of one configuration's trainings. ``by_loss``: the calibrated loss
    chooses, else accuracy.
    """

    num_val: int = 78
    num_seeds: int = 3
    shared: float = 0.3
    own: float = 0.3
    of_seed: float = 0.2
    spread: float = 0.0
    seed_spread: float = 0.0
    by_loss: bool = False


def simulated_forecast(study: Study, seed: int) -> tuple[Forecast, float, float]:
    """A study to its end: forecast, the configuration's true accuracy, the test images'."""
    rng = np.random.default_rng(seed)
    labels_N, ease_N = np.arange(study.num_val) % 2, rng.normal(size=study.num_val)
    rest = 1 - study.shared - study.own - study.of_seed
    weights = np.sqrt([study.shared, study.own, study.of_seed, rest])

    def training(own_N: Floats, accuracy: float) -> Predicted:
        rest_EN = rng.normal(size=(NUM_EPOCHS, study.num_val))
        for epoch in range(1, NUM_EPOCHS):
            rest_EN[epoch] = 0.6 * rest_EN[epoch] + 0.8 * rest_EN[epoch - 1]
        parts = [ease_N, own_N, rng.normal(size=study.num_val), rest_EN]
        latent_EN = sum(w * part for w, part in zip(weights, parts, strict=True))
        # What lies far from the boundary is said surely.
        margin_EN = 1.5 * (norm.ppf(accuracy) - latent_EN)
        right_EN = np.clip(1 / (1 + np.exp(-margin_EN)), 0.02, 0.98)
        is_true = np.arange(2) == labels_N[:, None]
        return Predicted(labels_N, np.where(is_true, right_EN[..., None], 1 - right_EN[..., None]))

    def score(said_NC: Floats) -> float:
        if study.by_loss:
            return -CALIBRATED_LOSS(labels_N, said_NC)
        return ACCURACY(labels_N, said_NC)

    def best(found: Predicted) -> float:
        return max(map(score, found.probabilities_ENC))

    def with_seed(accuracy: float) -> float:
        return float(np.clip(accuracy + study.seed_spread * rng.normal(), 0.3, 0.995))

    accuracies = np.clip(0.8 + study.spread * rng.normal(size=NUM_TRIALS), 0.5, 0.99)
    owns = [rng.normal(size=study.num_val) for _ in accuracies]
    trials = [training(own, with_seed(a)) for own, a in zip(owns, accuracies, strict=True)]
    candidates = np.argsort([-best(trial) for trial in trials])[:TOP]
    trained = {}
    for i in candidates:
        of_seeds = [with_seed(accuracies[i]) for _ in range(study.num_seeds)]
        trained[i] = of_seeds, [training(owns[i], a) for a in of_seeds]
    chosen = max(candidates, key=lambda i: np.mean([best(run) for run in trained[i][1]]))
    of_seeds, runs = trained[chosen]
    found = forecast(
        trials,
        runs,
        ACCURACY,
        num_test=NUM_TEST,
        num_models=1,
        chosen_by=CALIBRATED_LOSS if study.by_loss else None,
        num_resamples=100,
        seed=seed,
    )
    return found, float(accuracies[chosen]), rng.binomial(NUM_TEST, of_seeds[0]) / NUM_TEST


def of_forecast(study: Study, seed: int) -> Found:
    """How far validation and forecast are off, and whether the interval holds the result."""
    found, truth, result = simulated_forecast(study, seed)
    return {
        "naive_off": found.naive - truth,
        "off": found.value - truth,
        "held": float(found.holds(result)),
    }


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search alone: trials of these true accuracies, and how their errors correlate.

    ``shared`` is of what decides the part that is the image's ease, the same for every trial,
    ``own`` the part that is the trial's own, the same in all of its epochs, ``lasting`` the
    correlation of the rest from one epoch to the next.
    """

    num_images: int = 78
    accuracies: tuple[float, ...] = (0.8,) * NUM_TRIALS
    shared: float = 0.0
    own: float = 0.0
    lasting: float = 0.0


def simulated_search(search: Search, seed: int) -> Optimism:
    """The best of all epochs of all trials, and what it is corrected to."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(search.num_images) % 2
    ease_N = rng.normal(size=search.num_images)
    trials = []
    for accuracy in search.accuracies:
        rest_EN = rng.normal(size=(NUM_EPOCHS, search.num_images))
        for epoch in range(1, NUM_EPOCHS):
            rest_EN[epoch] *= (1 - search.lasting**2) ** 0.5
            rest_EN[epoch] += search.lasting * rest_EN[epoch - 1]
        latent_EN = (
            search.shared**0.5 * ease_N
            + search.own**0.5 * rng.normal(size=search.num_images)
            + (1 - search.shared - search.own) ** 0.5 * rest_EN
        )
        called_EN = np.where(latent_EN < norm.ppf(accuracy), labels_N, 1 - labels_N)
        sure_EN = rng.uniform(0.6, 0.95, called_EN.shape)[..., None]
        trials.append(np.where(np.arange(2) == called_EN[..., None], sure_EN, 1 - sure_EN))
    return selection_optimism(labels_N, trials, ACCURACY, num_resamples=100, seed=seed)


def of_search(search: Search, seed: int) -> Found:
    """How far the best and its correction are off, and whether the interval holds the truth."""
    found = simulated_search(search, seed)
    truth = search.accuracies[found.trial]
    return {
        "naive_off": found.naive - truth,
        "off": found.corrected.value - truth,
        "held": float(found.corrected.low <= truth <= found.corrected.high),
    }


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two strategies on the same images: half of what decides is the image, half the model's."""

    accuracies: tuple[float, float] = (0.88, 0.88)
    spread: float = 0.0
    num_seeds: int = 3
    num_images: int = 400
    margin: float = 0.02


def models(
    rng: np.random.Generator,
    labels_N: Labels,
    ease_N: Floats,
    accuracy: float,
    spread: float,
    num_seeds: int,
) -> Floats:
    """Probabilities (S, N, C) of one strategy's seeds: right where an image is easy enough."""
    found = []
    for mean in np.clip(rng.normal(accuracy, spread, num_seeds), 0.55, 0.995):
        latent_N = (ease_N + rng.normal(size=len(labels_N))) / 2**0.5
        called_N = np.where(latent_N < norm.ppf(mean), labels_N, 1 - labels_N)
        found.append(np.where(np.arange(2) == called_N[:, None], 0.9, 0.1))
    return np.stack(found)


def simulated_pair(pair: Pair, seed: int) -> Difference:
    """Their difference over seeds and images."""
    rng = np.random.default_rng(seed)
    labels_N, ease_N = np.arange(pair.num_images) % 2, rng.normal(size=pair.num_images)
    first, second = (
        models(rng, labels_N, ease_N, accuracy, pair.spread, pair.num_seeds)
        for accuracy in pair.accuracies
    )
    return difference_over_seeds(ACCURACY, labels_N, first, second, num_resamples=200, seed=seed)


def of_pair(pair: Pair, seed: int) -> Found:
    """Whether a difference is said, the true one held, and what is said of the margin."""
    found = simulated_pair(pair, seed)
    truth = pair.accuracies[0] - pair.accuracies[1]
    said = verdict_of(found, pair.margin)
    worse = said in ("as good as", "not worse", "better") or is_within(found, pair.margin)
    better = said in ("as good as", "not better", "worse") or is_within(found, pair.margin)
    return {
        "different": float(found.low > 0 or found.high < 0),
        "held": float(found.low <= truth <= found.high),
        "not_worse_or_better": float(worse),
        "not_better_or_worse": float(better),
    }


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """One strategy's models on the same images, as of a ``Pair``."""

    spread: float
    num_seeds: int
    num_images: int
    accuracy: float = 0.88


def of_seeds(world: Seeds, seed: int) -> Found:
    """Whether the interval of the mean holds what further seeds average to, and its width."""
    rng = np.random.default_rng(seed)
    labels_N, ease_N = np.arange(world.num_images) % 2, rng.normal(size=world.num_images)
    said_SNC = models(rng, labels_N, ease_N, world.accuracy, world.spread, world.num_seeds)
    found = bootstrap_over_seeds(ACCURACY, labels_N, said_SNC, num_resamples=200, seed=seed)
    return {
        "held": float(found.low <= world.accuracy <= found.high),
        "width": found.high - found.low,
    }


@dataclass(frozen=True, kw_only=True)
class Said:
    """What models say of two classes, as log odds that are right, times ``sharpness``.

    Each of the seeds is off by its own factor besides, whose logarithm has the standard deviation
    ``spread``. A patient's images have one label and half of the noise in common.
    """

    num_patients: int
    images_each: int = 1
    sharpness: float = 1.0
    num_seeds: int = 1
    spread: float = 0.0
    prevalence: float = 0.4
    distance: float = 1.7  # of the classes' means, in standard deviations


def said_of_two(world: Said, rng: np.random.Generator) -> tuple[Labels, Floats, Labels | None]:
    """Labels (N,), probabilities (S, N, C), and whose image each is."""
    patient_N = np.repeat(np.arange(world.num_patients), world.images_each)
    labels_N = (rng.random(world.num_patients) < world.prevalence).astype(np.int64)[patient_N]
    noise_N = rng.normal(size=len(patient_N))
    if world.images_each > 1:
        noise_N = (noise_N + rng.normal(size=world.num_patients)[patient_N]) / 2**0.5
    evidence_N = noise_N + world.distance * labels_N
    odds_N = logit(world.prevalence) + world.distance * (evidence_N - world.distance / 2)
    factors_S = world.sharpness * np.exp(world.spread * rng.normal(size=world.num_seeds))
    said_SN = expit(factors_S[:, None] * odds_N)
    groups_N = patient_N if world.images_each > 1 else None
    return labels_N, np.stack([1 - said_SN, said_SN], axis=2), groups_N


@lru_cache
def true_intercept(world: Said) -> float:
    """That of one model of this sharpness, on so many images that chance is out of it."""
    many = replace(world, num_patients=400_000, images_each=1, num_seeds=1, spread=0.0)
    labels_N, said_SNC, _ = said_of_two(many, np.random.default_rng(12345))
    found = find_recalibration(labels_N, said_SNC)
    assert found is not None
    return found.intercepts[0].value


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def of_said(world: Said, seed: int) -> Found:
    """Whether slope and intercept are held, and whether the calibration error has a small p."""
    labels_N, said_SNC, groups_N = said_of_two(world, np.random.default_rng(seed))
    found = find_recalibration(labels_N, said_SNC, groups_N=groups_N)
    slope = np.exp(world.spread**2 / 2) / world.sharpness
    # Where images lie so that there is no slope, nothing is said and nothing held.
    told = {
        "slope_held": float(found is not None and found.slope.low <= slope <= found.slope.high)
    }
    if world.spread == 0:
        intercept = None if found is None else found.intercepts[0]
        truth = true_intercept(world)
        told["intercept_held"] = float(
            intercept is not None and intercept.low <= truth <= intercept.high
        )
    if world.num_seeds == 1 and groups_N is None:
        error = find_calibration_error(labels_N, said_SNC[0], seed=seed)
        assert error.p is not None
        told |= {"ece": error.value, "excess": error.excess, "small_p": float(error.p < 0.05)}
    return told


@dataclass(frozen=True, kw_only=True)
class Ignorant:
    """Trainings that know nothing of the images; epochs correlate by ``lasting``."""

    num_images: int
    lasting: float
    num_seeds: int = 3
    num_epochs: int = 15


def of_ignorant(world: Ignorant, seed: int) -> Found:
    """Whether the alarm is raised, and whether it were at the epochs with the best loss."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(world.num_images) % 2
    best, elsewhere = [], []
    for _ in range(world.num_seeds):
        odds_EN = rng.normal(size=(world.num_epochs, world.num_images))
        for epoch in range(1, world.num_epochs):
            odds_EN[epoch] *= (1 - world.lasting**2) ** 0.5
            odds_EN[epoch] += world.lasting * odds_EN[epoch - 1]
        said_ENC = np.stack([expit(-odds_EN), expit(odds_EN)], axis=2)
        losses = [CALIBRATED_LOSS(labels_N, said_NC) for said_NC in said_ENC]
        best.append(said_ENC[int(np.argmin(losses))])
        apart_NC = chosen_elsewhere(labels_N, said_ENC, None)
        assert apart_NC is not None
        elsewhere.append(apart_NC)
    sets = [Predictions(labels_N, np.stack(best))]
    apart = [Predictions(labels_N, np.stack(elsewhere))]
    shares_C = np.array([0.5, 0.5])
    judged, taken = (
        measure_learned(sets, ["a", "b"], shares_C, elsewhere=each, num_resamples=400)
        for each in (apart, None)
    )
    return {
        "alarm": float(not judged.is_shown),
        "alarm_by_those_that_chose": float(not taken.is_shown),
    }


STUDIES = {
    "equal": Study(),
    "seeds differ": Study(seed_spread=0.02),
    "nothing lasts": Study(shared=0.5, own=0.0, of_seed=0.0),
    "more images": Study(num_val=300),
    "configurations differ": Study(spread=0.05),
    "both differ": Study(num_val=300, spread=0.05, seed_spread=0.02),
    "two seeds": Study(num_seeds=2, seed_spread=0.02),
    "one seed": Study(num_seeds=1),
}
SEARCHES = {
    "independent": Search(),
    "hard images": Search(shared=0.5),
    "and lasting errors": Search(shared=0.5, lasting=0.9),
    "and trials of their own": Search(shared=0.3, own=0.3, lasting=0.8),
}


def _worlds() -> dict[str, Callable[[int], Found]]:
    worlds: dict[str, Callable[[int], Found]] = {}

    def add(name: str, of: Callable[[Any, int], Found], world: object) -> None:
        worlds[name] = lambda seed: of(world, seed)

    for name, study in STUDIES.items():
        add(f"forecast, {name}", of_forecast, study)
        by_loss = Study(**{**vars(study), "by_loss": True})
        add(f"forecast by calibrated loss, {name}", of_forecast, by_loss)
    for name, search in SEARCHES.items():
        add(f"optimism, {name}", of_search, search)
    for points, num_images in itertools.product((5, 10), (78, 300)):
        accuracies = (0.8 + points / 100, *(0.8,) * (NUM_TRIALS - 1))
        better = Search(accuracies=accuracies, num_images=num_images, shared=0.4, lasting=0.8)
        add(f"optimism, one better by {points}, {num_images} images", of_search, better)
    for num_seeds, spread, num_images in itertools.product(
        (2, 3, 5), (0.0, 0.01, 0.02, 0.03), (80, 400, 1000)
    ):
        about = f"{num_seeds} seeds, spread {spread:g}, {num_images} images"
        twins = Pair(spread=spread, num_seeds=num_seeds, num_images=num_images)
        add(f"twins, {about}", of_pair, twins)
        mean = Seeds(spread=spread, num_seeds=num_seeds, num_images=num_images)
        add(f"mean, {about}", of_seeds, mean)
    for num_images in (80, 400, 1000):  # One seed can't tell how much seeds matter, and says so.
        alone = Seeds(spread=0.0, num_seeds=1, num_images=num_images)
        add(f"mean, 1 seed, spread 0, {num_images} images", of_seeds, alone)
    for accuracies, spread in itertools.product(((0.86, 0.88), (0.88, 0.86)), (0.0, 0.02)):
        pair = Pair(accuracies=accuracies, spread=spread, num_images=800)
        first, second = accuracies
        add(f"margin, {first:g} and {second:g}, spread {spread:g}", of_pair, pair)
    for num_images, sharpness in itertools.product((100, 200, 400), (1.0, 2.0)):
        said = Said(num_patients=num_images, sharpness=sharpness)
        add(f"calibration, sharpness {sharpness:g}, {num_images} images", of_said, said)
    patients = Said(num_patients=133, images_each=3)
    add("calibration, 133 patients of 3 images", of_said, patients)
    seeds = Said(num_patients=400, num_seeds=3, spread=0.2)
    add("calibration, 3 seeds that differ, 400 images", of_said, seeds)
    for num_images, lasting in itertools.product((80, 200, 400), (0.0, 0.9)):
        ignorant = Ignorant(num_images=num_images, lasting=lasting)
        add(f"alarm, {num_images} images, epochs last {lasting:g}", of_ignorant, ignorant)
    for name, world in ROWS.items():
        add(f"null study, {name}", null_study, world)
    return worlds


WORLDS = _worlds()


def run(name: str, number: int) -> Found:
    """One run of a world."""
    return WORLDS[name](zlib.crc32(name.encode()) % 10**6 + number)


def block(name: str, first: int) -> dict[str, Any]:
    """A line of the table: means over its runs."""
    runs = [run(name, number) for number in range(first, first + BLOCK)]
    means = {key: float(np.mean([each[key] for each in runs])) for key in runs[0]}
    return {"world": name, "first": first, "runs": BLOCK, **means, "first_run": runs[0]}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a table; none where there is no table yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def means(lines: Sequence[dict[str, Any]], name: str) -> tuple[int, Found]:
    """How many runs of a world there are, and the means over them."""
    mine = [line for line in lines if line["world"] == name]
    runs = sum(line["runs"] for line in mine)
    keys = mine[0]["first_run"] if mine else {}
    return runs, {key: sum(ln[key] * ln["runs"] for ln in mine) / runs for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="of each world; whole fifties")
    parser.add_argument("--only", default="", help="worlds whose names begin so")
    parser.add_argument("--out", type=Path, required=True, help="table of JSON lines")
    parser.add_argument("--show", action="store_true", help="print the table, run nothing")
    given = parser.parse_args()
    names = [name for name in WORLDS if name.startswith(given.only)]
    if not given.show:
        known = {(line["world"], line["first"]) for line in read(given.out)}
        for first, name in itertools.product(range(0, given.runs, BLOCK), names):
            if (name, first) not in known:
                with given.out.open("a", encoding="utf-8") as table:
                    table.write(json.dumps(block(name, first)) + "\n")
    lines = read(given.out)
    for name in names:
        runs, found = means(lines, name)
        told = ", ".join(f"{key} {100 * value:.1f}" for key, value in found.items())
        print(f"{name}: {runs} runs; per cent or points: {told}")


if __name__ == "__main__":
    main()
