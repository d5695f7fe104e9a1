"""On which images claims and gains are judged, and what a study has measured of the claims.

Once the test images were opened they judge. Before that there are only images that have chosen
epochs and configurations, and what is measured on them looks too good by what the forecast takes
off. Opens no image, reads stored trials and predictions.

Legend: S seeds, N images, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.report.claims import Measured
from studies.results import TrialRecord
from studies.results.choice import Candidate
from studies.results.controls import KEYS
from studies.results.study import StoredStudy
from studies.statistics.calibration import uncalibrated
from studies.statistics.intervals import Interval, bootstrap_over_seeds
from studies.statistics.metrics import METRICS, Floats, Labels
from studies.statistics.paired import (
    Measurement,
    difference_over_seeds,
    gap_interval,
    measurement,
    ratio_over_seeds,
    training_harm,
    with_known_result,
)

# Labels (N,), probabilities (S, N, C), and whose picture each is, None where nobody knows.
Predictions = tuple[Labels, Floats, Labels | None]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Predictions of a study's choices and controls. ``test`` has those for test images.

    It is None before these were opened, and where what was said of them is gone.
    """

    evidence: StoredStudy
    test: Mapping[str, Any] | None

    @property
    def images(self) -> str:
        """What they are called."""
        return "validation images" if self.test is None else "test images"

    def of_candidate(self, candidate: Candidate | None) -> Predictions | None:
        """Labels, probabilities and groups of a strategy's choice; None without any.

        Of test images those of the configuration that was evaluated, if it is still the choice.
        """
        if candidate is None:
            return None
        if self.test is None:
            return self.on_validation(candidate.runs)
        opening = self.evidence.evaluation
        assert opening is not None and opening.result is not None
        evaluated = opening.result["by_strategy"].get(candidate.strategy)
        logits_SNC = self.test.get(f"{candidate.strategy}_SNC")
        if evaluated is None or evaluated["trial"] != candidate.number or logits_SNC is None:
            return None
        return self.test["labels_N"], uncalibrated(logits_SNC), self.test.get("groups_N")

    def of_controls(self, runs: Sequence[TrialRecord]) -> Predictions | None:
        """The same of trials of controls, which are one classifier by one or several seeds."""
        if not runs:
            return None
        if self.test is None:
            return self.on_validation(runs)
        places = {int(number): i for i, number in enumerate(self.test["control_numbers"])}
        found = [places[run.number] for run in runs if run.number in places]
        if not found:
            return None
        of_found_SNC = uncalibrated(self.test["controls_KNC"][found])
        return self.test["labels_N"], of_found_SNC, self.test.get("groups_N")

    def on_validation(self, runs: Sequence[TrialRecord]) -> Predictions | None:
        """The same on the validation images that all of the runs share."""
        confirmed = self.evidence.confirmed
        if confirmed is not None and confirmed.resplit:
            return None
        found = [self.evidence.best_epoch(run) for run in runs]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        given_SNC = np.stack([probabilities_NC for _, probabilities_NC in known])
        return known[0][0], given_SNC, self.evidence.groups(runs[0])

    def difference(
        self,
        metric: str,
        first: Predictions | None,
        second: Predictions | None,
        *,
        chosen: tuple[str | None, str | None],
    ) -> Measurement | None:
        """The metric of the first minus that of the second, over seeds and images.

        Args:
            chosen: the strategies whose choices these are, None of a control, which no image
                chose; where images chose one of them, their forecast's optimism goes with it.
        """
        if first is None or second is None:
            return None
        try:
            found = difference_over_seeds(
                METRICS[metric], first[0], first[1], second[1], groups_N=first[2]
            )
        except ValueError:
            return None
        if not any(chosen):
            return measurement(found)
        if self.test is not None:
            on_test = measurement(found)
            return with_known_result(on_test) if self.evidence.test_was_seen else on_test
        ahead, behind = (self._optimism(metric, strategy) for strategy in chosen)
        return measurement(found, (ahead, behind))

    def _optimism(self, metric: str, strategy: str | None) -> float:
        """By how much a choice looks too good at most; without a forecast nobody knows."""
        if strategy is None:
            return 0.0
        forecast = self.evidence.forecasts.get(strategy)
        if forecast is None or metric != self.evidence.metric:
            return float("inf")
        return max(0.0, forecast.optimism)


def judged_on(evidence: StoredStudy) -> Judged:
    """Test images if they were opened and their predictions are there, else validation images."""
    opening = evidence.evaluation
    test = None if opening is None else evidence.test_predictions(opening)
    return Judged(evidence=evidence, test=test)


# Differences of a loss are in nats: what people claim is about being right.
ACCURACY = "accuracy"


def claimed_metric(evidence: StoredStudy) -> str:
    """In which differences are measured."""
    return ACCURACY if evidence.metric == "loss" else evidence.metric


def measured(evidence: StoredStudy) -> Measured:
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
    evidence: StoredStudy, candidate: Candidate | None, name: str, weights: str
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


def _harm(evidence: StoredStudy, candidate: Candidate | None) -> Measurement | None:
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
