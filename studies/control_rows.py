"""Controls as rows of a table, and the alarm where a strategy has learned nothing.

Knows stored trials of ``NAME/controls`` and confirmed candidates. Never imports torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.confirm import Confirmed
from studies.records import CANDIDATE, TrialRecord
from studies.statistics import wilson_interval

# The study beside the search that has them.
CONTROLS_STUDY = "controls"
NONE = "none"
# Of what is stored of a control; a recipe has the names of its configuration beside these.
KEYS = ("control", "features_of", "features_by")
RECIPE = "default_recipe"


def control_rows(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The controls as rows: what, backbone, weights, validation metrics; recipes by their mean."""
    rows: list[dict[str, Any]] = []
    complete = [r for r in records if r.state == "COMPLETE" and r.best is not None]
    rows += [
        {**control_names(record), "val": _metrics([record])}
        for record in complete
        if KEYS[0] in record.keyed_params
    ]
    by_recipe: dict[int, list[TrialRecord]] = {}
    for record in complete:
        if CANDIDATE in record.keyed_params:
            by_recipe.setdefault(int(record.keyed_params[CANDIDATE]), []).append(record)
    rows += [{**control_names(runs[0]), "val": _metrics(runs)} for runs in by_recipe.values()]
    return rows


def control_names(record: TrialRecord) -> dict[str, str | None]:
    """What a control is: its name, the backbone, the weights; None where it has none."""
    params = record.keyed_params
    if KEYS[0] not in params:
        names = (f"{RECIPE} ({record.strategy})", params["backbone"], "as searched")
    else:
        names = tuple(params[key] for key in KEYS)
    pairs = zip(("control", "backbone", "weights"), names, strict=True)
    return {key: None if name == NONE else str(name) for key, name in pairs}


def _metrics(runs: Sequence[TrialRecord]) -> dict[str, float]:
    best = [run.best["val"] for run in runs if run.best is not None]
    return {name: float(np.mean([values[name] for values in best])) for name in best[0]}


def alarms(
    confirmed: Confirmed, counts: Mapping[str, Mapping[str, int]], strategies: Mapping[str, str]
) -> list[str]:
    """A sentence for each strategy that stands at the rate of the majority class.

    That is: the Wilson interval of its mean validation accuracy holds that rate, or lies below.
    """
    val, train = counts["val"], counts["train"]
    num_val = sum(val.values())
    rate = val[max(train, key=lambda name: train[name])] / num_val
    lines = []
    for strategy, candidate in confirmed.chosen.items():
        mean = float(np.mean([run.best["val"]["accuracy"] for run in candidate.runs if run.best]))
        low, _ = wilson_interval(round(mean * num_val), num_val)
        if low <= rate:
            lines.append(
                f"Alarm: {strategies[strategy]} stands at the rate of the majority class "
                f"({mean:.1%} against {rate:.1%} of {num_val} validation images): nothing shows "
                "that it has learned anything."
            )
    return lines
