"""What each hyperparameter did within one strategy: slices, importance, unfrozen layers."""

from studies.records import TrialRecord, best_trials
from studies.report.blocks import Block, Drawing, Paragraph
from studies.report.evidence import Evidence
from studies.report.figures import importance, slices, unfrozen_layers
from studies.report.importance import FEWEST_TRIALS, importances
from studies.report.numbers import (
    NAMES,
)

LOG = ("learning_rate", "weight_decay")


def what_each_did(evidence: Evidence, strategy: str) -> list[Block]:
    """The figures, or why there is none."""
    trials = [t for t in best_trials(evidence.trials, evidence.metric) if t.strategy == strategy]
    metric = evidence.metric
    blocks: list[Block] = []
    values = {
        name: [
            (trial.params[name], float(trial.value or 0.0))
            for trial in trials
            if name in trial.params
        ]
        for name in trials[0].params
        if name != "strategy" and len({trial.params.get(name) for trial in trials}) > 1
    }
    if values:
        blocks.append(
            Drawing(
                name=f"slices_{strategy}",
                figure=slices(values, metric=f"validation {metric}", strategy=strategy, log=LOG),
                caption=f"What each hyperparameter did in {NAMES[strategy]}: {len(trials)} "
                "complete trials, one seed each.",
                description=f"Validation {metric} against {', '.join(values)}.",
            )
        )
    blocks += _importance(evidence, strategy, trials)
    if strategy == "fine_tuning":
        blocks += _unfrozen(evidence, trials)
    return blocks


def _importance(evidence: Evidence, strategy: str, trials: list[TrialRecord]) -> list[Block]:
    numbers = {trial.number for trial in trials}
    found = importances(
        [trial for trial in evidence.stored if trial.number in numbers],
        lower_is_better=evidence.metric == "loss",
    )
    if not found:
        text = (
            f"Importance of hyperparameters: not shown with {len(trials)} complete trials of "
            f"{NAMES[strategy]} ({FEWEST_TRIALS} or more that differ are needed)."
        )
        return [Paragraph(content=text, kind="note")]
    told = ", ".join(f"{name} {interval.value:.2f}" for name, interval in found.items())
    return [
        Drawing(
            name=f"importance_{strategy}",
            figure=importance(found, strategy=strategy),
            caption=f"Importance within {NAMES[strategy]} (PED-ANOVA, shares of 1, 95 % over "
            f"resampled trials): {told}.",
            description=told,
        )
    ]


def _unfrozen(evidence: Evidence, trials: list[TrialRecord]) -> list[Block]:
    points = [
        (str(t.params["backbone"]), int(t.params["num_unfrozen_layers"]), float(t.value or 0.0))
        for t in trials
    ]
    points += [
        (str(t.params["backbone"]), 0, float(t.value or 0.0))
        for t in best_trials(evidence.trials, evidence.metric)
        if t.strategy == "feature_extraction"
    ]
    return [
        Drawing(
            name="unfrozen_layers",
            figure=unfrozen_layers(points, metric=f"validation {evidence.metric}"),
            caption=f"Unfrozen layers against validation {evidence.metric}; 0 is feature "
            "extraction. One seed each.",
            description=f"{len(points)} complete trials.",
        )
    ]
