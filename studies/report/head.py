"""The head of a report: question, verdict, data, protocol, methods, how to reproduce it.

Knows evidence and words; computes nothing but sums.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from studies.check_record import allowed_lines
from studies.database.storage import storage_option
from studies.database.trials import count_states
from studies.document.blocks import (
    Block,
    Cell,
    Code,
    Listing,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
)
from studies.document.numbers import difference_text, listed, number_cell
from studies.report.methods import methods_paragraph
from studies.report.sources import source_of_candidate
from studies.results.choice import seed_remarks
from studies.results.study import Evidence
from transfer.config import TITLES

QUESTION = (
    "Which is better on these images: fine-tuning a pretrained ConvNet, or using it as a fixed "
    "feature extractor? By how much, how sure, and why is the test result what it is?"
)


def head(evidence: Evidence) -> list[Section]:
    """The sections before the tasks."""
    return [
        Section(
            id="verdict",
            title="Question and verdict",
            blocks=[Paragraph(content=QUESTION), *verdict(evidence)],
        ),
        Section(id="data", title="Data", blocks=data_blocks(evidence)),
        Section(id="protocol", title="Protocol", blocks=_protocol(evidence)),
    ]


def verdict(evidence: Evidence) -> list[Block]:
    """The verdict in one sentence, from the test images if they were opened, and what it costs."""
    found = _difference(evidence)
    blocks: list[Block] = []
    if found is None:
        blocks.append(Paragraph(content=_no_verdict(evidence), kind="verdict"))
    else:
        sentence, where = found
        blocks.append(Paragraph(content=[sentence, *_cost(evidence)], kind="verdict"))
        blocks.append(Paragraph(content=where, kind="note"))
    unfinished = _unfinished(evidence)
    if unfinished:
        blocks.append(Paragraph(content=unfinished, kind="warning"))
    if evidence.confirmed is not None and evidence.is_confirmed:
        lines = seed_remarks(evidence.confirmed, TITLES)
        blocks += [Paragraph(content=line, kind="warning") for line in lines]
    return blocks


def _difference(evidence: Evidence) -> tuple[Cell, str] | None:
    """The sentence of the difference, and on which images it rests."""
    if evidence.evaluation is not None:
        assert evidence.evaluation.result is not None
        stored = evidence.evaluation.result["difference"]
        if stored is not None:
            cell = Cell(text=stored["sentence"], source=_test_source(evidence), href="#task-e")
            return cell, _on_test(evidence, stored)
    comparison = evidence.comparison
    if comparison is None:
        return None
    chosen = [evidence.candidate(name) for name in TITLES]
    source = "; ".join(source_of_candidate(c, evidence.name) for c in chosen if c is not None)
    return Cell(text=comparison.sentence, source=source, href="#task-d"), (
        f"Difference {difference_text(comparison.metric, comparison.difference)}, p = "
        f"{comparison.difference.p:.2g}, on the validation images that have chosen both "
        "configurations. The test images are sealed: they decide."
    )


def _on_test(evidence: Evidence, stored: Mapping[str, Any]) -> str:
    text = (
        f"Difference {difference_text(stored['metric'], stored)}, p = {stored['p']:.2g}, on the "
        "test images, over seeds and images."
    )
    if evidence.test_was_seen:
        text += (
            " A result on these images was known before: they may have chosen what they judge, "
            "and the difference may look too good."
        )
    comparison = evidence.comparison
    if comparison is None:
        return text
    return (
        f"{text} On the validation images, which have chosen both configurations, it was "
        f"{difference_text(comparison.metric, comparison.difference)}."
    )


def _test_source(evidence: Evidence) -> str:
    opening = evidence.evaluation
    assert opening is not None and opening.result is not None
    return (
        f"opening {opening.number} of the test images, {opening.opened:%Y-%m-%d %H:%M} UTC, "
        f"{opening.result['n']} images, fingerprint {opening.test_fingerprint[:12]}"
    )


def _cost(evidence: Evidence) -> list[str | Cell]:
    """What the two choices cost to train, one against the other."""
    tuned, extracted = (evidence.candidate(n) for n in ("fine_tuning", "feature_extraction"))
    if tuned is None or extracted is None or not extracted.mean_seconds:
        return []
    ratio = tuned.mean_seconds / extracted.mean_seconds
    source = "; ".join(source_of_candidate(c, evidence.name) for c in (tuned, extracted))
    more = Cell(text=f"{ratio:.3g} times", source=source, href="#task-d")
    return [" A training by fine-tuning took ", more, " as long."]


def _no_verdict(evidence: Evidence) -> str:
    counts = count_states(evidence.trials)
    if not any(counts[state] for state in ("complete", "pruned", "fail")):
        num_void = sum(trial.void for trial in evidence.trials)
        if num_void:
            return (
                f"No verdict: {num_void} trials failed one after the other, which stopped the "
                "study. They do not count: mend the cause and run it with --retry-failed."
            )
        return "No verdict yet: no trial has ended."
    if not counts["complete"]:
        return (
            f"No verdict: none of {counts['fail'] + counts['pruned']} finished trials is complete "
            f"({counts['fail']} failed, {counts['pruned']} pruned)."
        )
    missing = [name for name in TITLES if evidence.best(name) is None]
    if missing:
        strategy = TITLES[missing[0]]
        return f"No verdict: there is no complete trial of {strategy}, so nothing to compare."
    if evidence.confirmed is None:
        return (
            "No verdict yet: the best trials were not trained again over seeds "
            "(`python -m studies confirm`), and the best of many on one seed is no evidence."
        )
    if not evidence.is_confirmed:
        done, wanted = evidence.confirming
        return f"No verdict yet: confirming is not finished ({done} of {wanted} trainings)."
    if evidence.confirmed.resplit:
        return (
            "No verdict yet: every seed had validation images of its own; the test images, which "
            "are sealed, will compare the two on the same images."
        )
    return "No verdict: of one strategy no training over seeds is complete."


def _unfinished(evidence: Evidence) -> str:
    counts = count_states(evidence.trials)
    done, total = counts["complete"] + counts["pruned"] + counts["fail"], evidence.study.trials
    parts = []
    if done < total:
        parts.append(f"The search is not finished: {done} of {total} trials.")
    if counts["running"]:
        trials = "1 trial is" if counts["running"] == 1 else f"{counts['running']} trials are"
        parts.append(f"{trials} running.")
    return " ".join(parts)


def data_blocks(evidence: Evidence) -> list[Block]:
    """Images by class and split, facts, a picture of pictures, and what the check found."""
    counts = evidence.counts
    data = evidence.study.identity["data"]
    source = f"data check of {data['source']}, fingerprint {data['fingerprint'][:12]}"

    def cell(count: int) -> Cell:
        return number_cell(count, "{:,}", source, quiet=True)

    rows: list[list[Words]] = [
        [name, *(cell(counts[split].get(name, 0)) for split in counts)]
        for name in evidence.classes
    ]
    rows.append(["all", *(cell(evidence.num_images(split)) for split in counts)])
    blocks: list[Block] = [
        Table(name="images", caption="Images", columns=["class", *counts], rows=rows),
        Listing(items=_facts(evidence)),
    ]
    if evidence.samples is not None:
        caption = "Training images, a row for each class"
        blocks.append(
            Pictures(caption=caption, pictures=[Picture(png=evidence.samples, caption="")])
        )
    findings = list((evidence.study.data_check or {}).get("warnings", []))
    findings = [f"Warning: {text}." for text in findings]
    findings += allowed_lines(evidence.study.data_check)
    if findings:
        blocks.append(Paragraph(content="The data check found:"))
        blocks.append(Listing(items=findings))
    elif evidence.study.data_check is not None:
        blocks.append(Paragraph(content="The data check found nothing that may spoil the study."))
    return blocks


def _facts(evidence: Evidence) -> list[str]:
    data, card = evidence.study.identity["data"], evidence.card or {}
    facts = [
        f"source {data['source']}",
        f"fingerprint {data['fingerprint'][:16]}",
        f"fingerprint of the test images {data['test_fingerprint'][:16]}",
    ]
    made = card.get("made_splits")
    if isinstance(made, list) and made:
        facts.append(f"drawn by this program: {listed(made)}")
    if data.get("group_pattern"):
        facts.append(f"groups by {data['group_pattern']}, never in two splits that are drawn")
    sizes = card.get("sizes")
    if isinstance(sizes, dict):
        most = sorted(sizes, key=lambda size: -sizes[size])[:3]
        facts.append(f"sizes: {', '.join(most)}{' and others' if len(sizes) > 3 else ''}")
    return facts


def _protocol(evidence: Evidence) -> list[Block]:
    command = storage_option(evidence.storage)
    name = shlex.quote(evidence.name)
    return [
        Paragraph(content=methods_paragraph(evidence)),
        Paragraph(content="To reproduce it:"),
        Code(
            lines=[
                f"python -m studies run --name {name}{command}",
                f"python -m studies confirm {name}{command}",
                f"python -m studies report {name}{command}",
            ]
        ),
    ]
