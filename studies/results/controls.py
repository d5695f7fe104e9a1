"""Controls as rows of a table, and the alarm where a strategy has learned nothing.

Knows stored trials of ``NAME/controls`` and confirmed candidates. Never imports torch.

Legend: N validation images, S seeds, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from studies.database.artifacts import read_predictions
from studies.database.storage import StudyStorage
from studies.database.trials import CANDIDATE, TrialRecord
from studies.errors import UserError
from studies.results.choice import Confirmed
from studies.statistics.calibration import probabilities
from studies.statistics.clusters import images_words, num_subjects
from studies.statistics.intervals import Interval, bootstrap_over_seeds
from studies.statistics.metrics import METRICS, Floats, Labels
from studies.statistics.paired import chosen_elsewhere, difference_over_seeds

# The study beside the search that has them.
CONTROLS_STUDY = "controls"
NONE = "none"
# Of what is stored of a control; a recipe has the names of its configuration beside these.
KEYS = ("control", "features_of", "features_by")
RECIPE = "default_recipe"
# Of the images of all classes but the one called most often, so few are called right.
FEW = 0.25


class Predictions(NamedTuple):
    """What seeds said of the same images: labels and groups (N,), probabilities (S, N, C).

    Groups are None where nobody knows whose pictures they are.
    """

    labels_N: Labels
    probabilities_SNC: Floats
    groups_N: Labels | None = None


def control_rows(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The controls as rows: what, backbone, weights, validation metrics; recipes by their mean."""
    rows: list[dict[str, Any]] = []
    complete = [r for r in records if r.state == "COMPLETE" and r.best is not None]
    rows += [
        {**control_names(record), "val": _metrics([record])}
        for record in complete
        if KEYS[0] in record.keyed_params
    ]
    by_recipe: dict[int, list[TrialRecord]] = {}
    for record in complete:
        if CANDIDATE in record.keyed_params:
            by_recipe.setdefault(int(record.keyed_params[CANDIDATE]), []).append(record)
    rows += [{**control_names(runs[0]), "val": _metrics(runs)} for runs in by_recipe.values()]
    return rows


def control_names(record: TrialRecord) -> dict[str, str | None]:
    """What a control is: its name, the backbone, the weights; None where it has none."""
    params = record.keyed_params
    if KEYS[0] not in params:
        names = (f"{RECIPE} ({record.strategy})", params["backbone"], "as searched")
    else:
        names = tuple(params[key] for key in KEYS)
    pairs = zip(("control", "backbone", "weights"), names, strict=True)
    return {key: None if name == NONE else str(name) for key, name in pairs}


def _metrics(runs: Sequence[TrialRecord]) -> dict[str, float]:
    best = [run.best["val"] for run in runs if run.best is not None]
    return {name: float(np.mean([values[name] for values in best])) for name in best[0]}


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a choice shows on validation images of having learned anything, and how it calls them.

    Whether it has learned is judged at epochs that other images chose: the best of many epochs of
    a network that knows nothing looks as if it knew something on the images that chose it.

    ``gain`` is its loss less that of the majority class, for each set of validation images:
    one, or one a seed where each had its own. Both are None where they are not defined, and where
    there are too few subjects for an interval.
    ``most`` is the class that it calls most often, on ``share`` of the images; ``recall`` is of
    all the other classes' images together. All are means over seeds.
    """

    gains: tuple[Interval | None, ...]
    aurocs: tuple[Interval | None, ...]
    num_images: int
    most: str
    share: float
    recall: float
    num_subjects: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether it learned: its loss is the lower one, or AUROC lies above 0.5."""
        ranks = any(auroc is not None and auroc.low > 0.5 for auroc in self.aurocs)
        return ranks or any(gain is not None and gain.high < 0 for gain in self.gains)

    @property
    def is_known(self) -> bool:
        """Whether there are enough subjects to say anything of it."""
        return any(each is not None for each in (*self.gains, *self.aurocs))


