"""Failures that say nothing of a configuration: a device that is gone, a disk that is full.

Knows records and the reasons stored with them; nothing of torch or Optuna.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.database.trials import TrialRecord

# So many equal failures of a strategy in a row are a fault of what the trials run on.
IN_A_ROW = 3
WAY_OUT = (
    "Such failures don't count to the total. Mend the cause, then give the same command with "
    "--retry-failed: it runs these configurations again."
)
# A configuration's own failure: the next one may do better.
DIVERGED = "diverged"

# After one of these every further call to the device fails, until the process ends.
_DEVICE = re.compile(r"(CUDA|HIP) error: |device-side assert|illegal memory access")
# A library that gets no memory for its workspace says so by one of the last two.
_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|NOT_INITIALIZED", re.IGNORECASE)
# What may differ between two failures for one reason: numbers, addresses, names of files.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\d+")


def kills_device(reason: str) -> bool:
    """Whether the error leaves a device behind that no further trial of this process can use."""
    return _DEVICE.search(reason) is not None and _MEMORY.search(reason) is None


def is_own_failure(record: "TrialRecord") -> bool:
    """Whether a trial failed by its configuration: to run it again would end in the same way."""
    return record.state == "FAIL" and (record.reason or "").startswith(DIVERGED)


def to_retry(records: Sequence["TrialRecord"]) -> list["TrialRecord"]:
    """The failed trials of a search whose configurations may be run again, earliest first.

    Each keeps its logical number. Those that diverged would do so again.
    """
    return [
        r
        for r in _failed(records)
        if r.logical_number is not None
        and not is_own_failure(r)
        and not any(_runs_again(later, r) for later in records)
    ]


def void_numbers(records: Sequence["TrialRecord"]) -> set[int]:
    """Numbers of the failed trials of a search that don't count to its total.

    Those that were run again; those that killed their device; rows of equal failures of a
    strategy, with the other strategy's in between that failed in the same way.
    """
    failed = _failed(records)
    if not failed:
        return set()
    void = {r.number for r in failed if any(_runs_again(later, r) for later in records)}
    void |= {r.number for r in failed if r.reason and kills_device(r.reason)}
    for row in _rows(records):
        if len(row) >= IN_A_ROW:
            first, last, fault = row[0].number, row[-1].number, _fault(row[0])
            void |= {r.number for r in failed if first <= r.number <= last and _fault(r) == fault}
    return void


def why_stop(record: "TrialRecord", records: Sequence["TrialRecord"]) -> str | None:
    """Why no further trial should be begun after ``record``, in a sentence; None to go on.

    Every third failure of a row ends a run: so one that was stopped has three attempts again.
    """
    fault = _fault(record)
    if fault is None:
        return None
    reason = str(record.reason)
    if kills_device(reason):
        return f"Trial {record.number} left the device unusable ({_short(reason)})."
    row = next(row for row in _rows(records) if any(r.number == record.number for r in row))
    place = 1 + [r.number for r in row].index(record.number)
    if place % IN_A_ROW:
        return None
    strategy = "fine-tuning" if record.strategy == "fine_tuning" else "feature extraction"
    return f"{place} trials of {strategy} in a row failed for one reason ({_short(reason)})."


def why_stop_repeats(done: "TrialRecord") -> str | None:
    """Why no further training over seeds should be begun, in a sentence; None to go on.

    Seeds of one configuration that fail alike are no reason: the next configuration may do better.
    """
    if done.state != "FAIL" or done.reason is None or not kills_device(done.reason):
        return None
    return f"Trial {done.number} left the device unusable ({_short(done.reason)})."


def _short(reason: str) -> str:
    return reason if len(reason) <= 160 else f"{reason[:160]} ..."


def _fault(record: "TrialRecord") -> str | None:
    """What makes failures equal; None of a trial that did not fail, or by its own fault."""
    if not _failed([record]) or record.reason is None or is_own_failure(record):
        return None
    return _PARTICULARS.sub("#", record.reason)


def _failed(records: Iterable["TrialRecord"]) -> list["TrialRecord"]:
    """The failed trials of a search, interrupted ones and duplicates left out."""
    return [
        r
        for r in records
        if r.state == "FAIL" and r.is_of_search and not r.is_interrupted and r.duplicate_of is None
    ]


def _rows(records: Iterable["TrialRecord"]) -> list[list["TrialRecord"]]:
    """Failures of a strategy that are equal and follow each other."""
    rows = []
    ended = [
        r
        for r in records
        if r.state in ("COMPLETE", "PRUNED", "FAIL")
        and not r.is_interrupted
        and r.duplicate_of is None
    ]
    for strategy in {r.strategy for r in ended}:
        mine = sorted((r for r in ended if r.strategy == strategy), key=lambda r: r.number)
        rows += [list(row) for fault, row in groupby(mine, key=_fault) if fault is not None]
    return rows


def _runs_again(later: "TrialRecord", failed: "TrialRecord") -> bool:
    return (
        later.number > failed.number
        and later.logical_number == failed.logical_number is not None
        and later.keyed_params == failed.keyed_params
        and not later.is_interrupted
    )
