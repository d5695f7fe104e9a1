"""Why the test result is not the forecast, as blocks. Knows an explanation; computes none."""

from collections.abc import Mapping
from typing import Any

from studies.document.blocks import Block, Cell, Drawing, Listing, Paragraph, Table, Words
from studies.document.numbers import NOTHING, difference_text, interval_cell, is_share, number_cell
from studies.errors import UserError
from studies.explanation.explain import explain_study
from studies.explanation.explanation import NAMES as CAUSES
from studies.explanation.explanation import Explanation, Level, sentences
from studies.report.appendix import source_of_candidate
from studies.report.figures import Step, recall_by_class, waterfall
from studies.results import Opening
from studies.results.study import StoredStudy
from studies.statistics.estimates import recalls_over_seeds
from studies.statistics.intervals import Interval
from transfer.config import TITLES


def explained(evidence: StoredStudy, opening: Opening) -> list[Block]:
    """Of each strategy the waterfall, its steps, where they are; or why there is none."""
    if evidence.confirmed is None:
        return [_missing("nothing is confirmed over seeds any more")]
    try:
        found = explain_study(evidence.storage, evidence.name, evidence.confirmed, opening)
    except (UserError, ValueError) as error:
        return [_missing(str(error))]
    blocks: list[Block] = []
    for strategy, explanation in found.items():
        blocks += _of_strategy(evidence, opening, strategy, explanation)
    return blocks


def _missing(why: str) -> Paragraph:
    return Paragraph(content=f"Not explained: {why.removesuffix('.')}.", kind="note")


def _matched(found: Explanation, source: str) -> list[Cell | str]:
    """How much of the test images is of a kind that validation has, where that can be told."""
    if found.unsplit:
        return [
            f"Too few images or subjects of {', '.join(found.unsplit)} to tell images of another "
            "kind from the others: there, shift is part of the rest."
        ]
    return [
        number_cell(100 * found.matched, "{:.0f} %", source, quiet=True),
        " of the test images have their like among the validation images.",
    ]


def _of_strategy(
    evidence: StoredStudy, opening: Opening, strategy: str, found: Explanation
) -> list[Block]:
    candidate = evidence.candidate(strategy)
    source = "" if candidate is None else source_of_candidate(candidate, evidence.name)
    summary, *told = sentences(found)
    name = TITLES[strategy]
    blocks: list[Block] = [
        Paragraph(
            content=Cell(text=f"{name[0].upper()}{name[1:]}: {summary}", source=source, quiet=True)
        ),
        _waterfall(strategy, found),
        Listing(items=[Cell(text=sentence, source=source, quiet=True) for sentence in told]),
        _steps(strategy, found, source),
        _domains(strategy, found),
        Paragraph(content=_matched(found, source)),
    ]
    recalls = _recalls(evidence, opening, strategy)
    if recalls:
        blocks.append(
            Drawing(
                name=f"recall_{strategy}",
                figure=recall_by_class(recalls),
                caption=f"Recall of each class with {name}, the mean over seeds: validation and "
                "test images.",
                description="; ".join(
                    f"{label}: {_told(known)} on validation, {_told(test)} on test images"
                    for label, (known, test) in recalls.items()
                ),
            )
        )
    return blocks


def _told(found: Interval | None) -> str:
    return "-" if found is None else f"{found.value:.3f}"


def _waterfall(strategy: str, found: Explanation) -> Drawing:
    scale, unit = (100, "points") if is_share(found.metric) else (1, "nats")
    steps = [
        Step(
            label=CAUSES[step.cause].partition(" (")[0],
            value=scale * step.change.value,
            low=scale * step.change.low,
            high=scale * step.change.high,
        )
        for step in found.steps
    ]
    start, end = scale * found.forecast.naive, scale * found.test
    return Drawing(
        name=f"waterfall_{strategy}",
        figure=waterfall(
            steps, start=("validation", start), end=("test", end), unit=f"{found.metric} ({unit})"
        ),
        caption=f"Where the {found.metric} of {TITLES[strategy]} went between validation and test "
        "images: the steps add up. Whiskers are 95 % intervals.",
        description="; ".join(
            f"{CAUSES[step.cause]} {difference_text(found.metric, step.change)}"
            for step in found.steps
        ),
    )


