"""The notes of a study, its repeats and its controls: what they are, and what came out.

Knows evidence and words, no storage. Never imports torch.
"""

import shlex
from collections.abc import Sequence

from search_spaces import SearchSpace
from studies.database.ledger import seal_sentence
from studies.database.storage import storage_option
from studies.database.trials import count_states
from studies.document.blocks import Block, Code, Listing, Paragraph, Report, Section, Table, Words
from studies.document.markdown import to_markdown
from studies.document.numbers import configuration_text, metric_text, seconds_text
from studies.report.head import QUESTION, data_blocks, verdict
from studies.results.choice import Candidate
from studies.results.comparison import compare, seconds_saved
from studies.results.controls import alarms, call_notes, control_rows, read_learned
from studies.results.study import Evidence
from studies.settings import MIN_PEERS, WARMUP_EPOCHS
from studies.spaces import parameter_rows, size_words
from transfer.config import TITLES
from transfer.data.decoding import RESIZED

METRICS = {
    "accuracy": "share of validation images whose class is predicted, at the best epoch",
    "balanced_accuracy": "mean over classes of the share of validation images that are predicted, "
    "at the best epoch",
    "auroc": "area under the ROC curve on validation images, one class against the rest, at the "
    "best epoch",
    "f1": "mean over classes of F1 on validation images, at the best epoch",
    "loss": "cross-entropy on validation images, nats an image, at the best epoch; less is better",
}
ON_THE_PAGES = (
    "History, importance, timeline, intermediate values: Optuna's. Importance is over all trials "
    "here; the report has it within each strategy.",
    "Metric against seconds, unfrozen layers against metric, budget spent and saved by pruning: "
    "drawn by this program, renewed while the study runs.",
    "Trials (list): a note on every trial, history.csv with all metrics of every epoch, "
    "predictions.npz with the validation logits of every epoch; learning curve and confusion "
    "matrix of trials that were the best of their strategy when they ended.",
    "Trials (selection): parallel coordinates, and the table with a column for every parameter "
    "and attribute: seconds, num_trainable_parameters, train_val_gap (training minus validation "
    "accuracy of the kept network, of complete trials), peak_memory_mb, reason (why a trial was "
    "pruned or failed).",
)
CANDIDATES_ARE = (
    "What is the best of many trials on one seed is partly luck. Here the best configurations of "
    "each strategy are trained again with seeds that were declared before, the same for all; "
    "within each strategy the choice is made by the mean. These trials never feed the sampler, "
    "the pruner, the totals or the importance of the search."
)
CONTROLS_ARE = (
    "What the search must beat to mean anything: the most frequent class; nearest neighbours and "
    "logistic regression on frozen features, {weights}; default recipes without a search. These "
    "trials never feed the search."
)


def search_note(evidence: Evidence) -> str:
    """The note of ``NAME``: question, what is known, data, space, where things are, commands."""
    name = evidence.name
    return to_markdown(
        Report(
            title=f"{name}: fine-tuning or fixed feature extractor?",
            facts=[*_state(evidence), _metric(evidence)],
            sections=[
                Section(
                    id="verdict",
                    title="Question and verdict",
                    blocks=[Paragraph(content=QUESTION), *verdict(evidence), *_best(evidence)],
                ),
                Section(id="data", title="Data", blocks=_without_pictures(evidence)),
                Section(id="space", title="Search space", blocks=_space(evidence)),
                Section(
                    id="pages",
                    title="What is where",
                    blocks=[Listing(items=[*ON_THE_PAGES, *_sisters(evidence)])],
                ),
                Section(id="commands", title="Commands", blocks=[_commands(evidence)]),
            ],
        )
    )


