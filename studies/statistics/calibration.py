"""From logits to probabilities and classes, and whether probabilities can be taken at their word.

Scaling and threshold are chosen on validation images; slope, intercepts, calibration error and
curve judge them. Pure functions; knows nothing of studies, loads no torch.

Legend: S seeds, N images, C classes, G groups, P = C numbers: the slope, then C - 1 intercepts,
D drawn sets of labels, U different probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from studies.statistics.clusters import find_clusters
from studies.statistics.estimates import OF_VALUES, as_json, over_seeds
from studies.statistics.intervals import Interval, t_quantile
from studies.statistics.metrics import Floats, Labels, check_predictions
from transfer.training.calibrated_loss import targets

LOWEST, HIGHEST = 0.01, 100.0
UNCHANGED, MIDDLE = 1.0, 0.5
# Images of each class that a bias for it needs where there are more classes than two.
FEWEST_IMAGES = 50


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Logits z become ``scale`` * z + ``biases`` (C,), the first of which is 0."""

    scale: float
    biases: tuple[float, ...]

    @classmethod
    def of_temperature(cls, temperature: float, num_classes: int) -> "Calibration":
        """Logits over a temperature, without biases."""
        return cls(scale=1 / temperature, biases=(0.0,) * num_classes)

    def logits(self, logits_NC: NDArray[np.floating]) -> Floats:
        """Calibrated logits (N, C)."""
        scaled_NC: Floats = self.scale * np.asarray(logits_NC, np.float64) + self.biases
        return scaled_NC

    def probabilities(self, logits_NC: NDArray[np.floating]) -> Floats:
        """Calibrated probabilities (N, C)."""
        return np.asarray(softmax(self.logits(logits_NC), axis=1))


def probabilities(logits_NC: NDArray[np.floating], temperature: float) -> Floats:
    """The softmax (N, C) of the logits over the temperature."""
    return np.asarray(softmax(np.asarray(logits_NC, np.float64) / temperature, axis=1))


def uncalibrated(logits: NDArray[np.floating]) -> Floats:
    """Probabilities before calibration: the softmax of logits (..., N, C)."""
    return np.asarray(softmax(np.asarray(logits, np.float64), axis=-1))


def negative_log_likelihood(
    logits_NC: NDArray[np.floating], labels_N: Labels, calibration: Calibration
) -> float:
    """Mean negative log likelihood of the labels."""
    scaled_NC = log_softmax(calibration.logits(logits_NC), axis=1)
    return -float(np.mean(scaled_NC[np.arange(len(labels_N)), labels_N]))


def find_calibration(logits_NC: NDArray[np.floating], labels_N: Labels) -> Calibration:
    """The calibration with the least negative log likelihood of these images.

    Two classes get a scale and a bias (Platt), fitted to labels that are moved a little towards
    each other, so that images which are all classified right have a best fit too. More classes
    get a temperature and biases where each class has 50 images, else a temperature alone. The
    scale is kept in 0.01..100, so that no calibration turns the order of the images round.
    Images of one class alone leave the probabilities as they are.

    Sources: J. Platt, "Probabilistic outputs for support vector machines", Advances in Large
    Margin Classifiers (1999), section 2.2; A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum
    likelihood with bias-corrected calibration is hard-to-beat at label shift adaptation", ICML
    2020: temperature and biases.

    Raises:
        ValueError: no image, or a logit that is not finite.
    """
    logits_NC = _checked(logits_NC, labels_N)
    num_classes = logits_NC.shape[1]
    counts_C = np.bincount(labels_N, minlength=num_classes)
    if (counts_C > 0).sum() == 1:
        return Calibration.of_temperature(UNCHANGED, num_classes)
    if num_classes > 2 and (counts_C.min() < FEWEST_IMAGES or _all_right(logits_NC, labels_N)):
        return Calibration.of_temperature(find_temperature(logits_NC, labels_N), num_classes)
    true_NC = targets(labels_N, 2) if num_classes == 2 else np.eye(num_classes)[labels_N]
    scale, biases_C = fit_scale_and_biases(logits_NC, true_NC, bounds=(LOWEST, HIGHEST))
    return Calibration(scale=scale, biases=tuple(map(float, biases_C)))


