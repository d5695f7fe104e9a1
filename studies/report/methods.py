"""A methods paragraph with all numbers filled in, ready for a paper. Knows evidence and words."""

from collections.abc import Mapping
from typing import Any

from studies.database.trials import count_states
from studies.document.numbers import interval_text, listed
from studies.results.study import Evidence
from studies.statistics.metrics import METRICS
from transfer.config import TITLES
from transfer.data.decoding import RESIZED

CITATIONS = {
    "tpe": "Bergstra et al. 2011, Algorithms for hyper-parameter optimization",
    "wilson": "Wilson 1927, Probable inference, the law of succession, and statistical inference",
    "bootstrap": "McCarthy and Snowden 1985, The bootstrap and finite population sampling",
    "effective": "Korn and Graubard 1998, Confidence intervals for proportions with small "
    "expected number of positive counts",
    "forecast": "Tsamardinos et al. 2018, Bootstrapping the out-of-sample predictions for "
    "efficient and accurate cross-validation",
    "satterthwaite": "Satterthwaite 1946, An approximate distribution of estimates of variance "
    "components",
    "bonett": "Bonett and Price 2012, Adjusted Wald confidence interval for a difference of "
    "binomial proportions based on paired data",
    "schuirmann": "Schuirmann 1987, A comparison of the two one-sided tests procedure and the "
    "power approach for assessing the equivalence of average bioavailability",
    "piaggio": "Piaggio et al. 2012, Reporting of noninferiority and equivalence randomized "
    "trials",
    "clusters": "Rao, Scott 1992, A simple method for the analysis of clustered binary data",
}
MIRRORED = {
    "none": "none of them mirrored",
    "horizontal": "half of them mirrored",
    "both": "half of them mirrored and half of them turned upside down",
}


def methods_paragraph(evidence: Evidence) -> str:
    """The paragraph, its citations numbered in their order behind it."""
    sentences = [
        _data(evidence),
        *_search(evidence),
        *_confirm(evidence),
        *_forecast(evidence),
        *_test(evidence),
        *_intervals(evidence),
    ]
    text = " ".join(sentences)
    used = [key for key in CITATIONS if f"[{key}]" in text]
    order = sorted(used, key=lambda key: text.index(f"[{key}]"))
    for number, key in enumerate(order, start=1):
        text = text.replace(f"[{key}]", f"[{number}]")
    cited = [f"[{number}] {CITATIONS[key]}" for number, key in enumerate(order, start=1)]
    return f"{text} {'; '.join(cited)}."


def _intervals(evidence: Evidence) -> list[str]:
    """How intervals come about and what the verdict makes of them."""
    found = evidence.confirmed
    sentences = [
        "Intervals are of 95 %: Wilson's score interval [wilson] for shares of images; for other "
        "metrics of one model the variance of a bootstrap within classes [bootstrap], told by "
        "Wilson's interval for the number of images that would give it [effective], of a loss by "
        "the normal interval of its logarithm."
    ]
    if found is None or not found.candidates:
        return sentences
    sentences.append(
        "In means over seeds the variances of images and of seeds, two crossed random factors, "
        "add up, with Student's t and Satterthwaite's degrees of freedom [satterthwaite]. The two "
        "strategies were compared on the same images, their difference with two images more on "
        "each of which one alone is right [bonett], for further seeds on further images but the "
        "same training images."
    )
    if found.margin is not None:
        bounded = METRICS[evidence.metric].bounded
        margin = f"{100 * found.margin:g} points" if bounded else f"{found.margin:g} nats"
        sentences.append(
            f"A difference of {margin} was declared beforehand to be the smallest that would "
            "matter: 'as good as' is an interval that excludes it in both directions "
            "[schuirmann], 'not worse' one that excludes a loss of that size [piaggio]."
        )
    return sentences


def _data(evidence: Evidence) -> str:
    settings = evidence.study.settings
    counts = [evidence.num_images(split) for split in ("train", "val", "test")]
    size = settings["image_size"]
    weights = (
        "pretrained on ImageNet" if settings["weights"] == "imagenet" else "of random weights"
    )
    subjects = evidence.subjects
    if subjects is None:
        whose = "Whose images they are was not given: intervals take them as independent."
    else:
        whose = (
            f"They are of {subjects['train']:,}, {subjects['val']:,} and {subjects['test']:,} "
            "subjects, and intervals are of whole subjects drawn anew, not of images [clusters]."
        )
    return (
        f"Backbones {weights} ({listed(evidence.backbones)}) were transferred to "
        f"{len(evidence.classes)} classes ({listed(evidence.classes)}) with {counts[0]:,} "
        f"training, {counts[1]:,} validation and {counts[2]:,} test images at {size} x {size} "
        f"pixels ({RESIZED[settings['resize']]}){_views(evidence)}. {whose}"
    )


def _views(evidence: Evidence) -> str:
    settings, space = evidence.study.settings, evidence.study.identity["space"]
    is_searched = any(parameter["name"] == "num_views" for parameter in space["parameters"])
    if settings["num_views"] == 1 and not is_searched:
        return ""
    how_many = "several" if is_searched else str(settings["num_views"])
    return f", training images in {how_many} variants, {MIRRORED[settings['flip']]}"


def _search(evidence: Evidence) -> list[str]:
    settings, space = evidence.study.settings, evidence.study.identity["space"]
    counts = count_states(evidence.trials)
    total = counts["complete"] + counts["pruned"] + counts["fail"]
    by_tpe = settings["sampler"] == "tpe"
    how = "a tree-structured Parzen estimator [tpe]" if by_tpe else "random draws"
    sentences = [
        f'{total} configurations of search space "{space["name"]}" ({_searched(space)}) were '
        f"tried by {how}, at most {settings['epochs']} epochs each with a patience of "
        f"{settings['patience']}, with seed {settings['seed']}, by {evidence.chooser} on "
        "validation images, which chose epochs as well."
    ]
    if "share" in settings and len(evidence.strategies) > 1:
        sentences.append(
            "Each strategy was searched on its own, with an equal share of the "
            f"{settings['share']}."
        )
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
        of = f" of {TITLES[parameter['strategy']]}" if parameter["strategy"] else ""
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
        else "the lowest cost, of those behind the best by at most one standard error of the "
        "paired difference,"
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
        f"{TITLES[name]} {interval_text(evidence.metric, found)}"
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
