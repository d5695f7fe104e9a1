"""Tasks B and C: how good each strategy is, with which settings, and what changed it.

What each hyperparameter did is shown within one strategy: slices, importance, unfrozen layers.
"""

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from studies.document.blocks import Block, Cell, Drawing, Listing, Paragraph, Section, Table, Words
from studies.document.numbers import (
    TASKS,
    bytes_text,
    configuration_text,
    difference_text,
    interval_cell,
    interval_text,
    metric_text,
    number_cell,
    seconds_text,
)
from studies.report.appendix import source_of_candidate, source_of_trial, trial_cell
from studies.report.claims import judge, why_not_judged
from studies.report.figures import Curve, importance, learning_curves, slices, unfrozen_layers
from studies.report.judged import judged_on
from studies.results import CANDIDATE, TrialRecord, best_trials
from studies.results.choice import Candidate
from studies.results.study import StoredStudy
from studies.statistics.importance import (
    FEWEST_FOR_IMPORTANCE,
    FEWEST_TRIALS,
    associations,
    importances,
)
from studies.statistics.intervals import Interval, bootstrap_over_seeds
from studies.statistics.metrics import METRICS
from studies.statistics.paired import Measurement, as_gain
from transfer.config import TITLES

LOG = ("learning_rate", "weight_decay")
NO_SAMPLE = (
    "The trials are no random sample: the sampler takes more of what did well, so that p values "
    "are rough, and hyperparameters that were moved together can't be told apart."
)


def what_each_did(evidence: StoredStudy, strategy: str) -> list[Block]:
    """The figures, or why there is none."""
    trials = evidence.ranked(strategy)
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


def _associations(
    evidence: StoredStudy, strategy: str, stored: Sequence[FrozenTrial]
) -> list[Block]:
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


def _importance(
    evidence: StoredStudy, strategy: str, stored: Sequence[FrozenTrial]
) -> list[Block]:
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


def _unfrozen(evidence: StoredStudy, trials: list[TrialRecord]) -> list[Block]:
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


HEADINGS = {
    "fine_tuning": "fine-tuning",
    "feature_extraction": "the ConvNet as fixed feature extractor",
}
TOP = 5


def task_of(evidence: StoredStudy, strategy: str) -> Section:
    """One strategy: best configuration, learning curves, what each hyperparameter did."""
    blocks: list[Block] = []
    best = evidence.best(strategy)
    if best is None:
        trials = len(evidence.of_strategy(strategy))
        blocks.append(
            Paragraph(
                content=f"No complete trial of {TITLES[strategy]} ({trials} finished): nothing to "
                "report.",
                kind="warning",
            )
        )
    else:
        blocks += [
            Listing(items=_best(evidence, strategy, best)),
            _top(evidence, strategy),
            *_curves(evidence, strategy, best),
            *what_each_did(evidence, strategy),
        ]
    task = TASKS[strategy]
    return Section(
        id=task.lower().replace(" ", "-"), title=f"{task}: {HEADINGS[strategy]}", blocks=blocks
    )


def _best(evidence: StoredStudy, strategy: str, best: TrialRecord) -> list[Words]:
    candidate, metric = evidence.candidate(strategy), evidence.metric
    trials = {trial.number: trial for trial in evidence.trials}
    of_search = best if candidate is None else trials[candidate.number]
    assert best.value is not None
    items: list[Words] = [
        [
            "Best configuration (trial ",
            trial_cell(of_search),
            f"): {configuration_text(of_search.params)}",
        ],
        [
            f"Validation {metric} of the best of {len(evidence.of_strategy(strategy))} trials: ",
            Cell(
                text=metric_text(metric, best.value),
                source=source_of_trial(best, evidence.name),
                href=f"#trial-{best.number}",
            ),
            f", the best of many by {evidence.chooser} on one seed: too good",
        ],
    ]
    if candidate is not None:
        items.append(_over_seeds(evidence, candidate))
        items += _gain(evidence, candidate)
        items.append(_cost(evidence, candidate))
    return items


def _over_seeds(evidence: StoredStudy, candidate: Candidate) -> Words:
    interval = seeds_interval(evidence, candidate)
    mean = metric_text(evidence.metric, candidate.mean)
    text = mean if interval is None else interval_text(evidence.metric, interval)
    return [
        f"Over {len(candidate.runs)} other seeds: ",
        Cell(
            text=text,
            source=source_of_candidate(candidate, evidence.name),
            href=f"#confirm-{candidate.runs[0].number}",
        ),
        " in the mean, for further seeds and images; still chosen on these images",
    ]


def seeds_interval(evidence: StoredStudy, candidate: Candidate) -> Interval | None:
    """The mean validation metric over seeds, None where each had images of its own."""
    found = evidence.over_seeds(candidate)
    if found is None:
        return None
    try:
        return bootstrap_over_seeds(
            METRICS[evidence.metric], *found, groups_N=evidence.groups(candidate.runs[0])
        )
    except ValueError:
        return None