def fit_scale_and_biases(
    logits_NC: Floats, true_NC: Floats, *, bounds: tuple[float, float]
) -> tuple[float, Floats]:
    """Scale and biases (C,) of the logits with the least cross-entropy to ``true_NC``.

    The first bias is 0. The scale stays within ``bounds``; where both are the same it is that.
    """
    spread = max(float((logits_NC - logits_NC.mean(axis=1, keepdims=True)).std()), 1e-12)
    unit_NC = logits_NC / spread  # So that one step fits the scale and the biases.

    def cost(values: Floats) -> tuple[float, Floats]:
        log_NC = log_softmax(values[0] * unit_NC + np.array([0.0, *values[1:]]), axis=1)
        excess_NC = np.exp(log_NC) - true_NC
        slopes = np.array([(excess_NC * unit_NC).sum(), *excess_NC[:, 1:].sum(axis=0)])
        return -float((true_NC * log_NC).sum()) / len(true_NC), slopes / len(true_NC)

    low, high = (bound * spread for bound in bounds)
    start = np.zeros(true_NC.shape[1])
    start[0] = np.clip(spread, low, high)
    found = minimize(
        cost,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high), *[(None, None)] * (len(start) - 1)],
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000},
    )
    return float(found.x[0] / spread), np.array([0.0, *found.x[1:]])


def _checked(logits_NC: NDArray[np.floating], labels_N: Labels) -> Floats:
    checked_NC: Floats = np.asarray(logits_NC, np.float64)
    if not len(labels_N) or not np.isfinite(checked_NC).all():
        raise ValueError("A calibration needs one image or more, and finite logits.")
    return checked_NC


def _all_right(logits_NC: Floats, labels_N: Labels) -> bool:
    true_N = logits_NC[np.arange(len(labels_N)), labels_N]
    return bool((true_N == logits_NC.max(axis=1)).all())


def find_temperature(logits_NC: NDArray[np.floating], labels_N: Labels) -> float:
    """The temperature in 0.01..100 with the least negative log likelihood of these images.

    Where every image is classified right the likelihood grows without end as the temperature
    falls: nothing can be said of it, and 1 leaves the probabilities as they are.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.

    Raises:
        ValueError: no image, or a logit that is not finite.
    """
    logits_NC = _checked(logits_NC, labels_N)
    if _all_right(logits_NC, labels_N):
        return UNCHANGED
    true_N = logits_NC[np.arange(len(labels_N)), labels_N]

    def slope(inverse: float) -> float:
        """Of the negative log likelihood, which is convex, by one over the temperature."""
        expected_N = (softmax(inverse * logits_NC, axis=1) * logits_NC).sum(axis=1)
        return float(np.mean(expected_N - true_N))

    hottest, coldest = 1 / HIGHEST, 1 / LOWEST
    if slope(hottest) >= 0:
        return HIGHEST
    if slope(coldest) <= 0:
        return LOWEST
    return 1 / float(brentq(slope, hottest, coldest, xtol=1e-12, rtol=1e-12))


def find_threshold(probabilities_NC: Floats, labels_N: Labels) -> float | None:
    """The least probability of class 1 of two at which an image is called class 1.

    It has the highest balanced accuracy on these images; of equals the one nearest to 0.5, then
    the lower one. It stands in the middle between two images. None for more classes than two.
    """
    if probabilities_NC.shape[1] != 2:
        return None
    positive_N = probabilities_NC[:, 1]
    distinct = np.unique(positive_N)
    found = np.append((distinct[1:] + distinct[:-1]) / 2, MIDDLE)

    def rank(threshold: float) -> tuple[float, float, float]:
        called_N = positive_N >= threshold
        shares = [np.mean(called_N[labels_N == label] == label) for label in np.unique(labels_N)]
        # Rounded: sums of the same shares in another order are equals.
        return -round(float(np.mean(shares)), 12), abs(threshold - MIDDLE), threshold

    return min(map(float, found), key=rank)


