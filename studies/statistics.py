"""Intervals of what was measured. Pure functions; knows nothing of studies."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.

    Raises:
        ValueError: ``0 <= successes <= n`` and ``n >= 1`` don't hold.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of independent values; paired where they are differences.

    Source: Student (W. S. Gosset), "The probable error of a mean", Biometrika 6 (1908), 1-25.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"An interval of a mean needs 2 or more values, but got {len(values)}.")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(student_t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return mean - half, mean + half
