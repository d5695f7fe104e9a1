"""Task A: which backbone. Complexity, accuracy and computation time, measured."""

from studies.document.blocks import Block, Cell, Drawing, Paragraph, Section, Table, Words
from studies.document.numbers import NOTHING, interval_cell, metric_text, number_cell
from studies.report.appendix import source_of_trial
from studies.report.figures import CostPoint, accuracy_cost
from studies.results import TrialRecord
from studies.results.controls import KEYS
from studies.results.study import StoredStudy
from transfer.backbones.catalog import BACKBONES
from transfer.config import TITLES

TABLE = "python -m studies backbones: what is known of the network, not measured here"


def task_a(evidence: StoredStudy) -> Section:
    """Backbones as rows; accuracy against cost."""
    columns = [
        "backbone",
        "layers",
        "parameters",
        "GMACs",
        "ImageNet top-1",
        "frozen, images/s",
        "training, images/s",
        *(f"{TITLES[s]}: validation {evidence.metric}" for s in evidence.strategies),
        "logistic regression",
        "the same, random weights",
    ]
    blocks: list[Block] = [
        Paragraph(
            content="Layers, parameters and GMACs (for one image of 224 x 224 pixels) are those "
            "of the network; images a second were measured in this study. Validation numbers are "
            "the best trial's of each backbone, with one seed: too good, the more trials it had."
        ),
        Table(
            name="backbones",
            caption="Task A: backbones",
            columns=columns,
            rows=[_row(evidence, backbone) for backbone in evidence.backbones],
        ),
    ]
    points = _points(evidence)
    if points:
        blocks.append(
            Drawing(
                name="accuracy_cost",
                figure=accuracy_cost(points, metric=f"validation {evidence.metric}"),
                caption=f"Validation {evidence.metric} of each backbone's best trial against the "
                "seconds of its training (frozen layers are computed once and not counted).",
                description="; ".join(
                    f"{point.label} {metric_text(evidence.metric, point.value)} in "
                    f"{point.seconds:.3g} s"
                    for point in points
                ),
            )
        )
    return Section(id="task-a", title="Task A: model selection", blocks=blocks)


def _row(evidence: StoredStudy, backbone: str) -> list[Words]:
    spec = BACKBONES.get(backbone)
    depth = evidence.study.identity["space"]["depths"].get(backbone)
    accuracy = None if spec is None else spec.imagenet_accuracy
    return [
        backbone,
        number_cell(depth if spec is None else spec.depth, source=TABLE, quiet=True),
        number_cell(None if spec is None else spec.num_parameters, "{:,}", TABLE, quiet=True),
        number_cell(None if spec is None else spec.gmacs, "{:.2f}", TABLE, quiet=True),
        number_cell(accuracy, "{:.1f} %", TABLE, quiet=True),
        _frozen_speed(evidence, backbone),
        _training_speed(evidence, backbone),
        *(_best(evidence, strategy, backbone) for strategy in evidence.strategies),
        _control(evidence, backbone, str(evidence.study.settings["weights"])),
        _control(evidence, backbone, "random"),
    ]


def _best(evidence: StoredStudy, strategy: str, backbone: str) -> Cell:
    trial = evidence.best(strategy, backbone)
    if trial is None:
        return NOTHING
    return interval_cell(
        evidence.metric,
        evidence.interval(trial),
        source_of_trial(trial, evidence.name),
        f"#trial-{trial.number}",
    )


def _frozen_speed(evidence: StoredStudy, backbone: str) -> Cell:
    """All layers frozen, from the first feature extraction that found nothing computed."""
    num_images = evidence.num_images("train") + evidence.num_images("val")
    for trial in evidence.of_strategy("feature_extraction"):
        seconds = trial.timing.get("activations", 0.0)
        is_first = bool(trial.cache) and not trial.cache["was_at_hand"]
        if trial.params.get("backbone") == backbone and is_first and seconds > 0:
            source = (
                f"{num_images} images in {seconds:.1f} s, {source_of_trial(trial, evidence.name)}"
            )
            return number_cell(num_images / seconds, "{:.0f}", source, f"#trial-{trial.number}")
    return NOTHING


def _training_speed(evidence: StoredStudy, backbone: str) -> Cell:
    """Trained layers of the best fine-tuning, whatever number of them was unfrozen."""
    trial = evidence.best("fine_tuning", backbone)
    if trial is None or not trial.timing.get("training"):
        return NOTHING
    num_images = evidence.num_images("train") * len(trial.history)
    layers = trial.params["num_unfrozen_layers"]
    source = f"{layers} unfrozen layers, {source_of_trial(trial, evidence.name)}"
    speed = num_images / trial.timing["training"]
    return number_cell(speed, "{:.0f}", source, f"#trial-{trial.number}")


def _control(evidence: StoredStudy, backbone: str, weights: str) -> Cell:
    for run in evidence.controls:
        if tuple(run.keyed_params.get(key) for key in KEYS) == (
            "logistic_regression",
            backbone,
            weights,
        ):
            return interval_cell(
                evidence.metric,
                evidence.interval(run),
                f"trial {run.number} of study {evidence.name}/controls",
                f"#control-{run.number}",
            )
    return NOTHING


def _points(evidence: StoredStudy) -> list[CostPoint]:
    found = []
    for strategy in evidence.strategies:
        for backbone in evidence.backbones:
            trial = evidence.best(strategy, backbone)
            interval = None if trial is None else evidence.interval(trial)
            if trial is not None and interval is not None and _seconds(trial) > 0:
                found.append(
                    CostPoint(
                        label=backbone,
                        strategy=strategy,
                        seconds=_seconds(trial),
                        value=interval.value,
                        low=interval.low,
                        high=interval.high,
                    )
                )
    return found


def _seconds(trial: TrialRecord) -> float:
    return float(trial.timing.get("training", 0.0) + trial.timing.get("validation", 0.0))
