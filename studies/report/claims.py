"""Task D as data: what people claim of the two strategies, and what was measured here of each.

Pure functions of measured values; knows neither studies nor how a report is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from studies.statistics.intervals import Interval
from studies.statistics.paired import Measurement, difference_of, holm

ClaimVerdict = Literal[
    "holds here",
    "does not hold here",
    "not shown",
    "not judged",
    "does not apply here",
    "not measured",
]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim. ``evidence`` are sentences; ``measured`` what the verdict follows from.

    ``reason`` says why there is no other verdict, or is empty.
    """

    strategy: str
    is_advantage: bool
    text: str
    evidence: Sequence[str]
    measured: Measurement | None
    verdict: ClaimVerdict
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of both strategies; None where it was not.

    Differences are of the metric (positive: the first is better), on ``images``; a gap is training
    minus validation accuracy, a harm is in nats (``training_harm``); ratios are of the two
    choices, fine-tuning over feature extraction. ``similarity`` is of the features before and
    after fine-tuning, of the pretrained ones and those of random weights (linear CKA, 1: the
    same).
    """

    images: str
    num_train: int
    tuned_over_extracted: Measurement | None = None
    tuned_over_probe: Measurement | None = None
    pretrained_over_random: Measurement | None = None
    seconds_ratio: Measurement | None = None
    seconds_to_best_ratio: Measurement | None = None
    memory_ratio: Measurement | None = None
    parameters: tuple[int, int] | None = None
    tuned_gap: Interval | None = None
    extracted_gap: Interval | None = None
    tuned_harm: Measurement | None = None
    extracted_harm: Measurement | None = None
    similarity: float | None = None
    random_similarity: float | None = None


def claims(found: Measured) -> list[Claim]:
    """The eight claims, with their verdicts."""
    tuned, extracted = "fine_tuning", "feature_extraction"
    costs = [
        *_ratio("seconds of training, fine-tuning over feature extraction", found.seconds_ratio),
        *_ratio("seconds to the best epoch", found.seconds_to_best_ratio),
        *_ratio("peak memory", found.memory_ratio),
    ]
    if found.seconds_ratio is not None and found.memory_ratio is None:
        costs.append("peak memory unknown")
    parameters = [] if found.parameters is None else [_parameters(*found.parameters)]
    over_extracted = _points(
        f"fine-tuning over feature extraction ({found.images})", found.tuned_over_extracted
    )
    less_harm = difference_of(found.tuned_harm, found.extracted_harm)
    return [
        _claim(
            tuned,
            True,
            "learns task-specific features",
            [
                *_points(
                    f"fine-tuning over logistic regression on frozen features ({found.images})",
                    found.tuned_over_probe,
                ),
                *_similarity(found),
            ],
            found.tuned_over_probe,
        ),
        # Better than the majority class is anything that learns at all. Both strategies on fewer
        # of the training images would measure it, and nobody trains them here.
        _claim(
            tuned,
            True,
            "works with small data",
            [f"{found.num_train:,} training images; neither strategy was trained on fewer"],
            None,
        ),
        _claim(tuned, False, "is costly to train", costs, found.seconds_ratio, at=1.0),
        _claim(
            tuned,
            False,
            "overfits small data",
            [*_harm("", found.tuned_harm), *_gap(found.tuned_gap)],
            found.tuned_harm,
        ),
        _claim(
            extracted, True, "is efficient", [*costs, *parameters], found.seconds_ratio, at=1.0
        ),
        _claim(
            extracted,
            True,
            "overfits less",
            [
                *_harm("", found.extracted_harm),
                *_harm("that of fine-tuning minus that: ", less_harm),
                *_gap(found.extracted_gap),
            ],
            less_harm,
        ),
        _claim(
            extracted,
            False,
            "can't learn task-specific features, and loses by it",
            over_extracted,
            found.tuned_over_extracted,
        ),
        _where_features_do_not_suit(found, over_extracted),
    ]


def _claim(
    strategy: str,
    is_advantage: bool,
    text: str,
    evidence: Sequence[str],
    measured: Measurement | None,
    at: float = 0.0,
) -> Claim:
    verdict = judge(measured, at=at)
    return Claim(
        strategy=strategy,
        is_advantage=is_advantage,
        text=text,
        evidence=evidence,
        measured=measured,
        verdict=verdict,
        reason=why_not_judged(measured)
        if measured is not None and verdict == "not judged"
        else "",
    )


def _where_features_do_not_suit(found: Measured, over_extracted: Sequence[str]) -> Claim:
    """A claim with a condition: where pretrained features suit, nothing can be said of it."""
    suit = found.pretrained_over_random
    evidence = _points(
        "logistic regression on pretrained features over that on features of random weights "
        f"({found.images})",
        suit,
    )
    claim = _claim(
        "feature_extraction",
        False,
        "is worse where pretrained features don't suit",
        [*evidence, *over_extracted],
        None if suit is None else found.tuned_over_extracted,
    )
    if suit is None or judge(suit) != "holds here":
        return claim
    return Claim(
        strategy=claim.strategy,
        is_advantage=claim.is_advantage,
        text=claim.text,
        evidence=evidence,
        measured=None,
        verdict="does not apply here",
        reason=f"pretrained features suit ({100 * suit.value:+.1f} points)",
    )


def judge(found: Measurement | None, *, at: float = 0.0) -> ClaimVerdict:
    """What an interval says of a claim: nothing unless it lies on one side of ``at``.

    On images that chose what they measure it must lie beyond what that choice may have added.
    """
    if found is None:
        return "not measured"
    first, second = found.optimism or (0.0, 0.0)
    if found.low > at + first:
        return "holds here"
    if found.high < at - second:
        return "does not hold here"
    return "not shown" if found.optimism is None else "not judged"


def why_not_judged(measurement: Measurement | None) -> str:
    """Why images don't judge what was measured on them."""
    if measurement is not None and measurement.result_was_known:
        return "these images may have chosen it, as a result on them was known"
    return "these images chose it"


