"""Task D: advantages and disadvantages of both strategies, each claim with what was measured."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from studies.claims import Claim, Measured, claims, gap_difference, gap_interval, geometric_ratio
from studies.confirm import Candidate
from studies.control_rows import KEYS
from studies.records import TrialRecord
from studies.report.blocks import Block, Cell, Drawing, Paragraph, Section, Table, Words
from studies.report.evidence import Evidence
from studies.report.figures import strategies_over_seeds
from studies.report.numbers import NAMES, source_of_candidate
from studies.report.task_b_c import seeds_interval
from studies.scores import METRICS, Floats
from studies.statistics import Interval, bootstrap_over_seeds
from studies.verdict import difference_over_seeds

# Differences of a loss are in nats: what people claim is about being right.
ACCURACY = "accuracy"
Predictions = tuple[NDArray[np.int64], Floats]


def task_d(evidence: Evidence) -> Section:
    """The eight claims as rows, and both strategies over their seeds."""
    found = measured(evidence)
    rows: list[list[Words]] = [_row(evidence, claim) for claim in claims(found)]
    blocks: list[Block] = [
        Paragraph(
            content="Each row is a claim that people make of a strategy in general, what was "
            "measured of it here (95 % intervals), and what follows for these images. A claim "
            "holds or does not hold where its interval lies on one side; else it is not shown. "
            f"Differences are in {_metric(evidence)}."
        ),
        Table(
            name="claims",
            caption="Task D: advantages and disadvantages",
            columns=["strategy", "", "claim", "measured here", "verdict"],
            rows=rows,
        ),
    ]
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


def _metric(evidence: Evidence) -> str:
    return ACCURACY if evidence.metric == "loss" else evidence.metric


def _row(evidence: Evidence, claim: Claim) -> list[Words]:
    candidate = evidence.candidate(claim.strategy)
    source = "" if candidate is None else source_of_candidate(candidate, evidence.name)
    told = "; ".join(claim.evidence) or "not measured in this study"
    return [
        NAMES[claim.strategy],
        "advantage" if claim.is_advantage else "disadvantage",
        claim.text,
        Cell(text=told, source=source, quiet=True),
        Cell(text=claim.verdict, source=source, href="#appendix"),
    ]


def measured(evidence: Evidence) -> Measured:
    """What this study has measured of both strategies."""
    tuned, extracted = (evidence.candidate(n) for n in ("fine_tuning", "feature_extraction"))
    on_val = {
        c.strategy: found
        for c in (tuned, extracted)
        if c is not None and (found := _predictions(evidence, list(c.runs))) is not None
    }
    probe = _control(evidence, tuned, "logistic_regression", "imagenet")
    random = _control(evidence, tuned, "logistic_regression", "random")
    majority = next(
        (r for r in evidence.controls if r.keyed_params.get(KEYS[0]) == "majority"), None
    )
    of_tuned, of_extracted = on_val.get("fine_tuning"), on_val.get("feature_extraction")
    gaps = [_gap(evidence, c) for c in (tuned, extracted)]
    on_accuracy = _difference(evidence, of_tuned, of_extracted, ACCURACY)
    both = None
    if tuned is not None and extracted is not None and on_accuracy is not None:
        both = gap_difference((_training(tuned), _training(extracted)), on_accuracy)
    test = _on_test(evidence)
    parameters = [c.runs[0].num_trainable_parameters or 0 for c in (tuned, extracted) if c]
    return Measured(
        images="test images" if test is not None else "validation images",
        num_train=evidence.num_images("train"),
        tuned_over_extracted=test or _difference(evidence, of_tuned, of_extracted),
        tuned_over_probe=_difference(evidence, of_tuned, _predictions(evidence, [probe])),
        tuned_over_majority=_difference(evidence, of_tuned, _predictions(evidence, [majority])),
        pretrained_over_random=_difference(
            evidence, _predictions(evidence, [probe]), _predictions(evidence, [random])
        ),
        seconds_ratio=_ratio(evidence, lambda t: t.timing["training"] + t.timing["validation"]),
        memory_ratio=_ratio(evidence, lambda t: float(t.peak_memory_bytes or 0)),
        parameters=(parameters[0], parameters[1]) if len(parameters) == 2 else None,
        tuned_gap=gaps[0],
        extracted_gap=gaps[1],
        gap_difference=both,
        similarity=_mean([run.similarity for run in tuned.runs]) if tuned else None,
        random_similarity=None if random is None else random.similarity,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _predictions(evidence: Evidence, runs: Sequence[TrialRecord | None]) -> Predictions | None:
    """Labels (N,) and probabilities (S, N, C) on the validation images that all of them share."""
    if not runs or None in runs or (evidence.confirmed is not None and evidence.confirmed.resplit):
        return None
    found = [evidence.best_epoch(run) for run in runs if run is not None]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return known[0][0], np.stack([probabilities_NC for _, probabilities_NC in known])


def _difference(
    evidence: Evidence, first: Predictions | None, second: Predictions | None, metric: str = ""
) -> Interval | None:
    """The metric of the first minus that of the second, over seeds and validation images."""
    if first is None or second is None:
        return None
    try:
        return difference_over_seeds(
            METRICS[metric or _metric(evidence)], first[0], first[1], second[1]
        )
    except ValueError:
        return None


def _on_test(evidence: Evidence) -> Interval | None:
    """The difference on the test images, if they were opened."""
    opening = evidence.evaluation
    stored = None if opening is None or opening.result is None else opening.result["difference"]
    if stored is None or stored["metric"] != _metric(evidence):
        return None
    return Interval(value=stored["value"], low=stored["low"], high=stored["high"])


def _control(
    evidence: Evidence, candidate: Candidate | None, name: str, weights: str
) -> TrialRecord | None:
    """A control on the features of a candidate's backbone."""
    if candidate is None:
        return None
    wanted = (name, candidate.configuration["backbone"], weights)
    return next(
        (r for r in evidence.controls if tuple(map(r.keyed_params.get, KEYS)) == wanted), None
    )


def _training(candidate: Candidate) -> float:
    """Training accuracy at the best epoch, the mean over seeds."""
    return float(np.mean([run.best["train"][ACCURACY] for run in candidate.runs if run.best]))


def _gap(evidence: Evidence, candidate: Candidate | None) -> Interval | None:
    found = None if candidate is None else _predictions(evidence, list(candidate.runs))
    if candidate is None or found is None:
        return None
    try:
        return gap_interval(_training(candidate), bootstrap_over_seeds(METRICS[ACCURACY], *found))
    except ValueError:
        return None


def _ratio(evidence: Evidence, cost: Callable[[TrialRecord], float]) -> Interval | None:
    """Fine-tuning over feature extraction, of all complete trials of the search."""
    first, second = (
        [cost(t) for t in evidence.of_strategy(name) if t.state == "COMPLETE"]
        for name in ("fine_tuning", "feature_extraction")
    )
    return geometric_ratio(first, second)


def _groups(
    evidence: Evidence,
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
        if tested is not None and tested["metrics"][evidence.metric]["value"] is not None:
            interval = Interval(**tested["metrics"][evidence.metric])
            groups[strategy]["test"] = (tested.get("values") or [], interval)
    return groups


def _described(groups: Mapping[str, Mapping[str, tuple[Sequence[float], Interval | None]]]) -> str:
    parts = [
        f"{NAMES[strategy]} {where} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        for strategy, found in groups.items()
        for where, (_, interval) in found.items()
        if interval is not None
    ]
    return "; ".join(parts)