def _steps(strategy: str, found: Explanation, source: str) -> Table:
    rows: list[list[Words]] = [
        [
            CAUSES[step.cause],
            Cell(
                text=difference_text(found.metric, step.change),
                source=source,
                key=step.change.value,
                bounds=(step.change.low, step.change.high),
            ),
            "shown" if step.is_shown else "not shown",
            step.remedy,
        ]
        for step in found.steps
    ]
    rows += _thresholds(found)
    return Table(
        name=f"points_{strategy}",
        caption=f"Points lost with {TITLES[strategy]}: causes and remedies",
        columns=["cause", f"change of {found.metric}", "", "what helps"],
        rows=rows,
    )


def _thresholds(found: Explanation) -> list[list[Words]]:
    """What is not part of the sum: other thresholds on the same test images."""
    thresholds = found.thresholds
    if thresholds is None:
        return []
    change, best = thresholds.change, thresholds.at_best
    own = Cell(
        text=difference_text(thresholds.metric, change),
        key=change.value,
        bounds=(change.low, change.high),
    )
    return [
        [
            "calling by the validation images' threshold, beside the sum",
            own,
            "shown" if change.low > 0 or change.high < 0 else "not shown",
            "Find the threshold on labelled images of use, never on the test images.",
        ],
        [
            "the best threshold on these test images, beside the sum",
            interval_cell(thresholds.metric, best, "not attainable: it needs the labels"),
            "not attainable",
            "",
        ],
    ]


def _domains(strategy: str, found: Explanation) -> Table:
    rows: list[list[Words]] = [
        [
            level.images,
            _auroc(level.test, found, level.images),
            _p(level.p, found, level.images),
            _auroc(level.reference, found, level.images),
            _p(level.reference_p, found, level.images),
            _verdict(level),
        ]
        for level in found.levels
    ]
    return Table(
        name=f"domains_{strategy}",
        caption="Can images be told apart by the frozen features of the backbone of "
        f"{TITLES[strategy]}? AUROC of a domain classifier, p of a permutation test; of classes "
        "the verdict goes by p for their number (Holm)",
        columns=["images", "validation from test", "p", "train from validation", "p", ""],
        rows=rows,
    )


def _verdict(level: Level) -> str:
    if level.test is None:
        return "too few subjects" if level.by_subject else "too few images"
    return "told apart" if level.is_told_apart else "not shown to differ"


def _auroc(auroc: Interval | None, found: Explanation, images: str) -> Cell:
    if auroc is None:
        return NOTHING
    text = f"{auroc.value:.2f} [{auroc.low:.2f}, {auroc.high:.2f}]"
    source = _source(found, images)
    return Cell(text=text, source=source, key=auroc.value, bounds=(auroc.low, auroc.high))


def _p(p: float | None, found: Explanation, images: str) -> Cell:
    return NOTHING if p is None else number_cell(p, "{:.3g}", _source(found, images))


def _source(found: Explanation, images: str) -> str:
    sizes = found.forecast.num_val, found.forecast.num_test
    return f"{images}; {sizes[0]} validation and {sizes[1]} test images in all"


def _recalls(
    evidence: StoredStudy, opening: Opening, strategy: str
) -> dict[str, tuple[Interval | None, Interval | None]]:
    """Of each class the recall on validation and on test images, the mean over seeds."""
    candidate = evidence.candidate(strategy)
    on_val = None if candidate is None else evidence.over_seeds(candidate)
    if candidate is None or on_val is None or opening.result is None:
        return {}
    groups_N = evidence.groups(candidate.runs[0])
    known = recalls_over_seeds(*on_val, evidence.classes, groups_N)
    stored = opening.result["by_strategy"][strategy]["metrics"]
    return {
        name: (known[name], _interval(stored.get(f"recall@{name}"))) for name in evidence.classes
    }


def _interval(stored: Mapping[str, Any] | None) -> Interval | None:
    return None if stored is None or stored["value"] is None else Interval(**stored)
