"""The appendix: every trial with its reason, what pruning saved, the timeline, versions.

Also where a number of a report comes from, and links to trials.
"""

from collections.abc import Sequence

from studies.document.blocks import Block, Cell, Drawing, Listing, Paragraph, Section, Table, Words
from studies.document.numbers import configuration_text, metric_text, number_cell, seconds_text
from studies.report.figures import TimelineTrial, timeline
from studies.results import CANDIDATE, SEED, TrialRecord
from studies.results.accounting import account
from studies.results.choice import Candidate
from studies.results.comparison import seconds_saved
from studies.results.controls import control_names
from studies.results.study import StoredStudy
from transfer.config import TITLES


def trial_cell(trial: TrialRecord) -> Cell:
    """A link to a trial of the search."""
    return Cell(text=str(trial.number), href=f"#trial-{trial.number}", key=trial.number)


def source_of_trial(trial: TrialRecord, name: str) -> str:
    """Where a number of one trial comes from."""
    return f"trial {trial.number} of study {name}, seed {trial.config.get('seed')}"


def source_of_candidate(candidate: Candidate, name: str) -> str:
    """Where a number over seeds comes from."""
    numbers = ", ".join(str(run.number) for run in candidate.runs)
    seeds = ", ".join(str(run.params["seed"]) for run in candidate.runs)
    return (
        f"trials {numbers} of study {name}/confirm: the configuration of trial "
        f"{candidate.number}, seeds {seeds}"
    )


STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed"}


def appendix(evidence: StoredStudy) -> Section:
    """All trials of the search, of confirming and of the controls."""
    counts = evidence.states
    saved = seconds_saved(evidence.trials, evidence.study.settings["epochs"])
    costs = account(evidence.study, evidence.trials)
    blocks: list[Block] = [
        Listing(
            items=[
                ", ".join(f"{counts[s]} {told}" for s, told in STATES.items()),
                f"pruning saved up to {seconds_text(saved)} of training",
                *costs.lines(),
            ]
        ),
        *_timeline(evidence),
        _search(evidence),
        *_confirm(evidence),
        *_controls(evidence),
        *_versions(evidence),
    ]
    return Section(id="appendix", title="Appendix: all trials", blocks=blocks)


def _search(evidence: StoredStudy) -> Table:
    rows = [
        [
            number_cell(trial.number),
            trial.state.lower(),
            _value(evidence, trial),
            TITLES.get(str(trial.strategy), ""),
            configuration_text({k: v for k, v in trial.params.items() if k != "strategy"}),
            number_cell(len(trial.history)),
            number_cell(trial.seconds, "{:.1f}"),
            _reason(trial),
        ]
        for trial in evidence.trials
    ]
    return Table(
        name="trials",
        caption=f"The search: {len(rows)} trials",
        columns=[
            "trial",
            "state",
            f"validation {evidence.metric}",
            "strategy",
            "configuration",
            "epochs",
            "seconds",
            "reason",
        ],
        rows=rows,
        anchors=[f"trial-{trial.number}" for trial in evidence.trials],
        folded=True,
    )


def _value(evidence: StoredStudy, trial: TrialRecord) -> Words:
    return number_cell(
        trial.value, metric_text(evidence.metric, trial.value) if trial.value is not None else ""
    )


def _reason(trial: TrialRecord) -> str:
    if trial.duplicate_of is not None:
        return f"the same configuration as trial {trial.duplicate_of}"
    return trial.reason or ""


def _confirm(evidence: StoredStudy) -> list[Block]:
    found = evidence.confirmed
    if found is None or not found.candidates:
        return [Paragraph(content="Nothing was confirmed over seeds.", kind="note")]
    chosen = {candidate.number for candidate in found.chosen.values()}
    runs = [(candidate, run) for candidate in found.candidates for run in candidate.runs]
    rows: list[list[Words]] = [
        [
            number_cell(run.number),
            number_cell(candidate.number, href=f"#trial-{candidate.number}"),
            number_cell(run.params[SEED]),
            _value(evidence, run),
            TITLES[candidate.strategy],
            "chosen" if candidate.number in chosen else "",
            number_cell(run.seconds, "{:.1f}"),
        ]
        for candidate, run in runs
    ]
    return [
        Table(
            name="confirm",
            caption=f"Over seeds: {len(rows)} trainings of {evidence.name}/confirm",
            columns=[
                "trial",
                "of the search's",
                "seed",
                f"validation {evidence.metric}",
                "strategy",
                "",
                "seconds",
            ],
            rows=rows,
            anchors=[f"confirm-{run.number}" for _, run in runs],
            folded=True,
        ),
    ]


def _controls(evidence: StoredStudy) -> list[Block]:
    if not evidence.controls:
        return []
    rows: list[list[Words]] = []
    for run in evidence.controls:
        names = control_names(run)
        seed = run.params.get(SEED) if CANDIDATE in run.keyed_params else None
        rows.append(
            [
                number_cell(run.number),
                names["control"] or "",
                names["backbone"] or "",
                names["weights"] or "",
                number_cell(seed),
                _value(evidence, run),
            ]
        )
    return [
        Table(
            name="controls",
            caption=f"Controls: {evidence.name}/controls",
            columns=[
                "trial",
                "control",
                "backbone",
                "weights",
                "seed",
                f"validation {evidence.metric}",
            ],
            rows=rows,
            anchors=[f"control-{run.number}" for run in evidence.controls],
            folded=True,
        )
    ]


def _timeline(evidence: StoredStudy) -> list[Block]:
    ran = [t for t in evidence.trials if t.started is not None and t.duplicate_of is None]
    if not ran:
        return []
    first = min(trial.started for trial in ran if trial.started is not None)
    shown = [
        TimelineTrial(
            number=trial.number,
            strategy=str(trial.strategy),
            state=trial.state,
            start_seconds=(trial.started - first).total_seconds(),
            seconds=trial.seconds or 0.0,
        )
        for trial in ran
        if trial.strategy is not None and trial.started is not None
    ]
    if not shown:
        return []
    return [
        Drawing(
            name="timeline",
            figure=timeline(shown),
            caption="When each trial of the search ran.",
            description=f"{len(shown)} trials from {first:%Y-%m-%d %H:%M}.",
        )
    ]


def _versions(evidence: StoredStudy) -> list[Block]:
    with_config: Sequence[TrialRecord] = [trial for trial in evidence.trials if trial.config]
    if not with_config:
        return []
    versions = with_config[-1].versions.items()
    told = ", ".join(f"{name} {version}" for name, version in versions)
    threads = evidence.study.identity["threads"]
    return [Paragraph(content=f"Made with {told}; {threads} threads.", kind="note")]