def called(probabilities_NC: Floats, threshold: float | None) -> Labels:
    """The class that each image is called, (N,): by the threshold, or the most probable one."""
    if threshold is None:
        return np.asarray(probabilities_NC.argmax(axis=1), dtype=np.int64)
    return np.asarray(probabilities_NC[:, 1] >= threshold, dtype=np.int64)


NUM_BINS, NUM_DRAWS = 15, 200
# The same as in `metrics.losses`: a probability of 0 has no logarithm.
SMALLEST_PROBABILITY = 1e-12
# A slope beyond it is that of images which are all on their side: there is no best one.
STEEPEST = 1000.0


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """What would mend the probabilities: 1 and 0 where they are right.

    ``slope`` below 1 says that they are too near 0 and 1, above 1 that they are too cautious.
    ``intercepts``, of each class but the first, are log odds against the first class with the
    slope kept at 1: below 0 the class is foretold too often.
    """

    slope: Interval
    intercepts: tuple[Interval, ...]

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """``slope``, and ``intercepts`` by class."""
        pairs = zip(classes[1:], self.intercepts, strict=True)
        return {
            "slope": self.slope.as_json(),
            "intercepts": {name: found.as_json() for name, found in pairs},
        }


def find_recalibration(
    labels_N: Labels,
    probabilities_SNC: Floats,
    *,
    groups_N: Labels | None = None,
    confidence: float = 0.95,
) -> Recalibration | None:
    """Slope and intercepts of a logistic regression of the labels on the logits, over seeds.

    Means over seeds, with intervals for further seeds on further images: the variance of images
    by the influence of each image (of each group where groups are given) on the mean, that of
    seeds beside it, as in ``intervals.bootstrap_over_seeds``. With one seed it is the interval
    of that model. None where there is no best slope: every image on the right side of some
    threshold, or a class without an image; and where all images are of one group.

    Sources: D. R. Cox, "Two further applications of a model for binary regression", Biometrika 45
    (1958), 562-565; B. Van Calster et al., "Calibration: the Achilles heel of predictive
    analytics", BMC Medicine 17 (2019), 230; for more classes as in K. Van Hoorde et al.,
    "Assessing calibration of multinomial risk prediction models", Statistics in Medicine 33
    (2014), 2585-2596, with one slope.

    Raises:
        ValueError: ``check_predictions`` refuses the predictions of a seed.
    """
    for probabilities_NC in probabilities_SNC:
        check_predictions(labels_N, probabilities_NC)
    if np.bincount(labels_N, minlength=probabilities_SNC.shape[2]).min() == 0:
        return None
    if groups_N is not None and len(np.unique(groups_N)) < 2:
        return None
    found = [_fitted(labels_N, probabilities_NC) for probabilities_NC in probabilities_SNC]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    values_SP = np.array([values_P for values_P, _ in known])
    influence_SNP = np.array([influence_NP for _, influence_NP in known])
    slope, *intercepts = (
        _over_seeds(values_SP[:, p], influence_SNP[:, :, p], groups_N, confidence)
        for p in range(values_SP.shape[1])
    )
    return Recalibration(slope=slope, intercepts=tuple(intercepts))


def _fitted(labels_N: Labels, probabilities_NC: Floats) -> tuple[Floats, Floats] | None:
    """Slope and intercepts of one model (P,), and how each image moves them, (N, P)."""
    logits_NC = np.log(np.maximum(probabilities_NC, SMALLEST_PROBABILITY))
    true_NC = np.eye(probabilities_NC.shape[1])[labels_N]
    slope, biases_C = fit_scale_and_biases(logits_NC, true_NC, bounds=(-STEEPEST, STEEPEST))
    joint_NC = slope * logits_NC + biases_C
    influence_NP, information = _influence(logits_NC, true_NC, joint_NC, slice(None))
    # Where the images lie on both sides the likelihood is flat: nothing is known of the slope.
    if information[0, 0] < 1e-6 or np.linalg.cond(information) > 1e12:
        return None
    _, intercepts_C = fit_scale_and_biases(logits_NC, true_NC, bounds=(1.0, 1.0))
    shifted_NC = logits_NC + intercepts_C
    moved_NP, _ = _influence(logits_NC, true_NC, shifted_NC, slice(1, None))
    values_P = np.array([slope, *intercepts_C[1:]])
    return values_P, np.column_stack([influence_NP[:, 0], moved_NP])


