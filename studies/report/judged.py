"""On which images claims and gains are judged: on the test images, once they were opened.

Before that there are only images that have chosen epochs and configurations, and what is measured
on them looks too good by what the forecast takes off. Opens no image, reads stored predictions.

Legend: S seeds, N images, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.database.trials import TrialRecord
from studies.report.predictions_shown import stored_predictions
from studies.results.choice import Candidate
from studies.results.study import Evidence
from studies.statistics.calibration import Floats, Labels, uncalibrated
from studies.statistics.measurements import Measurement, measurement, with_known_result
from studies.statistics.metrics import METRICS
from studies.statistics.paired import difference_over_seeds

# Labels (N,), probabilities (S, N, C), and whose picture each is, None where nobody knows.
Predictions = tuple[Labels, Floats, Labels | None]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Predictions of a study's choices and controls. ``test`` has those for test images.

    It is None before these were opened, and where what was said of them is gone.
    """

    evidence: Evidence
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


def judged_on(evidence: Evidence) -> Judged:
    """Test images if they were opened and their predictions are there, else validation images."""
    opening = evidence.evaluation
    test = None if opening is None else stored_predictions(evidence, opening)
    return Judged(evidence=evidence, test=test)