def _gain(evidence: StoredStudy, candidate: Candidate) -> list[Words]:
    """What the search gained over the default recipe, if possible on images that chose nothing."""
    recipes = [
        run
        for run in evidence.controls
        if CANDIDATE in run.keyed_params and run.strategy == candidate.strategy
    ]
    judged = judged_on(evidence)
    gain = judged.difference(
        evidence.metric,
        judged.of_candidate(candidate),
        judged.of_controls(recipes),
        chosen=(candidate.strategy, None),
    )
    if gain is None:
        return []
    recipe = recipes[0]
    seeds = ", ".join(str(run.config["seed"]) for run in recipes)
    numbers = ", ".join(str(run.number) for run in recipes)
    default = Cell(
        text=configuration_text(recipe.params),
        source=f"trials {numbers} of study {evidence.name}/controls, seeds {seeds}",
        href=f"#control-{recipe.number}",
    )
    return [
        [
            "Gain over the default recipe (",
            default,
            f"), on {judged.images}: {difference_text(evidence.metric, gain)}: "
            f"{gain_words(gain, len(candidate.runs), len(recipes), evidence.metric)}",
        ]
    ]


def gain_words(gain: Measurement, num_searched: int, num_recipes: int, metric: str) -> str:
    """What may be said of a gain over the default recipe, given the seeds of both."""
    if min(num_searched, num_recipes) < 2:
        return "not judged: with one seed of either nobody knows how much seeds matter"
    return {
        "holds here": "the search helped",
        "does not hold here": "the search did harm",
        "not judged": f"not judged: {why_not_judged(gain)}",
    }.get(judge(as_gain(gain, METRICS[metric].larger_is_better)), "not shown to help")


def _cost(evidence: StoredStudy, candidate: Candidate) -> Words:
    runs = candidate.runs
    parameters = runs[0].num_trainable_parameters
    peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]
    seconds = Cell(
        text=seconds_text(candidate.mean_seconds),
        source=source_of_candidate(candidate, evidence.name),
        href=f"#confirm-{runs[0].number}",
    )
    text = " a training" + ("" if parameters is None else f", {parameters:,} trainable parameters")
    text += f", at most {bytes_text(max(peaks))} of memory" if peaks else ", memory unknown"
    return ["Cost: ", seconds, text]


def _top(evidence: StoredStudy, strategy: str) -> Table:
    ranked = evidence.ranked(strategy)
    rows: list[list[Words]] = [
        [
            trial_cell(trial),
            interval_cell(
                evidence.metric, evidence.interval(trial), source_of_trial(trial, evidence.name)
            ),
            configuration_text({k: v for k, v in trial.params.items() if k != "strategy"}),
            *_of_trial(evidence, trial),
        ]
        for trial in ranked[:TOP]
    ]
    return Table(
        name=f"best_{strategy}",
        caption=f"The best trials of {TITLES[strategy]} in the search",
        columns=[
            "trial",
            f"validation {evidence.metric}",
            "configuration",
            "best epoch",
            "train - val, points",
            "seconds",
        ],
        rows=rows,
    )


def _of_trial(evidence: StoredStudy, trial: TrialRecord) -> list[Cell]:
    """Best epoch, gap in points, seconds."""
    source, gap = source_of_trial(trial, evidence.name), trial.train_val_gap
    return [
        number_cell(trial.best_epoch, source=source, quiet=True),
        number_cell(None if gap is None else 100 * gap, "{:+.1f}", source, quiet=True),
        number_cell(trial.seconds, "{:.1f}", source, quiet=True),
    ]


def _curves(evidence: StoredStudy, strategy: str, best: TrialRecord) -> list[Block]:
    candidate = evidence.candidate(strategy)
    metric = evidence.metric

    def curve(run: TrialRecord) -> Curve:
        return Curve(
            train=[epoch["train"][metric] for epoch in run.history],
            val=[epoch["val"][metric] for epoch in run.history],
            best_epoch=run.best_epoch,
        )

    trials = [trial for trial in evidence.of_strategy(strategy) if trial.history]
    shown = best if candidate is None else next(t for t in trials if t.number == candidate.number)
    seeds = [] if candidate is None else [curve(run) for run in candidate.runs]
    figure = learning_curves(
        [curve(trial) for trial in trials], curve(shown), seeds, metric=metric, strategy=strategy
    )
    behind = f"; the band is that of {len(seeds)} other seeds" if seeds else ""
    return [
        Drawing(
            name=f"learning_curves_{strategy}",
            figure=figure,
            caption=f"Learning curves of {TITLES[strategy]}: {len(trials)} trials faint, trial "
            f"{shown.number} bold{behind}. Solid: validation, dashed: training, "
            "measured on the way, with dropout and on weights that still change. The marker is "
            f"the epoch that was kept, by {evidence.chooser}.",
            description=f"Of trial {shown.number} epoch {shown.best_epoch} of "
            f"{len(shown.history)} was kept, the best by {evidence.chooser}.",
        )
    ]