def _influence(
    logits_NC: Floats, true_NC: Floats, fitted_NC: Floats, free: slice
) -> tuple[Floats, Floats]:
    """How each image moves the free ones of slope and intercepts, and Fisher's information."""
    num_images, num_classes = logits_NC.shape
    p_NC = softmax(fitted_NC, axis=1)
    constant_NCP = np.tile(np.eye(num_classes)[:, 1:], (num_images, 1, 1))
    design_NCP = np.concatenate([logits_NC[:, :, None], constant_NCP], axis=2)[:, :, free]
    scores_NP = np.einsum("ncp,nc->np", design_NCP, true_NC - p_NC)
    mean_NP = np.einsum("ncp,nc->np", design_NCP, p_NC)
    information = np.einsum("ncp,nc,ncq->pq", design_NCP, p_NC, design_NCP) - mean_NP.T @ mean_NP
    return scores_NP @ np.linalg.pinv(information), information


def _over_seeds(
    values_S: Floats, influence_SN: Floats, groups_N: Labels | None, confidence: float
) -> Interval:
    """The mean over seeds; images and seeds add their variances."""
    num_seeds = len(values_S)
    if groups_N is not None:
        _, index_N = np.unique(groups_N, return_inverse=True)
        influence_SN = np.array([np.bincount(index_N, row_N) for row_N in influence_SN])
    num_units = influence_SN.shape[1]
    scale = num_units / (num_units - 1)
    of_images = scale * float((influence_SN.mean(axis=0) ** 2).sum())
    seen = excess = 0.0
    if num_seeds > 1:
        own_SN = influence_SN - influence_SN.mean(axis=0)
        own = scale * float((own_SN**2).sum()) / (num_seeds - 1)
        seen = float(values_S.var(ddof=1)) / num_seeds
        excess = max(0.0, seen - own / num_seeds)
    parts = [(seen, num_seeds)]
    if groups_N is not None:
        parts.append((of_images, num_units))
    variance = of_images + excess
    value = float(values_S.mean())
    half = t_quantile(variance, parts, confidence) * variance**0.5
    return Interval(value=value, low=value - half, high=value + half)


@dataclass(frozen=True, kw_only=True)
class CalibrationError:
    """The expected calibration error of one model, and what chance alone would give.

    ``expected`` is its mean over labels drawn from the model's own probabilities: what a model
    of this confidence shows on so many images though it is calibrated. ``p`` is how often such
    labels give as much; None where images come in groups, whose labels are not drawn one by one.
    """

    value: float
    expected: float
    p: float | None

    @property
    def excess(self) -> float:
        """What is beyond chance; may be below 0, where there is less than chance gives."""
        return self.value - self.expected

    def as_json(self) -> dict[str, float | None]:
        """``value``, ``expected``, ``excess`` and ``p``."""
        return {
            "value": self.value,
            "expected": self.expected,
            "excess": self.excess,
            "p": self.p,
        }


def find_calibration_error(
    labels_N: Labels,
    probabilities_NC: Floats,
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    groups_N: Labels | None = None,
) -> CalibrationError:
    """Mean gap between confidence and accuracy over 15 bins of equal width, beside chance.

    Each bin's gap is an absolute value, so that it is above 0 on any number of images: an interval
    around it would hold the truth never. What chance gives is that of independent images; where
    they come in groups it gives more, and p, which would be too small, is left out.

    Sources: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks",
    ICML 2017, eq. 3; J. Bröcker, L. A. Smith, "Increasing the reliability of reliability
    diagrams", Weather and Forecasting 22 (2007), 651-661: labels drawn from the forecasts.

    Raises:
        ValueError: ``check_predictions`` refuses the predictions.
    """
    check_predictions(labels_N, probabilities_NC)
    confidence_N = np.clip(probabilities_NC.max(axis=1), 0.0, 1.0)
    right_N = probabilities_NC.argmax(axis=1) == labels_N
    rng = np.random.default_rng(seed)
    drawn_DN = rng.random((num_draws, len(labels_N))) < confidence_N
    # Bins are open below and closed above, as in the paper.
    bin_N = np.maximum(np.ceil(confidence_N * NUM_BINS).astype(np.int64) - 1, 0)
    member_NM = (bin_N[:, None] == np.arange(NUM_BINS)).astype(np.float64)
    gaps_DM = (np.vstack([right_N, drawn_DN]) - confidence_N) @ member_NM
    value, *drawn = (np.abs(gaps_DM).sum(axis=1) / len(labels_N)).tolist()
    as_large = sum(each >= value for each in drawn)
    p = (1 + as_large) / (1 + num_draws)
    is_grouped = find_clusters(labels_N, groups_N) is not None
    return CalibrationError(
        value=value, expected=float(np.mean(drawn)), p=None if is_grouped else p
    )


