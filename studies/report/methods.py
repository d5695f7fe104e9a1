"""A methods paragraph with all numbers filled in, ready for a paper. Knows evidence and words."""

from collections.abc import Mapping
from typing import Any

from studies.records import count_states
from studies.report.evidence import Evidence
from studies.report.numbers import NAMES, interval_text, listed

CITATIONS = {
    "tpe": "Bergstra et al. 2011, Algorithms for hyper-parameter optimization",
    "wilson": "Wilson 1927, Probable inference, the law of succession, and statistical inference",
    "forecast": "Tsamardinos et al. 2018, Bootstrapping the out-of-sample predictions for "
    "efficient and accurate cross-validation",
    "seeds": "Owen 2007, The pigeonhole bootstrap",
}


def methods_paragraph(evidence: Evidence) -> str:
    """The paragraph, its citations numbered in their order behind it."""
    sentences = [
        _data(evidence),
        *_search(evidence),
        *_confirm(evidence),
        *_forecast(evidence),
        *_test(evidence),
        "Intervals are of 95 %: Wilson's score interval [wilson] for proportions, over images and "
        "seeds [seeds] for means and differences.",
    ]
    text = " ".join(sentences)
    used = [key for key in CITATIONS if f"[{key}]" in text]
    order = sorted(used, key=lambda key: text.index(f"[{key}]"))
    for number, key in enumerate(order, start=1):
        text = text.replace(f"[{key}]", f"[{number}]")
    cited = [f"[{number}] {CITATIONS[key]}" for number, key in enumerate(order, start=1)]
    return f"{text} {'; '.join(cited)}."


def _data(evidence: Evidence) -> str:
    settings = evidence.study.settings
    counts = [evidence.num_images(split) for split in ("train", "val", "test")]
    size = settings["image_size"]
    weights = (
        "pretrained on ImageNet" if settings["weights"] == "imagenet" else "of random weights"
    )
    return (
        f"Backbones {weights} ({listed(evidence.backbones)}) were transferred to "
        f"{len(evidence.classes)} classes ({listed(evidence.classes)}) with {counts[0]:,} "
        f"training, {counts[1]:,} validation and {counts[2]:,} test images at {size} x {size} "
        "pixels."
    )


def _search(evidence: Evidence) -> list[str]:
    settings, space = evidence.study.settings, evidence.study.identity["space"]
    counts = count_states(evidence.trials)
    total = counts["complete"] + counts["pruned"] + counts["fail"]
    by_tpe = settings["sampler"] == "tpe"
    how = "a tree-structured Parzen estimator [tpe]" if by_tpe else "random draws"
    sentences = [
        f'{total} configurations of search space "{space["name"]}" ({_searched(space)}) were '
        f"tried by {how}, at most {settings['epochs']} epochs each with a patience of "
        f"{settings['patience']}, with seed {settings['seed']}, by validation {evidence.metric}."
    ]
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
        of = f" of {NAMES[parameter['strategy']]}" if parameter["strategy"] else ""
        if parameter["choices"] is not None:
            values = ", ".join(map(str, parameter["choices"]))
        else:
            high = "all" if parameter["high"] is None else f"{parameter['high']:g}"
            values = f"{parameter['low']:g} to {high}{', logarithmic' if parameter['log'] else ''}"
        parts.append(f"{name}{of}: {values}")
    return "; ".join(parts)


def _confirm(evidence: Evidence) -> list[str]:
    found = evidence.confirmed
    if found is None or not found.candidates:
        return []
    seeds = ", ".join(map(str, found.seeds))
    split = ", each with a validation split of its own," if found.resplit else ""
    how = (
        "the best mean"
        if found.how == "best"
        else "the lowest cost within one standard error of the best mean"
    )
    return [
        f"The best configurations of each strategy ({len(found.candidates)} in all) were trained "
        f"again with {len(found.seeds)} other seeds ({seeds}){split} and of each strategy the one "
        f"with {how} was chosen."
    ]


def _forecast(evidence: Evidence) -> list[str]:
    if not evidence.forecasts:
        return []
    told = "; ".join(
        f"{NAMES[name]} {interval_text(evidence.metric, found)}"
        for name, found in evidence.forecasts.items()
    )
    return [
        f"Their {evidence.metric} on the test images was forecast from the validation images, "
        f"corrected for the choice of epoch and configuration [forecast]: {told}."
    ]


def _test(evidence: Evidence) -> list[str]:
    if not evidence.openings:
        return ["The test images took no part in any choice and are sealed."]
    times = "once" if len(evidence.openings) == 1 else f"{len(evidence.openings)} times"
    return [f"The test images took no part in the search and were opened {times}."]
