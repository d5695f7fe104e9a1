"""What is printed at the end: leaderboard, strategies, choices, next commands; and as JSON.

Knows summaries and records, not how they came about.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from search_spaces.fields import FIELDS, is_default
from studies.data_check import allowed_lines
from studies.results import TrialRecord, best_trials, count_states
from studies.results.accounting import account
from studies.results.choice import Candidate, Confirmed, seed_remarks
from studies.results.comparison import ConfirmSummary, StrategySummary, compare, seconds_saved
from studies.results.controls import alarms, call_notes, control_rows
from studies.results.turns import share_json, share_lines, share_of
from studies.settings import DEFAULT_STORAGE, StudyOptions
from studies.statistics.clusters import images_words
from studies.statistics.metrics import METRICS
from transfer.config import TITLES

if TYPE_CHECKING:
    from studies.results.study import RunSummary


def print_verdict(console: Console, verdict: ConfirmSummary) -> None:
    """Print the candidates over seeds, the choices marked, then the controls and alarms."""
    found = verdict.confirmed
    console.print(_choices_table(found))
    for line in remarks(found):
        console.print(Text(line))
    for line in comparison_lines(verdict):
        console.print(Text(line))
    console.print(_controls(control_rows(verdict.controls), found.metric))
    for line in [
        *alarms(verdict.learned, TITLES),
        *call_notes(verdict.learned, TITLES),
    ]:
        console.print(Text(line))


def _controls(rows: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """What the strategies must beat."""
    table = Table(
        title=f"Controls: validation {metric}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    for column in ("control", "backbone", "weights"):
        table.add_column(column)
    table.add_column(metric, justify="right")
    sign = -1 if METRICS[metric].larger_is_better else 1
    for row in sorted(rows, key=lambda row: sign * float(row["val"][metric])):
        names = (row["control"], row["backbone"] or "", row["weights"] or "")
        table.add_row(*map(str, names), f"{row['val'][metric]:.4f}")
    return table


def _choices_table(found: Confirmed) -> Table:
    seeds = ", ".join(map(str, found.seeds))
    title = f"Over seeds {seeds}: validation {found.metric}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("", "trial", "strategy", "backbone", "mean", "+-", "of each seed"):
        table.add_column(column, justify="left" if column in ("strategy", "backbone") else "right")
    chosen = {candidate.number for candidate in found.chosen.values()}
    for candidate in found.candidates:
        mark = "*" if candidate.number in chosen else ""
        table.add_row(mark, *_cells(candidate))
    return table


def _cells(candidate: Candidate) -> list[str]:
    error = candidate.standard_error
    return [
        str(candidate.number),
        TITLES[candidate.strategy],
        str(candidate.configuration["backbone"]),
        f"{candidate.mean:.4f}",
        "?" if error == float("inf") else f"{error:.4f}",
        " ".join(f"{value:.4f}" for value in candidate.values),
    ]


def remarks(found: Confirmed) -> list[str]:
    """What may be said of the choice, a sentence each."""
    if not found.candidates:
        return ["No training over seeds is complete."]
    by = found.chooser.replace("_", " ")
    how = f"best mean {by}"
    if found.how == "cheapest":
        how = f"cheapest within one standard error of the difference in {by}"
    lines = [f"* chosen within its strategy ({how}); +- is the standard error of the mean."]
    missing = set(TITLES) - set(found.chosen)
    if missing:
        names = ", ".join(TITLES[name] for name in sorted(missing))
        lines.append(f"Nothing is confirmed of {names}.")
    return [*lines, *seed_remarks(found, TITLES)]


def comparison_lines(verdict: ConfirmSummary) -> list[str]:
    """The two choices against each other on validation images, and what that is worth."""
    found = verdict.comparison
    if found is not None:
        return [f"{found.sentence} The test images decide."]
    if verdict.confirmed.resplit and len(verdict.confirmed.chosen) == len(TITLES):
        return ["Each seed had validation images of its own: the test images will compare."]
    return []


def verdict_json(verdict: ConfirmSummary) -> dict[str, Any]:
    """`confirm --json`."""
    return {
        **verdict.confirmed.as_json(),
        "controls": control_rows(verdict.controls),
        "difference": None if verdict.comparison is None else verdict.comparison.as_json(),
        "alarms": alarms(verdict.learned, TITLES),
        "notes": call_notes(verdict.learned, TITLES),
    }


LEADERBOARD = 5
SEARCHED = ("learning rate", "batch size", "layers unfrozen")
TEXT_COLUMNS = ("state", "backbone", "strategy")


def print_summary(console: Console, summary: "RunSummary") -> None:
    """Everything a person wants to know at the end of `run`."""
    counts = count_states(summary.records)
    done = counts["complete"] + counts["pruned"] + counts["fail"]
    new = "nothing to add" if summary.num_new == 0 else f"{summary.num_new} new"
    console.print(
        f"\nStudy {summary.name}: {done} of {summary.study.trials} trials ({new}): "
        f"{counts['complete']} complete, {counts['pruned']} pruned, {counts['fail']} failed; "
        f"{summary.seconds:.0f} s.",
        markup=False,
    )
    if summary.note:
        console.print(summary.note, markup=False)
    for line in allowed_lines(summary.study.data_check):
        console.print(line, markup=False)
    console.print(leaderboard(summary.records, summary.metric))
    console.print(side_by_side(summary))
    if summary.verdict is not None:
        print_verdict(console, summary.verdict)
    for line in share_lines(share_of(summary.study.settings), summary.records):
        console.print(line, markup=False)
    saved = seconds_saved(summary.records, summary.study.settings["epochs"])
    if counts["pruned"]:
        console.print(
            f"Pruning saved up to {saved:.0f} s of training ({counts['pruned']} trials)."
        )
    for line in account(summary.study, summary.records).lines():
        console.print(line, markup=False)
    commands = next_commands(summary.name, summary.storage.shown_url, summary.options)
    console.print(commands, soft_wrap=True)


def leaderboard(records: Sequence[TrialRecord], metric: str) -> Table:
    """The best complete trials."""
    best = best_trials(records, metric)
    by = best[0].chosen_by if best else None
    title = f"Best trials by {(by or metric).replace('_', ' ')} on validation images"
    # Short, so that names of backbones and strategies fit into 80 columns.
    chosen_by = [] if by is None else ["cal.\nloss"]
    columns = ("trial", metric, *chosen_by, "backbone", "strategy", *SEARCHED[:2], "layers", "s")
    table = _table(title, *columns)
    for record in best[:LEADERBOARD]:
        params = record.params
        by_value = [] if by is None or record.best is None else [f"{record.best['val'][by]:.4f}"]
        table.add_row(
            str(record.number),
            f"{record.value:.4f}",
            *by_value,
            str(params["backbone"]),
            TITLES[str(record.strategy)],
            f"{params['learning_rate']:.2e}",
            str(params["batch_size"]),
            str(params["num_unfrozen_layers"]),
            f"{record.seconds or 0:.1f}"
            if (record.seconds or 0) < 1000
            else f"{record.seconds:.0f}",
        )
    return table


def side_by_side(summary: "RunSummary") -> RenderableType:
    """The best trial of each strategy, a column each, and what may be said of their difference."""
    strategies = compare(summary.records, summary.metric, summary.study.num_independent("val"))
    table = Table(title="The two strategies at their best", title_justify="left")
    table.add_column("")
    for strategy in strategies:
        table.add_column(TITLES[strategy], justify="right")
    subjects = summary.study.num_subjects("val")
    of = "" if subjects is None else f", {subjects} subjects"
    for label, values in _rows(list(strategies.values()), summary.metric, of):
        table.add_row(label, *values)
    return Group(table, Text(_remark(list(strategies.values()), summary)))


def _rows(
    strategies: Sequence[StrategySummary], metric: str, of: str
) -> list[tuple[str, list[str]]]:
    rows = {
        "validation accuracy": [f"{s.accuracy:.1%}" for s in strategies],
        f"  95 % interval (Wilson{of})": [
            f"{s.accuracy_interval[0]:.1%} to {s.accuracy_interval[1]:.1%}" for s in strategies
        ],
        "backbone": [str(s.best.params["backbone"]) for s in strategies],
        "trainable parameters": [f"{s.best.num_trainable_parameters:,}" for s in strategies],
        "seconds of this trial": [f"{s.best.seconds:.1f}" for s in strategies],
        "train - validation accuracy": [_gap(s.best) for s in strategies],
        "trials (pruned)": [f"{s.num_trials} ({s.num_pruned})" for s in strategies],
        "seconds of all trials": [f"{s.seconds:.0f}" for s in strategies],
    }
    if any(recipe(s.best) for s in strategies):
        rows["recipe"] = [recipe(s.best) or "plain" for s in strategies]
    if metric != "accuracy":
        rows = {f"validation {metric}": [f"{s.value:.4f}" for s in strategies], **rows}
    return list(rows.items())


def _gap(record: TrialRecord) -> str:
    gap = record.train_val_gap
    return "not measured" if gap is None else f"{100 * gap:+.1f} points"


def recipe(record: TrialRecord) -> str:
    """What else was searched for a trial and is not off, a line each; empty for plain training."""
    return "\n".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in record.params.items()
        if FIELDS[name].default is not None and not is_default(name, value)
    )


def _remark(strategies: Sequence[StrategySummary], summary: "RunSummary") -> str:
    if len(strategies) < 2:
        missing = set(TITLES) - {s.strategy for s in strategies}
        return f"No complete trial of {', '.join(TITLES[s] for s in sorted(missing))}."
    first, second = strategies
    points = 100 * (first.accuracy - second.accuracy)
    difference = (
        f"{TITLES[first.strategy]} has {points:+.1f} points of accuracy over "
        f"{TITLES[second.strategy]}"
        if points
        else "both strategies have the same accuracy"
    )
    return (
        f"On {_images(summary)}, {difference}. Both numbers are the best of "
        "many on the images they were chosen on, from one seed each: too good, and no verdict. "
        f"{summary.seal}"
    )


def _images(summary: "RunSummary") -> str:
    return images_words(summary.num_val, summary.study.num_subjects("val"), "validation images")


def next_commands(name: str, storage: str, given: StudyOptions | None = None) -> Text:
    """What to do next, as commands to copy, with the flags that must be ``given`` again."""
    options = _options(name, storage)
    again = "" if given is None else flags_again(given)
    no_confirm = "" if given is None or given.confirm else " --no-confirm"
    lines = (
        ("all trials", f"python -m studies status {shlex.quote(name)}{_storage(storage)}"),
        ("more trials", f"python -m studies run {options}{again}{no_confirm} --trials N"),
        ("more seeds", f"python -m studies confirm {options}{again} --seeds N"),
        ("in a browser", f"python -m studies dashboard{_storage(storage)}"),
    )
    return Text("Next:\n" + "\n".join(f"  {what:13} {command}" for what, command in lines))


def resume_command(name: str, given: StudyOptions, command: str = "run") -> str:
    """The command that goes on with a study that was stopped, with the flags of before."""
    no_confirm = "" if given.confirm or command != "run" else " --no-confirm"
    retry = " --retry-failed" if given.retry_failed and command == "run" else ""
    options = f"{_options(name, given.storage)}{flags_again(given)}{no_confirm}{retry}"
    return f"python -m studies {command} {options}"


def flags_again(given: StudyOptions) -> str:
    """Flags of `run` and `confirm` that are not stored with a study, as they were given.

    Code runs only where its file is named again; the rest is this machine's and may change.
    """
    values = {
        "--backbone-module": given.backbone_module,
        "--device": given.device,
        "--cache-dir": given.cache_dir,
        "--cache-limit": given.cache_limit,
    }
    return "".join(
        f" {flag} {shlex.quote(str(value))}" for flag, value in values.items() if value is not None
    )


def _options(name: str, storage: str) -> str:
    return f"--name {shlex.quote(name)}{_storage(storage)}"


def _storage(storage: str) -> str:
    return "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"


def summary_json(summary: "RunSummary") -> dict[str, Any]:
    """`run --json`: counts are of the search alone, interrupted trials and duplicates left out."""
    strategies = compare(summary.records, summary.metric, summary.study.num_independent("val"))
    best = best_trials(summary.records, summary.metric)
    return {
        "study": summary.name,
        "storage": summary.storage.shown_url,
        "metric": summary.metric,
        "choose_by": summary.study.settings.get("choose_by", "metric"),
        "trials": count_states(summary.records),
        "share": share_json(share_of(summary.study.settings), summary.records),
        "best": _short(best[0]) if best else None,
        "best_by_strategy": {
            strategy: _short(strategies[strategy].best) if strategy in strategies else None
            for strategy in TITLES
        },
        "seconds": summary.seconds,
        "accounting": account(summary.study, summary.records).as_json(),
        "data_check": summary.study.data_check,
        "confirmed": None if summary.verdict is None else verdict_json(summary.verdict),
    }


def _short(record: TrialRecord) -> dict[str, Any]:
    return {"number": record.number, "value": record.value, "params": record.params}


def trial_json(record: TrialRecord) -> dict[str, Any]:
    """One trial of `status --json`."""
    return {
        "number": record.number,
        "state": record.state,
        "counts": record.counts,
        "value": record.value,
        "params": record.params,
        "seconds": record.seconds,
        "timing": record.timing,
        "peak_memory_bytes": record.peak_memory_bytes,
        "cache": record.cache,
        "reason": record.reason,
    }


def _table(title: str | None, *columns: str) -> Table:
    """A table that fits into 80 columns: headings stand in two lines, long names are folded."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    widths = {"strategy": len("fine-tuning")}
    if "state" in columns:
        widths["backbone"] = len("mobilenet_v2")
    for column in columns:
        table.add_column(
            column.replace(" ", "\n").replace("_", "\n"),
            justify="left" if column in TEXT_COLUMNS else "right",
            no_wrap=column not in ("backbone", "strategy"),
            overflow="fold",
            max_width=widths.get(column),
        )
    return table