def calibration_json(
    labels_N: Labels,
    plain_SNC: Floats,
    calibrated_SNC: Floats,
    classes: Sequence[str],
    groups_N: Labels | None = None,
) -> dict[str, Any]:
    """Of one model or of seeds on the same images: ``before`` and ``after`` calibration.

    Each has ``loss``, ``brier``, ``slope`` and ``intercepts`` by class, with their intervals and
    null where they are not defined; of one model also ``ece`` beside what chance gives.

    Raises:
        ValueError: ``check_predictions`` refuses the predictions of a seed.
    """
    return {
        "before": _measures(labels_N, plain_SNC, classes, groups_N),
        "after": _measures(labels_N, calibrated_SNC, classes, groups_N),
    }


def _measures(
    labels_N: Labels,
    probabilities_SNC: Floats,
    classes: Sequence[str],
    groups_N: Labels | None,
) -> dict[str, Any]:
    found = find_recalibration(labels_N, probabilities_SNC, groups_N=groups_N)
    nothing = {"slope": None, "intercepts": None}
    told: dict[str, Any] = nothing if found is None else found.as_json(classes)
    if len(probabilities_SNC) == 1:
        told["ece"] = find_calibration_error(
            labels_N, probabilities_SNC[0], groups_N=groups_N
        ).as_json()
    for name in OF_VALUES:
        told[name] = as_json(over_seeds(name, labels_N, probabilities_SNC, groups_N))
    return told


@dataclass(frozen=True, kw_only=True)
class ReliabilityCurve:
    """How often what is foretold comes true, by the probability with which it is.

    Shapes: ``foretold_U`` the different probabilities, rising; ``observed_U`` the share that came
    true there; ``low_U`` to ``high_U`` is where that would lie in 95 % were the probabilities
    right; ``counts_U`` images of each.
    """

    foretold_U: Floats
    observed_U: Floats
    low_U: Floats
    high_U: Floats
    counts_U: NDArray[np.int64]


def reliability_curve(
    foretold_N: Floats,
    came_true_N: NDArray[np.bool_],
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> ReliabilityCurve:
    """The curve by isotonic regression, which needs no bins, with its consistency band.

    The band takes images as independent: where they come in groups it is too narrow.

    Source: T. Dimitriadis, T. Gneiting, A. I. Jordan, "Stable reliability diagrams for
    probabilistic classifiers", PNAS 118 (2021), e2016191118.
    """
    from sklearn.isotonic import isotonic_regression  # It takes a second to import.

    foretold_U, index_N, counts_U = np.unique(foretold_N, return_inverse=True, return_counts=True)
    shares_U = np.bincount(index_N, came_true_N) / counts_U
    rng = np.random.default_rng(seed)
    drawn_DU = rng.binomial(counts_U, np.clip(foretold_U, 0, 1), (num_draws, len(foretold_U)))
    observed_U, *curves = (
        isotonic_regression(row_U, sample_weight=counts_U)
        for row_U in (shares_U, *(drawn_DU / counts_U))
    )
    low_U, high_U = np.quantile(curves, [0.025, 0.975], axis=0)
    return ReliabilityCurve(
        foretold_U=foretold_U,
        observed_U=np.asarray(observed_U),
        low_U=low_U,
        high_U=high_U,
        counts_U=counts_U,
    )