def confirm_note(evidence: Evidence) -> str:
    """The note of ``NAME/confirm``: why these trainings, and what they gave so far."""
    confirmed, (done, wanted) = evidence.confirmed, evidence.confirming
    assert confirmed is not None
    how = "the best mean"
    if confirmed.how == "cheapest":
        how = "the cheapest within one standard error of the paired difference, by the mean"
    how = f"{how} of {evidence.chooser}"
    facts = [
        ("trainings", f"{done} of {wanted} finished"),
        ("seeds", ", ".join(map(str, confirmed.seeds))),
        ("chosen by", how),
        _metric(evidence),
    ]
    if confirmed.resplit:
        facts.append(("validation images", "drawn anew for every seed"))
    blocks: list[Block] = [Paragraph(content=CANDIDATES_ARE)]
    if confirmed.candidates:
        blocks.append(_candidates(evidence, confirmed.candidates))
    result = verdict(evidence) if evidence.is_confirmed else []
    return to_markdown(
        Report(
            title=f"{evidence.name}/confirm: the best of each strategy over seeds",
            facts=facts,
            sections=[
                Section(id="what", title="What this is", blocks=blocks),
                *([Section(id="verdict", title="Verdict", blocks=result)] if result else []),
                Section(
                    id="reading",
                    title="How to read it",
                    blocks=[
                        Paragraph(
                            content="The parameter candidate is the trial of the search whose "
                            "configuration is trained. Importance says nothing "
                            "here: nothing was searched."
                        )
                    ],
                ),
                Section(
                    id="commands",
                    title="Commands",
                    blocks=[
                        Code(
                            lines=[
                                f"python -m studies confirm {_name(evidence)} --seeds 5",
                                f"python -m studies export {_name(evidence)}",
                            ]
                        )
                    ],
                ),
            ],
        )
    )


def controls_note(evidence: Evidence) -> str:
    """The note of ``NAME/controls``: what each is, and how it did."""
    metric = evidence.metric
    rows: list[list[Words]] = [
        [
            str(row["control"]),
            str(row["backbone"] or ""),
            str(row["weights"] or ""),
            metric_text(metric, row["val"][metric]),
        ]
        for row in control_rows(evidence.controls)
    ]
    weights = evidence.study.settings["weights"]
    kinds = "random" if weights == "random" else "pretrained and random"
    blocks: list[Block] = [Paragraph(content=CONTROLS_ARE.format(weights=kinds))]
    if rows:
        columns = ["control", "backbone", "weights", f"validation {metric}"]
        blocks.append(Table(name="controls", caption="", columns=columns, rows=rows))
    if evidence.confirmed is not None and evidence.is_confirmed:
        learned = read_learned(evidence.storage, evidence.confirmed, evidence.counts)
        blocks += [Paragraph(content=line, kind="warning") for line in alarms(learned, TITLES)]
        blocks += [Paragraph(content=line, kind="note") for line in call_notes(learned, TITLES)]
    return to_markdown(
        Report(
            title=f"{evidence.name}/controls: what must be beaten",
            facts=[_metric(evidence)],
            sections=[Section(id="what", title="What this is", blocks=blocks)],
        )
    )


def _state(evidence: Evidence) -> list[tuple[str, str]]:
    counts = count_states(evidence.trials)
    done = counts["complete"] + counts["pruned"] + counts["fail"]
    parts = [f"{counts['complete']} complete", f"{counts['pruned']} pruned"]
    parts += [f"{counts[state]} {word}" for state, word in STATES.items() if counts[state]]
    saved = seconds_saved(evidence.trials, int(evidence.study.settings["epochs"]))
    facts = [("trials", f"{done} of {evidence.study.trials}: {', '.join(parts)}")]
    spent = sum(trial.seconds or 0.0 for trial in evidence.trials if trial.counts)
    facts.append(
        ("time", f"{seconds_text(spent)} in trials; pruning saved at most {seconds_text(saved)}")
    )
    return [*facts, ("the test images", _seal(evidence))]


def _seal(evidence: Evidence) -> str:
    return seal_sentence(evidence.openings).removeprefix("The test images ").rstrip(".")


STATES = {"fail": "failed", "running": "running"}


def _metric(evidence: Evidence) -> tuple[str, str]:
    words = METRICS.get(evidence.metric, "on validation images, at the best epoch")
    return "value of a trial", f"{evidence.metric.replace('_', ' ')}: {words}"