def measure_learned(
    sets: Sequence[Predictions],
    classes: Sequence[str],
    shares_C: Floats,
    *,
    elsewhere: Sequence[Predictions | None] | None = None,
    num_resamples: int = 2000,
) -> Learned:
    """Compare a choice with the majority class, which says ``shares_C`` of every image.

    By the loss and by AUROC, not by accuracy: with one image in ten ill, a good and calibrated
    model may call all of them healthy. Several sets are judged with Bonferroni's correction.

    Args:
        sets: the predictions of the seeds that share validation images, at their best epochs.
        elsewhere: the same at epochs that other images chose, None where these are too few;
            ``sets`` if left out: no image has chosen their epochs.
    """
    confidence = 1 - 0.05 / len(sets)
    gains: list[Interval | None] = []
    aurocs: list[Interval | None] = []
    for given in sets if elsewhere is None else elsewhere:
        if given is None:
            gains.append(None)
            aurocs.append(None)
            continue
        labels_N, probabilities_SNC, groups_N = given
        majority_1NC = np.tile(shares_C, (1, len(labels_N), 1))
        try:
            gain = difference_over_seeds(
                METRICS["loss"],
                labels_N,
                probabilities_SNC,
                majority_1NC,
                num_resamples=num_resamples,
                confidence=confidence,
                groups_N=groups_N,
            )
        except ValueError:
            gain = None  # Too few subjects.
        gains.append(gain)
        aurocs.append(_auroc(given, num_resamples, confidence))
    called = [each.probabilities_SNC.argmax(axis=2) for each in sets]
    counts_C = np.bincount(np.concatenate([each.ravel() for each in called]), minlength=2)
    most = int(counts_C.argmax())
    right = [
        (called_SN == labels_N)[:, labels_N != most]
        for called_SN, (labels_N, _, _) in zip(called, sets, strict=True)
    ]
    others = np.concatenate([each.ravel() for each in right])
    return Learned(
        gains=tuple(gains),
        aurocs=tuple(aurocs),
        num_images=len(sets[0].labels_N),
        most=classes[most],
        share=float(counts_C[most] / counts_C.sum()),
        recall=float(others.mean()) if len(others) else 1.0,
        num_subjects=num_subjects(sets[0].groups_N),
    )


def _auroc(given: Predictions, num_resamples: int, confidence: float) -> Interval | None:
    try:
        return bootstrap_over_seeds(
            METRICS["auroc"],
            given.labels_N,
            given.probabilities_SNC,
            num_resamples=num_resamples,
            confidence=confidence,
            groups_N=given.groups_N,
        )
    except ValueError:
        return None


def read_learned(
    storage: StudyStorage, confirmed: Confirmed, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Learned]:
    """Of each strategy's choice; one whose predictions are gone is left out."""
    classes = list(counts["train"])
    counts_C = np.array([counts["train"][name] for name in classes], np.float64)
    found = {}
    for strategy, candidate in confirmed.chosen.items():
        try:
            pairs = [_read(storage, run) for run in candidate.runs]
        except UserError:
            continue
        sets, elsewhere = [best for best, _ in pairs], [apart for _, apart in pairs]
        if not confirmed.resplit:
            sets = [_together(sets)]
            known = [each for each in elsewhere if each is not None]
            elsewhere = [_together(known) if len(known) == len(elsewhere) else None]
        shares_C = counts_C / counts_C.sum()
        found[strategy] = measure_learned(sets, classes, shares_C, elsewhere=elsewhere)
    return found


def _read(storage: StudyStorage, run: TrialRecord) -> tuple[Predictions, Predictions | None]:
    """What a training says at its best epoch, and at the one that other images chose."""
    assert run.best_epoch is not None
    stored = read_predictions(storage, run)
    said_ENC = np.stack([probabilities(logits_NC, 1.0) for logits_NC in stored.logits_ENC])
    best = Predictions(stored.labels_N, said_ENC[run.best_epoch - 1][None], stored.groups_N)
    apart_NC = chosen_elsewhere(stored.labels_N, said_ENC, stored.groups_N)
    return best, None if apart_NC is None else best._replace(probabilities_SNC=apart_NC[None])


def _together(sets: Sequence[Predictions]) -> Predictions:
    """Seeds on the same images as one set."""
    together_SNC = np.concatenate([each.probabilities_SNC for each in sets])
    return sets[0]._replace(probabilities_SNC=together_SNC)


def alarms(learned: Mapping[str, Learned], strategies: Mapping[str, str]) -> list[str]:
    """A sentence for each strategy of which nothing shows that it has learned anything."""
    return [
        f"Alarm: nothing shows that {strategies[strategy]} has learned anything: on "
        f"{images_words(found.num_images, found.num_subjects, 'validation images')}, its loss is "
        "not shown to be lower than that of the majority class "
        f"({_intervals(found.gains, '+.3f')} nats), nor its AUROC to be above 0.5 "
        f"({_intervals(found.aurocs, '.3f')})."
        for strategy, found in learned.items()
        if found.is_known and not found.is_shown
    ]


def call_notes(learned: Mapping[str, Learned], strategies: Mapping[str, str]) -> list[str]:
    """A sentence for each strategy that calls nearly all images one class though it has learned.

    And for each of which nobody can say whether it has.
    """
    unknown = [
        f"The validation images are of too few subjects to tell whether {strategies[strategy]} "
        "has learned anything."
        for strategy, found in learned.items()
        if not found.is_known
    ]
    return unknown + [
        f"{strategies[strategy]} calls {found.share:.0%} of the validation images {found.most} by "
        f"the most probable class, and {found.recall:.0%} of the others right: use a threshold, "
        "such as the one in the bundle, or train with balanced classes."
        for strategy, found in learned.items()
        if found.is_shown and found.recall < FEW
    ]


def _intervals(intervals: Sequence[Interval | None], digits: str) -> str:
    """The first of them, and that there are more."""
    first = intervals[0]
    if first is None:
        return "not defined"
    text = f"{first.value:{digits}} [{first.low:{digits}}, {first.high:{digits}}]"
    return text if len(intervals) == 1 else f"{text} with the first of {len(intervals)} seeds"
