"""The two strategies on the same test images: difference, verdict, and tests of two models.

Pure functions of labels and probabilities; knows nothing of studies.

Legend: S seeds, N images, C classes.
"""

from dataclasses import dataclass
from typing import Any

from studies.evaluation import num_resamples
from studies.paired_tests import delong, holm, mcnemar_exact
from studies.planning import ImagesNeeded, images_needed
from studies.scores import METRICS, Floats, Labels, auroc_scores
from studies.verdict import Difference, difference_over_seeds, verdict_sentence
from transfer.config import Strategy

DEFAULT_MARGIN = 0.02
# The difference is always that of the first from the second, whichever is better.
FIRST, SECOND = Strategy.FINE_TUNING, Strategy.FEATURE_EXTRACTION
NAMES = {FIRST: "Fine-tuning", SECOND: "feature extraction"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Fine-tuning against feature extraction in one metric on the same images.

    ``needed`` is None where no number of images and seeds within reach shows ``margin``.
    ``two_models`` has the tests of the first seed of each: p values, and adjusted by Holm.
    """

    metric: str
    difference: Difference
    margin: float
    needed: ImagesNeeded | None
    images: str
    two_models: dict[str, Any]
    num_seeds: tuple[int, int]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        found = self.difference
        said = verdict_sentence(
            found,
            self.metric,
            found.num_images,
            found.num_seeds,
            self.margin,
            self.needed,
            images=self.images,
        )
        link = "than" if found.verdict in ("better", "worse") else "from"
        rest = said.removeprefix(found.verdict)
        first, second = self.num_seeds
        if first != second:
            rest += f" ({first} of {NAMES[FIRST].lower()}, {second} of {NAMES[SECOND]})"
        return f"{NAMES[FIRST]} is {found.verdict} {link} {NAMES[SECOND]}{rest}."

    def as_json(self) -> dict[str, Any]:
        """``value``, ``low``, ``high``, ``p``, ``verdict`` and what they rest on."""
        found, needed = self.difference, self.needed
        return {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "verdict": found.verdict,
            "metric": self.metric,
            "of": str(FIRST),
            "against": str(SECOND),
            "sentence": self.sentence,
            "num_images": found.num_images,
            "num_seeds": found.num_seeds,
            "seeds_of_each": list(self.num_seeds),
            "seeds_known": found.seeds_known,
            "margin": self.margin,
            "needed": None
            if needed is None
            else {
                "images": needed.images,
                "seeds": needed.seeds,
                "images_with_seeds": needed.images_with_seeds,
            },
            "two_models": self.two_models,
        }


def compare_strategies(
    metric: str,
    labels_N: Labels,
    first_SNC: Floats,
    second_SNC: Floats,
    *,
    margin: float,
    images: str = "test image",
    pair: tuple[int, int] = (0, 0),
) -> Comparison | None:
    """Fine-tuning against feature extraction; None where the metric is not defined.

    Args:
        images: what they are called, in the singular.
        pair: places of the seeds whose models are compared as two models.
    """
    try:
        found = difference_over_seeds(
            METRICS[metric],
            labels_N,
            first_SNC,
            second_SNC,
            num_resamples=num_resamples(len(labels_N)),
        )
    except ValueError:
        return None
    return Comparison(
        metric=metric,
        difference=found,
        margin=margin,
        needed=_needed(found, margin),
        images=images,
        two_models=_two_models(labels_N, first_SNC[pair[0]], second_SNC[pair[1]]),
        num_seeds=(len(first_SNC), len(second_SNC)),
    )


def _needed(found: Difference, margin: float) -> ImagesNeeded | None:
    try:
        return images_needed(
            margin,
            image_variance=found.image_variance,
            own_variance=max(0.0, found.own_variance),
            seed_variance=found.seed_variance,
            num_seeds=found.num_seeds,
        )
    except ValueError:
        return None


def _two_models(labels_N: Labels, first_NC: Floats, second_NC: Floats) -> dict[str, Any]:
    """McNemar's test of accuracy, and of two classes DeLong's of AUROC."""
    called = (first_NC.argmax(axis=1), second_NC.argmax(axis=1))
    p_values = {"mcnemar": mcnemar_exact(labels_N, *called)}
    auroc_difference = None
    if first_NC.shape[1] == 2 and 0 < labels_N.sum() < len(labels_N):
        auroc_difference, p_values["delong"] = delong(
            labels_N, auroc_scores(first_NC), auroc_scores(second_NC)
        )
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {"p": p_values, "p_holm": adjusted, "auroc_difference": auroc_difference}
