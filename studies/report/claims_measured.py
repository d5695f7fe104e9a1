"""Task D: what a study has measured of the claims. Knows stored trials and predictions."""

from collections.abc import Callable, Sequence

import numpy as np

from studies.database.trials import TrialRecord
from studies.report.claims import Measured
from studies.report.judged import Judged, judged_on
from studies.results.choice import Candidate
from studies.results.controls import KEYS
from studies.results.study import Evidence
from studies.statistics.intervals import Interval, bootstrap_over_seeds
from studies.statistics.measurements import (
    Measurement,
    gap_interval,
    ratio_over_seeds,
    training_harm,
    with_known_result,
)
from studies.statistics.metrics import METRICS

# Differences of a loss are in nats: what people claim is about being right.
ACCURACY = "accuracy"


def claimed_metric(evidence: Evidence) -> str:
    """In which differences are measured."""
    return ACCURACY if evidence.metric == "loss" else evidence.metric


def measured(evidence: Evidence) -> Measured:
    """What this study has measured of both strategies."""
    tuned, extracted = (evidence.candidate(n) for n in ("fine_tuning", "feature_extraction"))
    judged, metric = judged_on(evidence), claimed_metric(evidence)
    probe = _control(evidence, tuned, "logistic_regression", "imagenet")
    random = _control(evidence, tuned, "logistic_regression", "random")
    of_tuned, of_extracted = judged.of_candidate(tuned), judged.of_candidate(extracted)
    of_probe, of_random = (judged.of_controls([c] if c else []) for c in (probe, random))
    parameters = [c.runs[0].num_trainable_parameters or 0 for c in (tuned, extracted) if c]
    return Measured(
        images=judged.images,
        num_train=evidence.num_images("train"),
        tuned_over_extracted=_verdict_on_test(judged, metric)
        or judged.difference(
            metric, of_tuned, of_extracted, chosen=("fine_tuning", "feature_extraction")
        ),
        tuned_over_probe=judged.difference(
            metric, of_tuned, of_probe, chosen=("fine_tuning", None)
        ),
        pretrained_over_random=judged.difference(metric, of_probe, of_random, chosen=(None, None)),
        seconds_ratio=_ratio(tuned, extracted, _seconds),
        seconds_to_best_ratio=_ratio(tuned, extracted, _seconds_to_best),
        memory_ratio=_ratio(tuned, extracted, lambda run: run.peak_memory_bytes),
        parameters=(parameters[0], parameters[1]) if len(parameters) == 2 else None,
        tuned_gap=_gap(judged, tuned),
        extracted_gap=_gap(judged, extracted),
        tuned_harm=_harm(evidence, tuned),
        extracted_harm=_harm(evidence, extracted),
        similarity=_mean([run.similarity for run in tuned.runs]) if tuned else None,
        random_similarity=None if random is None else random.similarity,
    )


def _verdict_on_test(judged: Judged, metric: str) -> Measurement | None:
    """The difference that the verdict rests on, if test images judge."""
    opening = judged.evidence.evaluation
    if judged.test is None or opening is None or opening.result is None:
        return None
    stored = opening.result["difference"]
    if stored is None or stored["metric"] != metric:
        return None
    found = Measurement(**{key: stored[key] for key in ("value", "low", "high", "p")})
    return with_known_result(found) if judged.evidence.test_was_seen else found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _control(
    evidence: Evidence, candidate: Candidate | None, name: str, weights: str
) -> TrialRecord | None:
    """A control on the features of a candidate's backbone."""
    if candidate is None:
        return None
    wanted = (name, candidate.configuration["backbone"], weights)
    return next(
        (r for r in evidence.controls if tuple(map(r.keyed_params.get, KEYS)) == wanted), None
    )


def _seconds(run: TrialRecord) -> float:
    """Of training and validation; frozen layers are computed once for all trials."""
    return run.timing["training"] + run.timing["validation"]


def _seconds_to_best(run: TrialRecord) -> float:
    """The same up to the epoch that was kept."""
    epochs = run.history[: run.best_epoch]
    return float(sum(e["training_seconds"] + e["validation_seconds"] for e in epochs))


def _ratio(
    first: Candidate | None, second: Candidate | None, cost: Callable[[TrialRecord], float | None]
) -> Measurement | None:
    """What the first choice costs over the second, by those trainings of both that tell it."""
    if first is None or second is None:
        return None
    costs = [[cost(run) for run in candidate.runs] for candidate in (first, second)]
    known = [[value for value in values if value is not None] for values in costs]
    return ratio_over_seeds(known[0], known[1])


def _harm(evidence: Evidence, candidate: Candidate | None) -> Measurement | None:
    """Of every seed's training, from what each of its epochs said of the validation images."""
    if candidate is None or (evidence.confirmed is not None and evidence.confirmed.resplit):
        return None
    found = [evidence.epochs(run) for run in candidate.runs]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    groups_N = evidence.groups(candidate.runs[0])
    return training_harm(known[0][0], [given_ENC for _, given_ENC in known], groups_N=groups_N)


def _gap(judged: Judged, candidate: Candidate | None) -> Interval | None:
    """Training minus validation accuracy of the networks that were kept.

    The training metrics of an epoch don't tell it: they are measured on the way, with dropout,
    mixed images and weights that still change.
    """
    found = None if candidate is None else judged.on_validation(candidate.runs)
    if candidate is None or found is None:
        return None
    training = [_kept_training_accuracy(run) for run in candidate.runs]
    known = [value for value in training if value is not None]
    if len(known) < len(training):
        return None
    try:
        labels_N, given_SNC, groups_N = found
        validation = bootstrap_over_seeds(
            METRICS[ACCURACY], labels_N, given_SNC, groups_N=groups_N
        )
    except ValueError:
        return None
    return gap_interval(float(np.mean(known)), validation)


def _kept_training_accuracy(run: TrialRecord) -> float | None:
    """Of the kept network in eval mode, by one pass over the training images; None if unknown."""
    return None if run.train_metrics is None else float(run.train_metrics[ACCURACY])