def holm_adjusted(found: Sequence[Claim]) -> list[float | None]:
    """p of every claim, adjusted for the number of measurements that were judged; else None.

    What several claims rest on is one test. On images that chose what they measure p means
    nothing.
    """
    judged = {
        claim.measured: claim.measured.p
        for claim in found
        if claim.measured is not None
        and claim.measured.p is not None
        and claim.measured.optimism is None
    }
    adjusted = dict(zip(judged, holm([p for p in judged.values() if p is not None]), strict=True))
    return [None if claim.measured is None else adjusted.get(claim.measured) for claim in found]


def points_text(found: Interval) -> str:
    """A difference of a metric in [0, 1] as points."""
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _points(what: str, found: Interval | None) -> list[str]:
    return [] if found is None else [f"{what}: {points_text(found)}"]


def _harm(what: str, found: Interval | None) -> list[str]:
    if found is None:
        return []
    what = what or (
        "on validation images, loss of the last epoch minus that of an epoch chosen on other "
        "images: "
    )
    return [f"{what}{found.value:+.3f} nats [{found.low:+.3f}, {found.high:+.3f}]"]


def _gap(found: Interval | None) -> list[str]:
    what = "training minus validation accuracy of the kept network"
    return [f"{what}: not measured"] if found is None else _points(what, found)


def _ratio(what: str, found: Interval | None) -> list[str]:
    if found is None:
        return []
    return [f"{what}: {found.value:.3g} times [{found.low:.3g}, {found.high:.3g}]"]


def _parameters(tuned: int, extracted: int) -> str:
    return f"trainable parameters: {tuned:,} against {extracted:,}"


def _similarity(found: Measured) -> list[str]:
    if found.similarity is None:
        return []
    text = f"similarity of the features before and after (linear CKA): {found.similarity:.2f}"
    if found.random_similarity is None:
        return [text]
    return [
        f"{text}; of pretrained ones and those of random weights: {found.random_similarity:.2f}"
    ]
