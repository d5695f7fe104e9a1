"""``MODEL_CARD.md``: what a bundle's model is, in words. A function of its config alone.

Source of the headings: M. Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Mapping, Sequence

from studies.bundle.config import MODEL, ONNX, BundleConfig
from studies.database.ledger import Opening
from studies.document.markdown import escaped
from studies.results.evaluation import (
    PRECISION_NOTE,
    forecast_result,
    forecast_sentence,
    images_text,
    interval_text,
    opening_lines,
    shown_metrics,
    verdict_lines,
)
from studies.statistics.intervals import mean_interval
from transfer.config import Strategy
from transfer.data.decoding import RESIZED

TEST_HEADING = "## Test"
NOT_TESTED = "Not evaluated on the test data: when this card was written they were sealed."

STRATEGIES = {
    Strategy.FEATURE_EXTRACTION: "feature extraction: the pretrained layers are as they were",
    Strategy.FINE_TUNING: "fine-tuning: the last {k} layers were trained as well",
}

PROPORTIONS = {
    "squeeze": "Whole pictures are squeezed to a square: other proportions than those of the "
    "training images are distorted otherwise.",
    "pad": "Pictures keep their proportions between bars of one grey value or colour; how wide "
    "these are is something that the model can see.",
    "crop": "Of a picture that is no square the model sees the square in the middle, and nothing "
    "outside it.",
}


def model_card(bundle: BundleConfig, test: Sequence[str] = ()) -> str:
    """The card.

    Args:
        test: what the test data gave, a paragraph each in Markdown; nothing says that they were
            not used yet.
    """
    sections = {
        "Intended use": _intended_use(bundle),
        "Model": _model(bundle),
        "Data": _data(bundle),
        "How it was chosen": _protocol(bundle, sealed=not test),
        "Validation": _validation(bundle),
        "Test": list(test) or [NOT_TESTED],
        "Limits": _limits(bundle),
        "Train it again": [
            "`bash reproduce.sh` trains this configuration with this seed again and compares the "
            "validation metric."
        ],
    }
    title = f"# {escaped(bundle.backbone)} for {escaped(', '.join(bundle.classes))}"
    body = "\n\n".join(
        f"## {heading}\n\n" + "\n\n".join(paragraphs) for heading, paragraphs in sections.items()
    )
    return f"{title}\n\n{body}\n"


def with_test_section(card: str, test: Sequence[str]) -> str:
    """A card with what the test data gave in place of its section "Test", the rest as it stands.

    People may have written into it; where they have removed the section it comes last.
    """
    head, found, rest = f"\n{card}".partition(f"\n{TEST_HEADING}\n")
    _, next_heading, after = rest.partition("\n## ")
    section = f"{TEST_HEADING}\n\n" + "\n\n".join(test) + "\n"
    before = head.removeprefix("\n").rstrip("\n")
    return f"{before}\n\n{section}{next_heading if found else ''}{after if found else ''}"


def _intended_use(bundle: BundleConfig) -> list[str]:
    return [
        "Research: to compare ways of transfer learning on data like those below, and to go on "
        "from. Not for diagnosis, nor for any decision about a person: it was not validated for "
        "that, and is no medical device.",
    ]


def _model(bundle: BundleConfig) -> list[str]:
    config, pre = bundle.config, bundle.preprocessing
    strategy = STRATEGIES[config.strategy].format(k=config.num_unfrozen_layers)
    rows = {
        "backbone": config.backbone,
        "strategy": strategy,
        "started from": f"{bundle.weights.kind} weights, hash {bundle.weights.sha256[:12]}",
        "learning rate": f"{config.learning_rate:.3g}",
        "batch size": config.batch_size,
        "optimizer": config.optimizer,
        "input": f"{pre.image_size} x {pre.image_size} pixels, {RESIZED[pre.resize]} by "
        f"{pre.interpolation} interpolation with antialiasing; grey {pre.grey}; "
        f"(pixels / 255 - {_numbers(pre.mean)}) / {_numbers(pre.std)}",
        "calibration": _calibration(bundle),
        "threshold": _threshold(bundle),
        "made": f"{bundle.created} with {_versions(bundle.versions)}",
    }
    if pre.window is not None:
        rows["16 bits"] = f"values {pre.window[0]} to {pre.window[1]} become 0 to 255"
    if bundle.backbone_module is not None:
        rows["backbone's code"] = f"a file with SHA-256 {bundle.backbone_module.sha256}"
    if ONNX in bundle.files:
        rows["ONNX"] = (
            f"{ONNX}: images (batch, 3, H, W), normalised as above, to logits; probabilities are "
            "the softmax of the calibrated logits"
        )
    return [_table(rows), *_refit(bundle)]


def _refit(bundle: BundleConfig) -> list[str]:
    if not bundle.refit:
        return []
    return [
        "**Refit.** The weights in this folder were trained once more on training and validation "
        f"images together, for {bundle.validation.best_epoch} epochs, the best epoch of the "
        "training before. Nothing is left to measure them on: calibration, threshold and every "
        "validation number below are of the training before."
    ]


def _data(bundle: BundleConfig) -> list[str]:
    data = bundle.data
    splits = list(data.counts)
    head = f"| class | {' | '.join(splits)} |\n|---|{'---|' * len(splits)}\n"
    lines = [
        f"| {escaped(name)} | {' | '.join(str(data.counts[s].get(name, 0)) for s in splits)} |"
        for name in bundle.classes
    ]
    found = [f"Gone on with in spite of: {escaped(text)}." for text in data.allowed]
    found += [f"Warned of: {escaped(text)}." for text in data.warnings]
    for reason, counts in data.left_out.items():
        found += [
            f"Left out of {escaped(split)} as {escaped(reason)}: {count}."
            for split, count in counts.items()
            if count
        ]
    return [
        f"Source: {escaped(data.source)}, fingerprint {data.fingerprint[:16]}.",
        head + "\n".join(lines),
        "\n".join(f"- {text}" for text in found) or "The data check found nothing.",
    ]


def _protocol(bundle: BundleConfig, *, sealed: bool) -> list[str]:
    search, study = bundle.search, bundle.study
    how = {
        "best": "the best mean over them was chosen",
        "cheapest": "of those behind the best by at most one standard error of the paired "
        "difference the cheapest was chosen",
    }[search.choose]
    seeds = ", ".join(map(str, study.seeds))
    split = "a validation split of its own each" if study.resplit else "the same validation split"
    return [
        f"Study {escaped(study.name)}: space {escaped(search.space)}, {search.num_trials} trials, "
        f"of which {search.num_pruned} were pruned and {search.num_failed} failed. "
        f"{search.num_confirmed} of them were trained again with {len(study.seeds)} seeds "
        f"({seeds}), declared before any of them ran, on {split}, and {how}: trial {study.trial}.",
        f"The model is the training with the first of these seeds, {study.seed}, whatever the "
        "others gave." + (" The test images were sealed all the while." if sealed else ""),
    ]


def _validation(bundle: BundleConfig) -> list[str]:
    found = bundle.validation
    values = found.values
    over = f"{sum(values) / len(values):.4f} in the mean of {len(values)} seed(s)"
    if len(values) > 1:
        low, high = mean_interval(values)
        if found.metric != "loss":  # The others are shares.
            low, high = max(low, 0.0), min(high, 1.0)
        over += f" (95 % interval of the mean over seeds {low:.4f} to {high:.4f})"
    of_all = ", ".join(f"{value:.4f}" for value in values)
    rows = {name.replace("_", " "): f"{value:.4f}" for name, value in found.metrics.items()}
    rows["loss after calibration"] = f"{found.loss_calibrated:.4f}"
    return [
        f"{escaped(found.metric)}: {found.value:.4f} of this model on {found.num_images} images; "
        f"{over}; of each {of_all}.",
        _table(rows),
        "The interval says how much seeds differ, not how other images would do. Configuration, "
        "epoch, calibration and threshold were chosen on these images: the numbers are too good.",
    ]


def _limits(bundle: BundleConfig) -> list[str]:
    num_train = sum(bundle.data.counts.get("train", {}).values())
    lines = [
        f"Trained on {num_train} images of one source: of other scanners, sites and groups of "
        "people nothing is known.",
        f"It knows {len(bundle.classes)} classes and says one of them of any picture, of what is "
        "none of them too.",
        "Calibration and threshold hold where classes are about as frequent as in the validation "
        "images.",
        PROPORTIONS[bundle.preprocessing.resize],
    ]
    if bundle.weights.kind == "random":
        lines.insert(0, "It started from random weights, as a control: nothing was transferred.")
    return ["\n".join(f"- {line}" for line in lines)]


def _calibration(bundle: BundleConfig) -> str:
    scaling = bundle.calibration
    return (
        f"probabilities are the softmax of {scaling.scale:.4g} x logits + "
        f"{_numbers(scaling.biases)} (found on the validation images)"
    )


def _threshold(bundle: BundleConfig) -> str:
    if bundle.threshold is None:
        return "none: the most probable class is called"
    return (
        f"{bundle.classes[1]} from a probability of {bundle.threshold:.4g} on (best balanced "
        "accuracy on the validation images)"
    )


def _table(rows: Mapping[str, object]) -> str:
    lines = [f"| {escaped(name)} | {escaped(value)} |" for name, value in rows.items()]
    return "| | |\n|---|---|\n" + "\n".join(lines)


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _code(command: str) -> str:
    """A block of code: no text in it can end it, as it stands in one line."""
    return "    " + " ".join(command.split())


def card_paragraphs(every: Sequence[Opening], bundle: BundleConfig) -> list[str]:
    """The section "Test" of a bundle's card, given all openings; empty where there is none."""
    mine = [o for o in every if o.bundle == bundle.files[MODEL] and o.is_finished]
    if not mine:
        lines = [*_not_this_one(every, bundle), *opening_lines(every)] if every else []
        return [escaped(line.strip()) for line in lines]
    opening = mine[-1]
    result = opening.result
    assert result is not None
    rows = [
        f"| {escaped(name)} | {escaped(interval_text(interval))} |"
        for name, interval in shown_metrics(result["metrics"]).items()
    ]
    lines = [
        forecast_sentence(result["metric"], opening.predicted),
        f"Opened on {opening.opened:%Y-%m-%d %H:%M} UTC: {images_text(result)}, 95 % intervals.",
    ]
    table = "| metric | this model |\n|---|---|\n" + "\n".join(rows)
    behind = [
        PRECISION_NOTE,
        forecast_result(opening.predicted, result),
        *verdict_lines(result),
        *opening_lines(every),
    ]
    return [*map(escaped, lines), table, *(escaped(line.strip()) for line in behind)]


def _not_this_one(every: Sequence[Opening], bundle: BundleConfig) -> list[str]:
    """What is known where this model itself has no result."""
    strategy, origin = str(bundle.config.strategy), bundle.study
    for opening in reversed(every):
        found = (opening.result or {}).get("by_strategy", {}).get(strategy)
        is_mine = opening.is_of(origin.name, origin.search_id)
        if is_mine and found and found["trial"] == origin.trial:
            metric = (opening.result or {})["metric"]
            told = interval_text(found["metrics"][metric])
            return [
                "This model was not evaluated by itself. The mean over the seeds of its "
                f"configuration was, on {opening.opened:%Y-%m-%d}: {metric} {told}."
            ]
    if not any(opening.is_finished for opening in every):
        return ["An evaluation on the test images was begun and has no result."]
    return ["This model was not evaluated on the test images, but others were."]
