"""The note on a trial's page: what was trained, what came out, why it was pruned or failed.

Knows one stored trial, no storage. Never imports torch.
"""

import math
from collections.abc import Mapping
from typing import Any

from search_spaces.fields import is_default
from studies.database.trials import CANDIDATE, INTERRUPTED, SEED, TrialRecord
from studies.document.markdown import escaped
from studies.document.numbers import bytes_text, is_share, metric_text, seconds_text
from studies.results.controls import KEYS, NONE
from studies.statistics.intervals import wilson_interval
from transfer.config import TITLES

# Said in a sentence of its own, or part of how a trial was made rather than of what it trains.
SAID_ELSEWHERE = ("backbone", "strategy", "num_unfrozen_layers", CANDIDATE, SEED, *KEYS)
CONTROL_WORDS: Mapping[str, str] = {
    "majority": "The most frequent class of the training images for every image",
    "knn": "Nearest neighbours",
    "logistic_regression": "Logistic regression",
}
OUT_OF_MEMORY = "out of memory"
SHORTEST_SECONDS = 0.05  # Less would be shown as none.


def trial_note(
    record: TrialRecord,
    *,
    metric: str,
    num_val: int,
    depths: Mapping[str, int],
    purpose: str = "",
    subjects: int | None = None,
) -> str:
    """The note in Markdown.

    Args:
        metric: by which the study chooses.
        num_val: validation images.
        depths: layers of each backbone.
        purpose: "confirm" or "controls", of trials beside the search.
        subjects: of how many the validation images are; None where nobody knows.
    """
    parts = [_trained(record, depths, purpose)]
    if record.duplicate_of is not None:
        parts.append(
            f"This configuration is that of trial {record.duplicate_of}: it was told its state "
            "and value, not trained again, and is not counted."
        )
        return "\n\n".join(parts)
    parts += [*_outcome(record), *_reached(record, metric, num_val, subjects), *_spent(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _trained(record: TrialRecord, depths: Mapping[str, int], purpose: str) -> str:
    params = record.params
    if KEYS[0] in params:
        return _control(params)
    if "strategy" not in params:
        return "It ended before it had a configuration."
    backbone, strategy = str(params.get("backbone")), str(params.get("strategy"))
    layers, depth = params.get("num_unfrozen_layers"), depths.get(backbone)
    if strategy == "feature_extraction":
        what = "all layers frozen, a linear head trained on their features"
    elif depth is not None and layers == depth:
        what = f"all {depth} layers and the head trained"
    else:
        last = "last layer" if layers == 1 else f"last {layers} layers"
        of = "" if depth is None else f" of {depth}"
        what = f"the {last}{of} and the head trained"
    if record.num_trainable_parameters is not None:
        what += f" ({record.num_trainable_parameters:,} parameters)"
    values = [
        f"{name.replace('_', ' ')} {_number(value)}"
        for name, value in params.items()
        if name not in SAID_ELSEWHERE and not is_default(name, value)
    ]
    seed = params.get(SEED, record.config.get("seed"))
    values += [] if seed is None else [f"seed {seed}"]
    title = f"**{TITLES.get(strategy, strategy).capitalize()}** of {escaped(backbone)}"
    return f"{title}: {what}; {escaped(', '.join(values))}.{_why(params, purpose)}"


def _why(params: Mapping[str, Any], purpose: str) -> str:
    if purpose == "confirm":
        return f" The configuration of trial {params[CANDIDATE]} of the search, with another seed."
    if purpose == "controls":
        return " The default recipe, without a search."
    return ""


def _control(params: Mapping[str, Any]) -> str:
    name, backbone, weights = (str(params[key]) for key in KEYS)
    words = CONTROL_WORDS.get(name, name)
    if backbone == NONE:
        return f"**Control.** {escaped(words)}."
    kind = "random" if weights == "random" else f"{weights} (pretrained)"
    return (
        f"**Control.** {escaped(words)} on frozen features of {escaped(backbone)}, weights "
        f"{escaped(kind)}."
    )


def _outcome(record: TrialRecord) -> list[str]:
    """What became of a trial that is not complete."""
    # What was stored before a loss could be meant as well.
    reason = (record.reason or "nobody knows why").replace("below the", "worse than the")
    reason = reason.rstrip(".")
    if record.state == "PRUNED":
        epochs = len(record.history)
        return [
            f"**Pruned** after epoch {epochs}: {escaped(reason)} of the trials of its strategy. "
            "It starts worse than they did; what it would have reached nobody knows."
        ]
    if record.state != "FAIL":
        return []
    if reason == INTERRUPTED:
        return [
            "**Interrupted**: its process was stopped or died. It is not counted; another trial "
            "takes its place."
        ]
    if record.void:
        return [
            f"**Failed**: {escaped(reason)}. It is not counted: other trials failed in the same "
            "way, the device was lost, or the configuration was run again."
        ]
    hint = " Smaller batches or images need less." if reason == OUT_OF_MEMORY else ""
    return [f"**Failed**: {escaped(reason)}.{hint} It is counted, and the study goes on."]


def _reached(record: TrialRecord, metric: str, num_val: int, subjects: int | None) -> list[str]:
    best = record.best
    if best is None or not math.isfinite(best["val"][metric]):
        return []
    value = best["val"][metric]
    interval, of = "", "" if subjects is None else f" of {subjects:,} subjects"
    if metric == "accuracy" and num_val:
        worth = subjects or num_val  # The fewest independent images that they may be.
        low, high = wilson_interval(round(value * worth), worth)
        interval = f" [{100 * low:.1f}, {100 * high:.1f}]"
    text = (
        f"Validation {metric.replace('_', ' ')} **{metric_text(metric, value)}**{interval} "
        f"({num_val:,} images{of}{', 95 % interval' if interval else ''})"
    )
    train = record.train_metrics
    if len(record.history) == 1:
        on_training = "" if train is None else f"; training {metric_text(metric, train[metric])}"
        return [f"{text}{on_training}."]
    by = (record.chosen_by or metric).replace("_", " ")
    text += f" at epoch {record.best_epoch}, the best of {len(record.history)} by {by}."
    return [f"{text} {_gap(train, best['val'], metric)}"]


def _gap(
    on_training: Mapping[str, float] | None, on_validation: Mapping[str, float], metric: str
) -> str:
    if on_training is None:
        return "On training images it was not measured."
    train, val = on_training[metric], on_validation[metric]
    gap = f"{100 * (train - val):+.1f} points" if is_share(metric) else f"{train - val:+.3f}"
    return f"On training images {metric_text(metric, train)} (gap {gap})."


def _spent(record: TrialRecord) -> list[str]:
    if record.seconds is None:
        return []
    shares = [
        f"{work} {seconds_text(record.timing[work])}"
        for work in ("activations", "training", "validation")
        if record.timing.get(work, 0.0) >= SHORTEST_SECONDS
    ]
    text = f"Took {seconds_text(record.seconds)}"
    text += f" ({', '.join(shares)})" if shares else ""
    if record.num_trainable_parameters is not None:
        peak = record.peak_memory_bytes
        text += f"; peak memory {'unknown' if peak is None else bytes_text(peak)}"
    return [f"{text}.{_reused(record)}{_micro_batches(record)}"]


def _reused(record: TrialRecord) -> str:
    if record.cache.get("was_at_hand") and record.cache.get("bytes"):
        return " Outputs of the frozen layers were at hand."
    return ""


def _micro_batches(record: TrialRecord) -> str:
    size, batch = record.micro_batch_size, record.params.get("batch_size")
    if size is None or batch is None or size >= batch:
        return ""
    return f" Memory was short: {size} images at a time, their gradients added up."


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