def trials_table(records: Sequence[TrialRecord], metric: str) -> RenderableType:
    """All trials of a study, and below them why trials failed or were pruned."""
    columns = ("trial", "state", metric, "backbone", "strategy", *SEARCHED, "seconds")
    table = _table(None, *columns)
    for record in records:
        table.add_row(*_trial_cells(record))
    remarks = {record.number: _remark_on(record) for record in records}
    return Group(table, *(Text(f"trial {n}: {text}") for n, text in remarks.items() if text))


def _remark_on(record: TrialRecord) -> str | None:
    if record.duplicate_of is not None:
        return f"same as trial {record.duplicate_of}"
    void = "does not count" if record.void else None
    texts = (record.reason, void, _remark_on_memory(record))
    remarks = [text for text in texts if text is not None]
    return "; ".join(remarks) or None


def _remark_on_memory(record: TrialRecord) -> str | None:
    """How a batch was split, and what that changes: sums of gradients are as before."""
    size = record.micro_batch_size
    if size is None or size >= record.config.get("batch_size", 0):
        return None
    images = f"BatchNorm saw {size} images at a time"
    text = f"in micro-batches of {size}: out of memory"
    return f"{text}; {images}" if record.batch_norm_trains else text


def _trial_cells(record: TrialRecord) -> list[str]:
    params: Mapping[str, Any] = record.params
    rate = params.get("learning_rate")
    return [
        str(record.number),
        record.state.lower(),
        "" if record.value is None else f"{record.value:.4f}",
        str(params.get("backbone", "")),
        TITLES.get(str(record.strategy), ""),
        "" if rate is None else f"{rate:.2e}",
        str(params.get("batch_size", "")),
        str(params.get("num_unfrozen_layers", "")),
        "" if record.seconds is None else f"{record.seconds:.1f}",
    ]
