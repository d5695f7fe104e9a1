"""Tasks B and C: how good is each strategy, with which settings, and what changed it."""

from studies.database.trials import CANDIDATE, TrialRecord, best_trials
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
from studies.report.claims import judge, why_not_judged
from studies.report.figures import Curve, learning_curves
from studies.report.hyperparameters import what_each_did
from studies.report.judged import judged_on
from studies.report.sources import source_of_candidate, source_of_trial, trial_cell
from studies.results.choice import Candidate
from studies.results.study import Evidence
from studies.statistics.intervals import Interval, bootstrap_over_seeds
from studies.statistics.measurements import Measurement, as_gain
from studies.statistics.metrics import METRICS
from transfer.config import TITLES

HEADINGS = {
    "fine_tuning": "fine-tuning",
    "feature_extraction": "the ConvNet as fixed feature extractor",
}
TOP = 5


def task_of(evidence: Evidence, strategy: str) -> Section:
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


def _best(evidence: Evidence, strategy: str, best: TrialRecord) -> list[Words]:
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


def _over_seeds(evidence: Evidence, candidate: Candidate) -> Words:
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


def seeds_interval(evidence: Evidence, candidate: Candidate) -> Interval | None:
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


def _gain(evidence: Evidence, candidate: Candidate) -> list[Words]:
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


def _cost(evidence: Evidence, candidate: Candidate) -> Words:
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


def _top(evidence: Evidence, strategy: str) -> Table:
    ranked = [t for t in best_trials(evidence.trials, evidence.metric) if t.strategy == strategy]
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


def _of_trial(evidence: Evidence, trial: TrialRecord) -> list[Cell]:
    """Best epoch, gap in points, seconds."""
    source, gap = source_of_trial(trial, evidence.name), trial.train_val_gap
    return [
        number_cell(trial.best_epoch, source=source, quiet=True),
        number_cell(None if gap is None else 100 * gap, "{:+.1f}", source, quiet=True),
        number_cell(trial.seconds, "{:.1f}", source, quiet=True),
    ]


def _curves(evidence: Evidence, strategy: str, best: TrialRecord) -> list[Block]:
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
