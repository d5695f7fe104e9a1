"""What each hyperparameter did within one strategy: slices, importance, unfrozen layers."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from studies.database.trials import TrialRecord, best_trials
from studies.document.blocks import Block, Drawing, Paragraph, Table, Words
from studies.document.numbers import number_cell
from studies.report.figures import importance, slices, unfrozen_layers
from studies.report.importance import (
    FEWEST_FOR_IMPORTANCE,
    FEWEST_TRIALS,
    associations,
    importances,
)
from studies.results.study import Evidence
from transfer.config import TITLES

LOG = ("learning_rate", "weight_decay")
NO_SAMPLE = (
    "The trials are no random sample: the sampler takes more of what did well, so that p values "
    "are rough, and hyperparameters that were moved together can't be told apart."
)


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
                caption=f"What each hyperparameter did in {TITLES[strategy]}: {len(trials)} "
                "complete trials, one seed each.",
                description=f"Validation {metric} against {', '.join(values)}.",
            )
        )
    numbers = {trial.number for trial in trials}
    stored = [trial for trial in evidence.stored if trial.number in numbers]
    blocks += _associations(evidence, strategy, stored)
    blocks += _importance(evidence, strategy, stored)
    if strategy == "fine_tuning":
        blocks += _unfrozen(evidence, trials)
    return blocks


def _associations(evidence: Evidence, strategy: str, stored: Sequence[FrozenTrial]) -> list[Block]:
    found = associations(stored)
    if not found:
        text = (
            f"Whether a hyperparameter goes with the metric: not tested with {len(stored)} "
            f"complete trials of {TITLES[strategy]} ({FEWEST_TRIALS} that differ are needed)."
        )
        return [Paragraph(content=text, kind="note")]
    rows: list[list[Words]] = [
        [
            name,
            "Kruskal-Wallis" if each.correlation is None else "Spearman",
            number_cell(each.correlation, "{:+.2f}"),
            number_cell(each.p, "{:.2g}"),
            number_cell(each.p_holm, "{:.2g}"),
            "shown" if each.is_shown else "not shown",
        ]
        for name, each in found.items()
    ]
    return [
        Table(
            name=f"associations_{strategy}",
            caption=f"Which hyperparameters go with validation {evidence.metric} in "
            f"{TITLES[strategy]}, each alone, {len(stored)} complete trials",
            columns=["hyperparameter", "test", "correlation", "p", "p by Holm", ""],
            rows=rows,
        ),
        Paragraph(content=NO_SAMPLE, kind="note"),
    ]


def _importance(evidence: Evidence, strategy: str, stored: Sequence[FrozenTrial]) -> list[Block]:
    found = importances(stored, lower_is_better=evidence.metric == "loss")
    if not found:
        text = (
            f"Importance of hyperparameters: not shown with {len(stored)} complete trials of "
            f"{TITLES[strategy]} ({FEWEST_FOR_IMPORTANCE} or more that differ are needed)."
        )
        return [Paragraph(content=text, kind="note")]
    told = ", ".join(
        f"{name} {each.value:.3f} ({'shown' if each.is_shown else 'not shown'}, by chance up to "
        f"{each.by_chance:.3f})"
        for name, each in found.items()
    )
    return [
        Drawing(
            name=f"importance_{strategy}",
            figure=importance(found, strategy=strategy),
            caption=f"Importance within {TITLES[strategy]} (PED-ANOVA, the best tenth against "
            "all). The line is what permuted values of the metric reach in one of 20 cases, all "
            f"hyperparameters together; below it nothing is shown: {told}.",
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
