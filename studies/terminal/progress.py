"""What a person sees while a study runs: a live screen in a terminal, else a line a trial.

Everything goes to stderr, so that stdout is free for the result. Knows records; stores nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search_spaces.fields import is_default
from studies.results import TrialRecord, best_trials, count_states
from studies.watchers import EpochSeen, Progress


def describe(fields: Mapping[str, Any]) -> str:
    """A configuration in one short line; what is as it always is goes without saying."""
    rest = {
        name: value
        for name, value in fields.items()
        if name not in ("backbone", "strategy") and not is_default(name, value)
    }
    values = ", ".join(
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rest.items()
    )
    return f"{fields.get('backbone')} {fields.get('strategy')}, {values}"


def _outcome(record: TrialRecord, metric: str) -> str:
    value = "" if record.value is None else f" {metric} {record.value:.4f}"
    seconds = "" if record.seconds is None else f" in {record.seconds:.1f} s"
    if record.duplicate_of is not None:
        return f"same as trial {record.duplicate_of}{value}"
    reason = "" if record.reason is None else f" ({record.reason})"
    return f"{record.state.lower()}{reason}{value}{seconds}"


class LineProgress:
    """A line a trial on stderr, for logs and pipes."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._metric, self._n_trials, self._last_line = "", 0, perf_counter()

    def message(self, text: str) -> None:
        self._console.print(text, markup=False)

    def work(self, what: str, done: int, total: int) -> None:
        # Long work gets a line every few seconds; short work none.
        if perf_counter() - self._last_line > 5:
            self._last_line = perf_counter()
            self.message(f"{what}: {done} of {total}")

    def study(self, name: str, metric: str, n_trials: int, records: Sequence[TrialRecord]) -> None:
        self._metric, self._n_trials = metric, n_trials

    def trial_started(self, number: int, fields: Mapping[str, Any]) -> None:
        self._last_line = perf_counter()

    def epoch(self, record: EpochSeen) -> None:
        if perf_counter() - self._last_line > 20:
            self._last_line = perf_counter()
            self.message(f"  epoch {record.epoch}: {self._metric} {record.val[self._metric]:.4f}")

    def trial_finished(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        counts = count_states(records)
        done = counts["complete"] + counts["pruned"] + counts["fail"]
        self.message(
            f"[{done}/{self._n_trials}] trial {record.number}: {describe(record.params)}: "
            f"{_outcome(record, self._metric)}"
        )


class LiveProgress:
    """A live screen: counts, time left, the running trial, the best of each strategy."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._name, self._metric, self._n_trials = "", "", 0
        self._records: Sequence[TrialRecord] = ()
        self._working = ""
        self._running: tuple[int, str] | None = None
        self._epochs: list[EpochSeen] = []
        self._started = perf_counter()
        # Last: it renders the screen at once.
        self._live = Live(console=self._console, get_renderable=self._screen, transient=True)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def message(self, text: str) -> None:
        self._console.print(text, markup=False)

    def work(self, what: str, done: int, total: int) -> None:
        self._working = f"{what}: {done} of {total}" if done < total else ""

    def study(self, name: str, metric: str, n_trials: int, records: Sequence[TrialRecord]) -> None:
        self._name, self._metric, self._n_trials = name, metric, n_trials
        self._records, self._started = records, perf_counter()

    def trial_started(self, number: int, fields: Mapping[str, Any]) -> None:
        self._running, self._epochs = (number, describe(fields)), []

    def epoch(self, record: EpochSeen) -> None:
        self._epochs = [*self._epochs, record]

    def trial_finished(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        self._running, self._records = None, records
        self.message(
            f"trial {record.number}: {describe(record.params)}: {_outcome(record, self._metric)}"
        )

    def _screen(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._n_trials:
            parts += [Text(self._headline(), style="bold"), *self._best_lines()]
        if self._running is not None:
            number, configuration = self._running
            parts.append(Text(f"running {number}: {configuration}"))
            if self._epochs:
                parts.append(self._epoch_table())
        if self._working:
            parts.append(Text(self._working))
        return Group(*parts)

    def _headline(self) -> str:
        counts = count_states(self._records)
        done = counts["complete"] + counts["pruned"] + counts["fail"]
        spent = [r.seconds for r in self._records if r.counts and r.seconds is not None]
        left = sum(spent) / len(spent) * max(0, self._n_trials - done) if spent else None
        return (
            f"{self._name}: {done} of {self._n_trials} trials "
            f"({counts['pruned']} pruned, {counts['fail']} failed), "
            f"{_minutes(perf_counter() - self._started)} gone, "
            f"about {_minutes(left) if left is not None else '?'} left"
        )

    def _best_lines(self) -> list[Text]:
        best: dict[str, TrialRecord] = {}
        for record in best_trials(self._records, self._metric):
            best.setdefault(str(record.strategy), record)
        return [Text(self._best_line(record)) for _, record in sorted(best.items())]

    def _best_line(self, record: TrialRecord) -> str:
        what = f"{self._metric} {record.value:.4f}, trial {record.number}"
        return f"best {record.strategy}: {what}, {describe(record.params)}"

    def _epoch_table(self) -> Table:
        table = Table(box=None, padding=(0, 2))
        metrics = ("loss", *dict.fromkeys((self._metric, "accuracy", "auroc")))
        for title in ("epoch", "train loss", *(f"val {m}" for m in dict.fromkeys(metrics))):
            table.add_column(title, justify="right")
        for record in self._epochs[-5:]:
            values = [f"{record.val[m]:.4f}" for m in dict.fromkeys(metrics)]
            table.add_row(str(record.epoch), f"{record.train['loss']:.4f}", *values)
        return table


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d} min"


def start_progress() -> AbstractContextManager[Progress]:
    """The screen where stderr is a terminal, lines elsewhere; to be entered."""
    return LiveProgress() if sys.stderr.isatty() else nullcontext(LineProgress())