def _best(evidence: Evidence) -> list[Block]:
    """The best trial of each strategy, and what that is worth."""
    found = compare(evidence.trials, evidence.metric, evidence.study.num_independent("val"))
    items: list[Words] = []
    for strategy, summary in found.items():
        value = metric_text(evidence.metric, summary.value)
        items.append(
            f"best of {summary.num_trials} by {TITLES[strategy]}: trial {summary.best.number}, "
            f"{value}; {configuration_text(summary.best.params)}"
        )
    if not items:
        return []
    warning = "The best of many on one seed, on the images that chose them: too good, both."
    return [Listing(items=items), Paragraph(content=warning)]


def _without_pictures(evidence: Evidence) -> list[Block]:
    kinds = (Paragraph, Listing, Table)
    return [block for block in data_blocks(evidence) if isinstance(block, kinds)]


def _space(evidence: Evidence) -> list[Block]:
    settings = evidence.study.settings
    space = SearchSpace.model_validate(evidence.study.identity["space"])
    sampler = "TPE" if settings["sampler"] == "tpe" else "random draws"
    if "share" in settings:  # Before, one sampler had both strategies.
        sampler += f", each strategy on its own with an equal share of the {settings['share']}"
    pruned = (
        f"after {WARMUP_EPOCHS} epochs a trial is pruned that is worse than the median of the "
        f"trials of its own strategy, once {MIN_PEERS} of them have got as far"
        if settings["pruner"] == "median"
        else "no trial is pruned"
    )
    blocks: list[Block] = [
        Paragraph(
            content=f"{space.name}: {size_words(space)} Sampled by {sampler}, seed "
            f"{settings['seed']}; at most {settings['epochs']} epochs, patience "
            f"{settings['patience']}; {pruned}. Images of {settings['image_size']} px, "
            f"{RESIZED[settings['resize']]}."
        ),
        Table(
            name="space",
            caption="",
            columns=["parameter", "strategy", "values"],
            rows=[list(row) for row in parameter_rows(space)],
        ),
    ]
    opening = evidence.study.opening
    if opening:
        blocks.append(Paragraph(content="Run beside what is sampled, probes first:"))
        blocks.append(Listing(items=[configuration_text(given) for given in opening]))
    return blocks


def _sisters(evidence: Evidence) -> list[str]:
    if evidence.confirmed is None:
        return [
            f"Two more studies come with confirming: {evidence.name}/confirm, the best of each "
            f"strategy trained again over seeds, and {evidence.name}/controls."
        ]
    return [
        f"{evidence.name}/confirm: the best of each strategy trained again over seeds, with "
        "pictures of each training.",
        f"{evidence.name}/controls: what these must beat.",
    ]


def _candidates(evidence: Evidence, found: Sequence[Candidate]) -> Table:
    metric = evidence.metric
    chosen: set[int] = set()
    if evidence.confirmed is not None and evidence.is_confirmed:  # Before that one only leads.
        chosen = {candidate.number for candidate in evidence.confirmed.chosen.values()}
    rows: list[list[Words]] = []
    for candidate in found:
        error = candidate.standard_error
        rows.append(
            [
                f"{candidate.number}{' (chosen)' if candidate.number in chosen else ''}",
                TITLES[candidate.strategy],
                str(candidate.configuration["backbone"]),
                metric_text(metric, candidate.mean),
                "?" if error == float("inf") else metric_text(metric, error),
                ", ".join(metric_text(metric, value) for value in candidate.values),
            ]
        )
    columns = ["trial of the search", "strategy", "backbone", "mean", "standard error", "seeds"]
    return Table(name="candidates", caption="", columns=columns, rows=rows)


def _name(evidence: Evidence) -> str:
    return f"{shlex.quote(evidence.name)}{storage_option(evidence.storage)}"


def _commands(evidence: Evidence) -> Code:
    name = _name(evidence)
    return Code(
        lines=[
            f"python -m studies run --name {name}  # goes on; --trials N for more",
            f"python -m studies status {name}",
            f"python -m studies confirm {name}",
            f"python -m studies report {name}",
            f"python -m studies export {name}  # then evaluate: the test images, once",
        ]
    )
