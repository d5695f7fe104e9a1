"""Why the test result is not what the validation images promised: points lost on the way.

A waterfall that adds up: the mean over seeds on validation images, optimism, class prior, shift,
rest, the mean over seeds on test images; from what a study's database has of forecast,
predictions and features. Opens no image and trains nothing. Never imports torch.

Legend: M training, V validation, N test images, S seeds, C classes, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.database.artifacts import (
    TEST_FEATURES,
    TEST_PREDICTIONS,
    read_arrays,
    read_predictions,
)
from studies.database.ledger import Opening
from studies.database.storage import StudyStorage
from studies.errors import UserError
from studies.explanation.domain import auroc, find_domains, permutation_p
from studies.explanation.explanation import ALL, Cause, Explanation, Level, Step
from studies.explanation.shift import NUM_RESAMPLES, WIDTH, Path, Seen, find_path, normal_interval
from studies.explanation.thresholds import find_thresholds
from studies.results.choice import Confirmed
from studies.statistics import estimates
from studies.statistics.calibration import find_calibration, find_recalibration, uncalibrated
from studies.statistics.clusters import find_clusters
from studies.statistics.forecast import Forecast
from studies.statistics.intervals import (
    Interval,
    images_that_count,
    resampling_counts,
    values_of_seeds,
)
from studies.statistics.metrics import METRICS, Floats, Labels, Score
from studies.statistics.paired import holm


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Labels, frozen features and the seeds' logits, of the epochs that were chosen.

    All seeds have the same validation images. Shapes: labels (N,), features (N, D), logits
    (S, N, C), groups (N,), which are None where nobody knows whose pictures they are.
    """

    train_labels_M: Labels
    train_features_MD: NDArray[np.floating]
    val_labels_V: Labels
    val_features_VD: NDArray[np.floating]
    val_logits_SVC: NDArray[np.floating]
    test_labels_N: Labels
    test_features_ND: NDArray[np.floating]
    test_logits_SNC: NDArray[np.floating]
    train_groups_M: Labels | None = None
    val_groups_V: Labels | None = None
    test_groups_N: Labels | None = None


