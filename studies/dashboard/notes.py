"""The notes of a study, its repeats and controls, and of a trial: what they are, what came out.

Knows evidence, words and stored trials, no storage. Never imports torch.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces import SearchSpace
from search_spaces.fields import is_default
from studies.database.ledger import seal_sentence
from studies.database.storage import storage_option
from studies.database.trials import CANDIDATE, INTERRUPTED, SEED, TrialRecord, count_states
from studies.document.blocks import Block, Code, Listing, Paragraph, Report, Section, Table, Words
from studies.document.markdown import escaped, to_markdown
from studies.document.numbers import (
    bytes_text,
    configuration_text,
    is_share,
    metric_text,
    seconds_text,
)
from studies.report.head import QUESTION, data_blocks, verdict
from studies.results.choice import Candidate
from studies.results.comparison import compare, seconds_saved
from studies.results.controls import KEYS, NONE, alarms, call_notes, control_rows, read_learned
from studies.results.study import StoredStudy
from studies.settings import MIN_PEERS, WARMUP_EPOCHS
from studies.spaces import parameter_rows, size_words
from studies.statistics.intervals import wilson_interval
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


def search_note(evidence: StoredStudy) -> str:
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


def confirm_note(evidence: StoredStudy) -> str:
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


def controls_note(evidence: StoredStudy) -> str:
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


def _state(evidence: StoredStudy) -> list[tuple[str, str]]:
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


def _seal(evidence: StoredStudy) -> str:
    return seal_sentence(evidence.openings).removeprefix("The test images ").rstrip(".")


STATES = {"fail": "failed", "running": "running"}


def _metric(evidence: StoredStudy) -> tuple[str, str]:
    words = METRICS.get(evidence.metric, "on validation images, at the best epoch")
    return "value of a trial", f"{evidence.metric.replace('_', ' ')}: {words}"


def _best(evidence: StoredStudy) -> list[Block]:
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


def _without_pictures(evidence: StoredStudy) -> list[Block]:
    kinds = (Paragraph, Listing, Table)
    return [block for block in data_blocks(evidence) if isinstance(block, kinds)]


def _space(evidence: StoredStudy) -> list[Block]:
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


def _sisters(evidence: StoredStudy) -> list[str]:
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


def _candidates(evidence: StoredStudy, found: Sequence[Candidate]) -> Table:
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


def _name(evidence: StoredStudy) -> str:
    return f"{shlex.quote(evidence.name)}{storage_option(evidence.storage)}"


def _commands(evidence: StoredStudy) -> Code:
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


# Said in a sentence of its own, or part of how a trial was made rather than of what it trains.
SAID_ELSEWHERE = ("backbone", "strategy", "num_unfrozen_layers", CANDIDATE, SEED, *KEYS)
CONTROL_WORDS: Mapping[str, str] = {
    "majority": "The most frequent class of the training images for every image",
    "knn": "Nearest neighbours",
    "logistic_regression": "Logistic regression",
}
OUT_OF_MEMORY = "out of memory"
SHORTEST_SECONDS = 0.05  # Less would be shown as none.


def trial_note(
    record: TrialRecord,
    *,
    metric: str,
    num_val: int,
    depths: Mapping[str, int],
    purpose: str = "",
    subjects: int | None = None,
) -> str:
    """The note in Markdown.

    Args:
        metric: by which the study chooses.
        num_val: validation images.
        depths: layers of each backbone.
        purpose: "confirm" or "controls", of trials beside the search.
        subjects: of how many the validation images are; None where nobody knows.
    """
    parts = [_trained(record, depths, purpose)]
    if record.duplicate_of is not None:
        parts.append(
            f"This configuration is that of trial {record.duplicate_of}: it was told its state "
            "and value, not trained again, and is not counted."
        )
        return "\n\n".join(parts)
    parts += [*_outcome(record), *_reached(record, metric, num_val, subjects), *_spent(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _trained(record: TrialRecord, depths: Mapping[str, int], purpose: str) -> str:
    params = record.params
    if KEYS[0] in params:
        return _control(params)
    if "strategy" not in params:
        return "It ended before it had a configuration."
    backbone, strategy = str(params.get("backbone")), str(params.get("strategy"))
    layers, depth = params.get("num_unfrozen_layers"), depths.get(backbone)
    if strategy == "feature_extraction":
        what = "all layers frozen, a linear head trained on their features"
    elif depth is not None and layers == depth:
        what = f"all {depth} layers and the head trained"
    else:
        last = "last layer" if layers == 1 else f"last {layers} layers"
        of = "" if depth is None else f" of {depth}"
        what = f"the {last}{of} and the head trained"
    if record.num_trainable_parameters is not None:
        what += f" ({record.num_trainable_parameters:,} parameters)"
    values = [
        f"{name.replace('_', ' ')} {_number(value)}"
        for name, value in params.items()
        if name not in SAID_ELSEWHERE and not is_default(name, value)
    ]
    seed = params.get(SEED, record.config.get("seed"))
    values += [] if seed is None else [f"seed {seed}"]
    title = f"**{TITLES.get(strategy, strategy).capitalize()}** of {escaped(backbone)}"
    return f"{title}: {what}; {escaped(', '.join(values))}.{_why(params, purpose)}"


def _why(params: Mapping[str, Any], purpose: str) -> str:
    if purpose == "confirm":
        return f" The configuration of trial {params[CANDIDATE]} of the search, with another seed."
    if purpose == "controls":
        return " The default recipe, without a search."
    return ""


def _control(params: Mapping[str, Any]) -> str:
    name, backbone, weights = (str(params[key]) for key in KEYS)
    words = CONTROL_WORDS.get(name, name)
    if backbone == NONE:
        return f"**Control.** {escaped(words)}."
    kind = "random" if weights == "random" else f"{weights} (pretrained)"
    return (
        f"**Control.** {escaped(words)} on frozen features of {escaped(backbone)}, weights "
        f"{escaped(kind)}."
    )


def _outcome(record: TrialRecord) -> list[str]:
    """What became of a trial that is not complete."""
    # What was stored before a loss could be meant as well.
    reason = (record.reason or "nobody knows why").replace("below the", "worse than the")
    reason = reason.rstrip(".")
    if record.state == "PRUNED":
        epochs = len(record.history)
        return [
            f"**Pruned** after epoch {epochs}: {escaped(reason)} of the trials of its strategy. "
            "It starts worse than they did; what it would have reached nobody knows."
        ]
    if record.state != "FAIL":
        return []
    if reason == INTERRUPTED:
        return [
            "**Interrupted**: its process was stopped or died. It is not counted; another trial "
            "takes its place."
        ]
    if record.void:
        return [
            f"**Failed**: {escaped(reason)}. It is not counted: other trials failed in the same "
            "way, the device was lost, or the configuration was run again."
        ]
    hint = " Smaller batches or images need less." if reason == OUT_OF_MEMORY else ""
    return [f"**Failed**: {escaped(reason)}.{hint} It is counted, and the study goes on."]


def _reached(record: TrialRecord, metric: str, num_val: int, subjects: int | None) -> list[str]:
    best = record.best
    if best is None or not math.isfinite(best["val"][metric]):
        return []
    value = best["val"][metric]
    interval, of = "", "" if subjects is None else f" of {subjects:,} subjects"
    if metric == "accuracy" and num_val:
        worth = subjects or num_val  # The fewest independent images that they may be.
        low, high = wilson_interval(round(value * worth), worth)
        interval = f" [{100 * low:.1f}, {100 * high:.1f}]"
    text = (
        f"Validation {metric.replace('_', ' ')} **{metric_text(metric, value)}**{interval} "
        f"({num_val:,} images{of}{', 95 % interval' if interval else ''})"
    )
    train = record.train_metrics
    if len(record.history) == 1:
        on_training = "" if train is None else f"; training {metric_text(metric, train[metric])}"
        return [f"{text}{on_training}."]
    by = (record.chosen_by or metric).replace("_", " ")
    text += f" at epoch {record.best_epoch}, the best of {len(record.history)} by {by}."
    return [f"{text} {_gap(train, best['val'], metric)}"]


def _gap(
    on_training: Mapping[str, float] | None, on_validation: Mapping[str, float], metric: str
) -> str:
    if on_training is None:
        return "On training images it was not measured."
    train, val = on_training[metric], on_validation[metric]
    gap = f"{100 * (train - val):+.1f} points" if is_share(metric) else f"{train - val:+.3f}"
    return f"On training images {metric_text(metric, train)} (gap {gap})."


def _spent(record: TrialRecord) -> list[str]:
    if record.seconds is None:
        return []
    shares = [
        f"{work} {seconds_text(record.timing[work])}"
        for work in ("activations", "training", "validation")
        if record.timing.get(work, 0.0) >= SHORTEST_SECONDS
    ]
    text = f"Took {seconds_text(record.seconds)}"
    text += f" ({', '.join(shares)})" if shares else ""
    if record.num_trainable_parameters is not None:
        peak = record.peak_memory_bytes
        text += f"; peak memory {'unknown' if peak is None else bytes_text(peak)}"
    return [f"{text}.{_reused(record)}{_micro_batches(record)}"]


def _reused(record: TrialRecord) -> str:
    if record.cache.get("was_at_hand") and record.cache.get("bytes"):
        return " Outputs of the frozen layers were at hand."
    return ""


def _micro_batches(record: TrialRecord) -> str:
    size, batch = record.micro_batch_size, record.params.get("batch_size")
    if size is None or batch is None or size >= batch:
        return ""
    return f" Memory was short: {size} images at a time, their gradients added up."


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
