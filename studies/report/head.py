"""The head of a report: question, verdict, data, protocol, methods, how to reproduce it.

The paragraph on methods has all its numbers filled in, ready for a paper. Knows evidence and
words; computes nothing but sums.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from studies.data_check import allowed_lines
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
from studies.document.numbers import difference_text, interval_text, listed, number_cell
from studies.report.appendix import source_of_candidate
from studies.results.choice import seed_remarks
from studies.results.study import StoredStudy
from studies.statistics.metrics import METRICS
from transfer.config import TITLES
from transfer.data.decoding import RESIZED

QUESTION = (
    "Which is better on these images: fine-tuning a pretrained ConvNet, or using it as a fixed "
    "feature extractor? By how much, how sure, and why is the test result what it is?"
)


def head(evidence: StoredStudy) -> list[Section]:
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


def verdict(evidence: StoredStudy) -> list[Block]:
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


def _difference(evidence: StoredStudy) -> tuple[Cell, str] | None:
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


def _on_test(evidence: StoredStudy, stored: Mapping[str, Any]) -> str:
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


def _test_source(evidence: StoredStudy) -> str:
    opening = evidence.evaluation
    assert opening is not None and opening.result is not None
    return (
        f"opening {opening.number} of the test images, {opening.opened:%Y-%m-%d %H:%M} UTC, "
        f"{opening.result['n']} images, fingerprint {opening.test_fingerprint[:12]}"
    )


def _cost(evidence: StoredStudy) -> list[str | Cell]:
    """What the two choices cost to train, one against the other."""
    tuned, extracted = (evidence.candidate(n) for n in ("fine_tuning", "feature_extraction"))
    if tuned is None or extracted is None or not extracted.mean_seconds:
        return []
    ratio = tuned.mean_seconds / extracted.mean_seconds
    source = "; ".join(source_of_candidate(c, evidence.name) for c in (tuned, extracted))
    more = Cell(text=f"{ratio:.3g} times", source=source, href="#task-d")
    return [" A training by fine-tuning took ", more, " as long."]


def _no_verdict(evidence: StoredStudy) -> str:
    counts = evidence.states
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


def _unfinished(evidence: StoredStudy) -> str:
    counts = evidence.states
    done, total = counts["complete"] + counts["pruned"] + counts["fail"], evidence.study.trials
    parts = []
    if done < total:
        parts.append(f"The search is not finished: {done} of {total} trials.")
    if counts["running"]:
        trials = "1 trial is" if counts["running"] == 1 else f"{counts['running']} trials are"
        parts.append(f"{trials} running.")
    return " ".join(parts)


def data_blocks(evidence: StoredStudy) -> list[Block]:
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
    check = evidence.study.data_check
    findings = [f"Warning: {text}." for text in check["warnings"]] + allowed_lines(check)
    if findings:
        blocks.append(Paragraph(content="The data check found:"))
        blocks.append(Listing(items=findings))
    else:
        blocks.append(Paragraph(content="The data check found nothing that may spoil the study."))
    return blocks


def _facts(evidence: StoredStudy) -> list[str]:
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


def _protocol(evidence: StoredStudy) -> list[Block]:
    command = evidence.storage_option
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


CITATIONS = {
    "tpe": "Bergstra et al. 2011, Algorithms for hyper-parameter optimization",
    "wilson": "Wilson 1927, Probable inference, the law of succession, and statistical inference",
    "bootstrap": "McCarthy and Snowden 1985, The bootstrap and finite population sampling",
    "effective": "Korn and Graubard 1998, Confidence intervals for proportions with small "
    "expected number of positive counts",
    "forecast": "Tsamardinos et al. 2018, Bootstrapping the out-of-sample predictions for "
    "efficient and accurate cross-validation",
    "satterthwaite": "Satterthwaite 1946, An approximate distribution of estimates of variance "
    "components",
    "bonett": "Bonett and Price 2012, Adjusted Wald confidence interval for a difference of "
    "binomial proportions based on paired data",
    "schuirmann": "Schuirmann 1987, A comparison of the two one-sided tests procedure and the "
    "power approach for assessing the equivalence of average bioavailability",
    "piaggio": "Piaggio et al. 2012, Reporting of noninferiority and equivalence randomized "
    "trials",
    "clusters": "Rao, Scott 1992, A simple method for the analysis of clustered binary data",
}
MIRRORED = {
    "none": "none of them mirrored",
    "horizontal": "half of them mirrored",
    "both": "half of them mirrored and half of them turned upside down",
}


def methods_paragraph(evidence: StoredStudy) -> str:
    """The paragraph, its citations numbered in their order behind it."""
    sentences = [
        _data(evidence),
        *_search(evidence),
        *_confirm(evidence),
        *_forecast(evidence),
        *_test(evidence),
        *_intervals(evidence),
    ]
    text = " ".join(sentences)
    used = [key for key in CITATIONS if f"[{key}]" in text]
    order = sorted(used, key=lambda key: text.index(f"[{key}]"))
    for number, key in enumerate(order, start=1):
        text = text.replace(f"[{key}]", f"[{number}]")
    cited = [f"[{number}] {CITATIONS[key]}" for number, key in enumerate(order, start=1)]
    return f"{text} {'; '.join(cited)}."


def _intervals(evidence: StoredStudy) -> list[str]:
    """How intervals come about and what the verdict makes of them."""
    found = evidence.confirmed
    sentences = [
        "Intervals are of 95 %: Wilson's score interval [wilson] for shares of images; for other "
        "metrics of one model the variance of a bootstrap within classes [bootstrap], told by "
        "Wilson's interval for the number of images that would give it [effective], of a loss by "
        "the normal interval of its logarithm."
    ]
    if found is None or not found.candidates:
        return sentences
    sentences.append(
        "In means over seeds the variances of images and of seeds, two crossed random factors, "
        "add up, with Student's t and Satterthwaite's degrees of freedom [satterthwaite]. The two "
        "strategies were compared on the same images, their difference with two images more on "
        "each of which one alone is right [bonett], for further seeds on further images but the "
        "same training images."
    )
    if found.margin is not None:
        bounded = METRICS[evidence.metric].bounded
        margin = f"{100 * found.margin:g} points" if bounded else f"{found.margin:g} nats"
        sentences.append(
            f"A difference of {margin} was declared beforehand to be the smallest that would "
            "matter: 'as good as' is an interval that excludes it in both directions "
            "[schuirmann], 'not worse' one that excludes a loss of that size [piaggio]."
        )
    return sentences


def _data(evidence: StoredStudy) -> str:
    settings = evidence.study.settings
    counts = [evidence.num_images(split) for split in ("train", "val", "test")]
    size = settings["image_size"]
    weights = (
        "pretrained on ImageNet" if settings["weights"] == "imagenet" else "of random weights"
    )
    subjects = evidence.subjects
    if subjects is None:
        whose = "Whose images they are was not given: intervals take them as independent."
    else:
        whose = (
            f"They are of {subjects['train']:,}, {subjects['val']:,} and {subjects['test']:,} "
            "subjects, and intervals are of whole subjects drawn anew, not of images [clusters]."
        )
    return (
        f"Backbones {weights} ({listed(evidence.backbones)}) were transferred to "
        f"{len(evidence.classes)} classes ({listed(evidence.classes)}) with {counts[0]:,} "
        f"training, {counts[1]:,} validation and {counts[2]:,} test images at {size} x {size} "
        f"pixels ({RESIZED[settings['resize']]}){_views(evidence)}. {whose}"
    )


def _views(evidence: StoredStudy) -> str:
    settings, space = evidence.study.settings, evidence.study.identity["space"]
    is_searched = any(parameter["name"] == "num_views" for parameter in space["parameters"])
    if settings["num_views"] == 1 and not is_searched:
        return ""
    how_many = "several" if is_searched else str(settings["num_views"])
    return f", training images in {how_many} variants, {MIRRORED[settings['flip']]}"


def _search(evidence: StoredStudy) -> list[str]:
    settings, space = evidence.study.settings, evidence.study.identity["space"]
    counts = evidence.states
    total = counts["complete"] + counts["pruned"] + counts["fail"]
    by_tpe = settings["sampler"] == "tpe"
    how = "a tree-structured Parzen estimator [tpe]" if by_tpe else "random draws"
    sentences = [
        f'{total} configurations of search space "{space["name"]}" ({_searched(space)}) were '
        f"tried by {how}, at most {settings['epochs']} epochs each with a patience of "
        f"{settings['patience']}, with seed {settings['seed']}, by {evidence.chooser} on "
        "validation images, which chose epochs as well."
    ]
    if "share" in settings and len(evidence.strategies) > 1:
        sentences.append(
            "Each strategy was searched on its own, with an equal share of the "
            f"{settings['share']}."
        )
    if settings["pruner"] == "median":
        sentences.append(
            "Trials worse than the median of their own strategy were stopped early "
            f"({counts['pruned']} of them)."
        )
    return sentences


def _searched(space: Mapping[str, Any]) -> str:
    parts = []
    for parameter in space["parameters"]:
        name = parameter["name"].replace("_", " ")
        of = f" of {TITLES[parameter['strategy']]}" if parameter["strategy"] else ""
        if parameter["choices"] is not None:
            values = ", ".join(map(str, parameter["choices"]))
        else:
            high = "all" if parameter["high"] is None else f"{parameter['high']:g}"
            values = f"{parameter['low']:g} to {high}{', logarithmic' if parameter['log'] else ''}"
        parts.append(f"{name}{of}: {values}")
    return "; ".join(parts)


def _confirm(evidence: StoredStudy) -> list[str]:
    found = evidence.confirmed
    if found is None or not found.candidates:
        return []
    seeds = ", ".join(map(str, found.seeds))
    split = ", each with a validation split of its own," if found.resplit else ""
    how = (
        "the best mean"
        if found.how == "best"
        else "the lowest cost, of those behind the best by at most one standard error of the "
        "paired difference,"
    )
    return [
        f"The best configurations of each strategy ({len(found.candidates)} in all) were trained "
        f"again with {len(found.seeds)} other seeds ({seeds}){split} and of each strategy the one "
        f"with {how} was chosen."
    ]


def _forecast(evidence: StoredStudy) -> list[str]:
    if not evidence.forecasts:
        return []
    told = "; ".join(
        f"{TITLES[name]} {interval_text(evidence.metric, found)}"
        for name, found in evidence.forecasts.items()
    )
    return [
        f"Their {evidence.metric} on the test images was forecast from the validation images, "
        f"corrected for the choice of epoch and configuration [forecast]: {told}."
    ]


def _test(evidence: StoredStudy) -> list[str]:
    if not evidence.openings:
        return ["The test images took no part in any choice and are sealed."]
    times = "once" if len(evidence.openings) == 1 else f"{len(evidence.openings)} times"
    return [f"The test images took no part in the search and were opened {times}."]