def explain(
    evidence: Predictions,
    *,
    metric: str,
    classes: Sequence[str],
    forecast: Forecast,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Explanation:
    """Explain by how much the test result of a strategy's mean over seeds misses validation's.

    Optimism is the forecast's, with the variance of the mean over seeds on the validation images:
    about what its error has in simulated studies (docs/decisions.md). The chance of
    the test images belongs to the rest. The other steps are those of `waterfall.find_path`,
    less what optimism has in them: validation images that are replaced take their part of it with
    them. Calibration is a step of a loss: which class is the most probable one, and the order of
    images, are judged before calibration.

    Raises:
        ValueError: as `find_path`, or a logit is not finite.
    """
    score = METRICS[metric]
    calibrations = [
        find_calibration(logits_VC, evidence.val_labels_V) for logits_VC in evidence.val_logits_SVC
    ]
    val_SVC, test_SNC = (
        np.stack([c.probabilities(z_NC) for c, z_NC in zip(calibrations, z_SNC, strict=True)])
        for z_SNC in (evidence.val_logits_SVC, evidence.test_logits_SNC)
    )
    val = Seen(
        labels_N=evidence.val_labels_V,
        probabilities_SNC=uncalibrated(evidence.val_logits_SVC),
        features_ND=evidence.val_features_VD,
        groups_N=evidence.val_groups_V,
    )
    test = Seen(
        labels_N=evidence.test_labels_N,
        probabilities_SNC=uncalibrated(evidence.test_logits_SNC),
        features_ND=evidence.test_features_ND,
        groups_N=evidence.test_groups_N,
    )
    path = find_path(score, val, test, num_resamples=num_resamples, seed=seed)
    calibration = None
    if metric in estimates.OF_VALUES:
        calibration = _calibration(score, test, test_SNC, seed)
    return Explanation(
        metric=metric,
        classes=tuple(classes),
        num_seeds=len(calibrations),
        forecast=forecast,
        steps=_steps(score, path, _optimism(score, val, forecast, seed), forecast, calibration),
        test=path.test + (0.0 if calibration is None else calibration.value),
        matched=path.matched,
        levels=_levels(evidence, classes, seed),
        paths=path.classes,
        thresholds=find_thresholds(
            metric,
            val.labels_N,
            val_SVC,
            test.labels_N,
            test_SNC,
            plain_SNC=test.probabilities_SNC,
            seed=seed,
            groups_N=test.groups_N,
        ),
        validation_before=find_recalibration(
            val.labels_N, val.probabilities_SNC, groups_N=val.groups_N
        ),
        test_before=find_recalibration(
            test.labels_N, test.probabilities_SNC, groups_N=test.groups_N
        ),
        test_after=find_recalibration(test.labels_N, test_SNC, groups_N=test.groups_N),
    )


def _steps(
    score: Score,
    path: Path,
    optimism: Interval,
    forecast: Forecast,
    calibration: Interval | None,
) -> tuple[Step, ...]:
    shift = _moved(path.shift, -(1 - path.matched) * optimism.value)
    # What is left between the forecast and the test images, so that all adds up.
    left = path.test - forecast.value - path.prior.value - shift.value
    changes: dict[Cause, Interval] = {
        "optimism": optimism,
        "class_prior": path.prior,
        "shift": shift,
        "rest": _moved(path.rest, left - path.rest.value),
    }
    if calibration is not None:
        changes["calibration"] = calibration
    sign = 1.0 if score.larger_is_better else -1.0
    return tuple(
        Step(cause=cause, change=change, is_loss=sign * change.value < 0)
        for cause, change in changes.items()
    )


def _optimism(score: Score, val: Seen, forecast: Forecast, seed: int) -> Interval:
    """What choosing on the validation images has made up, taken off.

    Two images more, as in `paired.difference_over_seeds`: few errors are not sure of themselves.
    """
    num_resamples = estimates.num_resamples(len(val.labels_N)) // 4

    def of_mean(groups_N: Labels | None) -> float:
        counts_BN = resampling_counts(val.labels_N, num_resamples, seed, groups_N)
        _, drawn_SB = values_of_seeds(
            score, val.labels_N, val.probabilities_SNC, counts_BN, groups_N
        )
        return float(drawn_SB.mean(axis=0).var(ddof=1))

    variance, clusters = of_mean(val.groups_N), find_clusters(val.labels_N, val.groups_N)
    if score.bounded:
        by_image = variance if clusters is None else of_mean(None)
        counting = images_that_count(score, val.labels_N, clusters, by_image, variance)
        variance += 2 / counting**2
    value, half = forecast.value - forecast.naive, WIDTH * variance**0.5
    return Interval(value=value, low=value - half, high=value + half)


def _moved(interval: Interval, by: float) -> Interval:
    return Interval(value=interval.value + by, low=interval.low + by, high=interval.high + by)


def _calibration(score: Score, test: Seen, calibrated_SNC: Floats, seed: int) -> Interval:
    """What calibration changes on the test images."""
    num_resamples = estimates.num_resamples(len(test.labels_N)) // 4
    counts_BN = resampling_counts(test.labels_N, num_resamples, seed, test.groups_N)
    before, after = (
        values_of_seeds(score, test.labels_N, given_SNC, counts_BN, test.groups_N)
        for given_SNC in (test.probabilities_SNC, calibrated_SNC)
    )
    drawn_B = (after[1] - before[1]).mean(axis=0)
    return normal_interval(np.array([np.mean(after[0] - before[0]), *drawn_B]))


def _levels(evidence: Predictions, classes: Sequence[str], seed: int) -> tuple[Level, ...]:
    chosen = _like_test(evidence, len(classes), seed)
    labels = (evidence.train_labels_M[chosen], evidence.val_labels_V, evidence.test_labels_N)
    features = (
        evidence.train_features_MD[chosen],
        evidence.val_features_VD,
        evidence.test_features_ND,
    )
    groups = (
        None if evidence.train_groups_M is None else evidence.train_groups_M[chosen],
        evidence.val_groups_V,
        evidence.test_groups_N,
    )

    def told_apart(
        first: int, second: int, label: int | None
    ) -> tuple[Interval | None, float | None]:
        """AUROC, and p of as high a one by chance."""
        parts = [np.flatnonzero((labels[i] == label) | (label is None)) for i in (first, second)]
        pairs = list(zip((first, second), parts, strict=True))
        one, other = (features[i][part] for i, part in pairs)
        known = [groups[i] for i in (first, second)]
        of_parts = [None if g is None else g[p] for g, p in zip(known, parts, strict=True)]
        domains = find_domains(one, other, seed=seed, groups=(of_parts[0], of_parts[1]))
        if domains is None:
            return None, None
        labels_U = np.concatenate([labels[i][part] for i, part in pairs])
        return auroc(domains), permutation_p(domains, labels_U)

    levels = []
    for label, name in [(None, ALL), *enumerate(classes)]:
        (test, p), (reference, reference_p) = (
            told_apart(first, first + 1, label) for first in (1, 0)
        )
        levels.append(
            Level(
                images=name,
                test=test,
                reference=reference,
                p=p,
                reference_p=reference_p,
                by_subject=evidence.test_groups_N is not None,
            )
        )
    of_classes = [level.p for level in levels if not level.is_all and level.p is not None]
    adjusted = dict(zip(of_classes, holm(of_classes), strict=True))
    return tuple(
        level if level.is_all or level.p is None else replace(level, adjusted_p=adjusted[level.p])
        for level in levels
    )


def _like_test(evidence: Predictions, num_classes: int, seed: int) -> NDArray[np.int64]:
    """Training images, of each class as many as at test, or the whole groups that give as many."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    clusters = find_clusters(evidence.train_labels_M, evidence.train_groups_M)
    for label in range(num_classes):
        of_train = np.flatnonzero(evidence.train_labels_M == label)
        wanted = int((evidence.test_labels_N == label).sum())
        if clusters is None:
            chosen += rng.permutation(of_train)[:wanted].tolist()
            continue
        groups_n = clusters.group_N[of_train]
        names, counts = np.unique(groups_n, return_counts=True)
        order = rng.permutation(len(names))
        before = np.cumsum(counts[order]) - counts[order]
        chosen += of_train[np.isin(groups_n, names[order[before < wanted]])].tolist()
    return np.array(chosen, np.int64)


def explain_study(
    storage: StudyStorage, name: str, confirmed: Confirmed, opening: Opening
) -> dict[str, Explanation]:
    """Part A for each strategy's confirmed choice, as it was forecast and evaluated.

    Raises:
        UserError: the evaluation has no end, artifacts are missing, or every seed had validation
            images of its own.
        ValueError: the metric is not defined on the test images.
    """
    if opening.result is None:
        raise UserError(
            f"Opening {opening.number} of the test images has no result to explain; evaluate the "
            "bundle again, which goes on with it."
        )
    if confirmed.resplit:
        raise UserError(
            f"Every seed of study '{name}' has validation images of its own (--resplit), so "
            "that nothing says which images a test image is to be compared with; confirm a study "
            "without --resplit to have its test result explained."
        )
    ids = opening.result["artifacts"]
    said = read_arrays(storage, ids[TEST_PREDICTIONS], "predictions for test images")
    looks = read_arrays(storage, ids[TEST_FEATURES], "features of test images")
    return {
        strategy: explain(
            _evidence(storage, name, confirmed, strategy, said, looks),
            metric=str(opening.result["metric"]),
            classes=list(opening.result["counts"]),
            forecast=_forecast(opening.predicted["by_strategy"][strategy]),
        )
        for strategy in confirmed.chosen
    }


def _evidence(
    storage: StudyStorage,
    name: str,
    confirmed: Confirmed,
    strategy: str,
    said: Mapping[str, Any],
    looks: Mapping[str, Any],
) -> Predictions:
    runs = confirmed.chosen[strategy].runs
    backbone = str(runs[0].config["backbone"])
    which = looks["backbones"].tolist().index(backbone)
    known_MD = looks[f"data_{which}"]
    logits = []
    for run in runs:
        stored = read_predictions(storage, run)
        assert run.best_epoch is not None
        if not np.array_equal(stored.labels_N, looks["val_labels"]):
            raise UserError(
                f"Trial {run.number} over seeds of study '{name}' has other validation "
                "images than the study; its test result can't be explained."
            )
        logits.append(stored.logits_ENC[run.best_epoch - 1])
    return Predictions(
        train_labels_M=looks["train_labels"],
        train_features_MD=known_MD[looks["train_positions"]],
        val_labels_V=looks["val_labels"],
        val_features_VD=known_MD[looks["val_positions"]],
        val_logits_SVC=np.stack(logits),
        test_labels_N=looks["test_labels"],
        test_features_ND=looks[f"test_{which}"],
        test_logits_SNC=said[f"{strategy}_SNC"],
        train_groups_M=looks.get("train_groups"),
        val_groups_V=looks.get("val_groups"),
        test_groups_N=looks.get("test_groups"),
    )


def _forecast(stored: Mapping[str, Any]) -> Forecast:
    """The forecast as it was written before the test images were opened."""
    return Forecast(**{key: value for key, value in stored.items() if key != "optimism"})
