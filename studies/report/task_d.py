"""Task D: advantages and disadvantages of both strategies, each claim with what was measured."""

from collections.abc import Mapping, Sequence

from studies.document.blocks import Block, Cell, Drawing, Paragraph, Section, Table, Words
from studies.document.numbers import metric_text, number_cell, seconds_text
from studies.report.appendix import source_of_candidate
from studies.report.claims import Claim, Measured, claims, holm_adjusted
from studies.report.figures import SearchStep, best_so_far, strategies_over_seeds
from studies.report.judged import claimed_metric, measured
from studies.report.task_b_c import seeds_interval
from studies.results.study import StoredStudy
from studies.statistics.intervals import Interval
from transfer.config import TITLES


def task_d(evidence: StoredStudy) -> Section:
    """The eight claims as rows, and both strategies over their seeds."""
    found = measured(evidence)
    judged = claims(found)
    rows: list[list[Words]] = [
        _row(evidence, claim, p) for claim, p in zip(judged, holm_adjusted(judged), strict=True)
    ]
    blocks: list[Block] = [
        Paragraph(
            content="Each row is a claim that people make of a strategy in general, what was "
            "measured of it here (95 % intervals), and what follows for these images. A claim "
            "holds or does not hold where its interval lies on one side; else it is not shown. "
            f"Differences are in {claimed_metric(evidence)}, on {found.images}. "
            f"{_worth(found, evidence.test_was_seen)}"
        ),
        Table(
            name="claims",
            caption="Task D: advantages and disadvantages",
            columns=["strategy", "", "claim", "measured here", "verdict", "p (Holm)"],
            rows=rows,
        ),
    ]
    blocks += _search_curves(evidence)
    groups = _groups(evidence)
    if groups:
        blocks.append(
            Drawing(
                name="strategies",
                figure=strategies_over_seeds(groups, metric=evidence.metric),
                caption="Both strategies' choices: every seed, the mean, its 95 % interval.",
                description=_described(groups),
            )
        )
    return Section(id="task-d", title="Task D: comparison and analysis", blocks=blocks)


def _worth(found: Measured, was_seen: bool) -> str:
    """What the images are worth for judging."""
    if found.images == "test images" and was_seen:
        return (
            "A result on the test images was known before this evaluation: they may have chosen "
            "what they measure, and judge no difference."
        )
    if found.images == "test images":
        return (
            "The test images chose nothing; what training beyond the best epoch costs and the gap "
            "to training images are of validation images. p is adjusted by Holm's method for the "
            "number of measurements that claims rest on."
        )
    return (
        "The validation images have chosen epochs and configurations, so that a difference is "
        "judged only where it lies beyond what the forecast takes off for that choice; the test "
        "images will judge the rest. p is adjusted by Holm's method for the number of "
        "measurements that are judged."
    )


def _row(evidence: StoredStudy, claim: Claim, p: float | None) -> list[Words]:
    candidate = evidence.candidate(claim.strategy)
    source = "" if candidate is None else source_of_candidate(candidate, evidence.name)
    told = "; ".join(claim.evidence) or "not measured in this study"
    verdict = f"{claim.verdict}: {claim.reason}" if claim.reason else claim.verdict
    return [
        TITLES[claim.strategy],
        "advantage" if claim.is_advantage else "disadvantage",
        claim.text,
        Cell(text=told, source=source, quiet=True),
        Cell(text=verdict, source=source, href="#appendix"),
        number_cell(p, "{:.2g}", source, quiet=True),
    ]


def _search_curves(evidence: StoredStudy) -> list[Block]:
    """What each strategy's search had found behind so many trials and seconds."""
    curves = {name: search_steps(evidence, name) for name in evidence.strategies}
    curves = {name: steps for name, steps in curves.items() if steps}
    if not curves:
        return []
    metric = evidence.metric
    rows: list[list[Words]] = [
        [
            TITLES[name],
            number_cell(step.num_trials, "{:,}"),
            number_cell(step.seconds, "{:.1f}"),
            Cell(text=metric_text(metric, step.best), key=step.best),
        ]
        for name, steps in curves.items()
        for step in steps
    ]
    ends = [
        f"{TITLES[name]} {metric_text(metric, steps[-1].best)} behind {steps[-1].num_trials} "
        f"trials and {seconds_text(steps[-1].seconds)}"
        for name, steps in curves.items()
    ]
    return [
        Drawing(
            name="best_so_far",
            figure=best_so_far(curves, metric=f"validation {metric}"),
            caption=f"The best of each strategy so far by {evidence.chooser}, against its trials "
            "and their seconds, pruned and failed ones included. These images choose, so the "
            "values are too good, and more so the more trials there are.",
            description="; ".join(ends),
        ),
        Table(
            name="best_so_far",
            caption=f"The best of each strategy so far by {evidence.chooser}",
            columns=["strategy", "trials", "seconds", f"its validation {metric}"],
            rows=rows,
            folded=True,
        ),
    ]


def search_steps(evidence: StoredStudy, strategy: str) -> list[SearchStep]:
    """Of one strategy the value of the best trial so far, from its first complete one on."""
    metric = evidence.metric
    steps, seconds, best = [], 0.0, None
    for number, trial in enumerate(evidence.of_strategy(strategy), start=1):
        seconds += trial.seconds or 0.0
        if trial.state == "COMPLETE" and (
            best is None or trial.score(metric) > best.score(metric)
        ):
            best = trial
        if best is not None and best.value is not None:
            steps.append(SearchStep(num_trials=number, seconds=seconds, best=best.value))
    return steps


def _groups(
    evidence: StoredStudy,
) -> dict[str, dict[str, tuple[Sequence[float], Interval | None]]]:
    """Of each strategy the seeds on validation images, the forecast, and the test images."""
    groups: dict[str, dict[str, tuple[Sequence[float], Interval | None]]] = {}
    for strategy in evidence.strategies:
        candidate = evidence.candidate(strategy)
        if candidate is None:
            continue
        groups[strategy] = {"validation": (candidate.values, seeds_interval(evidence, candidate))}
        if strategy in evidence.forecasts:
            groups[strategy]["forecast"] = ([], evidence.forecasts[strategy])
        opening = evidence.evaluation
        tested = (
            opening.result["by_strategy"].get(strategy) if opening and opening.result else None
        )
        # Before calibration, as the seeds' values and the forecast are.
        if tested is not None and tested["as_forecast"]["value"] is not None:
            interval = Interval(**tested["as_forecast"])
            groups[strategy]["test"] = (tested.get("values") or [], interval)
    return groups


def _described(groups: Mapping[str, Mapping[str, tuple[Sequence[float], Interval | None]]]) -> str:
    parts = [
        f"{TITLES[strategy]} {where} {interval.value:.3f} "
        f"[{interval.low:.3f}, {interval.high:.3f}]"
        for strategy, found in groups.items()
        for where, (_, interval) in found.items()
        if interval is not None
    ]
    return "; ".join(parts)
