"""All figures of a report, under one name; each stands in the module of its theme."""

from studies.report.figures.predictions import calibration, confusion_matrices, roc_curves
from studies.report.figures.result import (
    Step,
    recall_by_class,
    strategies_over_seeds,
    waterfall,
)
from studies.report.figures.search import (
    CostPoint,
    accuracy_cost,
    importance,
    slices,
    unfrozen_layers,
)
from studies.report.figures.timeline import SearchStep, TimelineTrial, best_so_far, timeline
from studies.report.figures.training import Curve, learning_curves

__all__ = [
    "CostPoint",
    "Curve",
    "SearchStep",
    "Step",
    "TimelineTrial",
    "accuracy_cost",
    "best_so_far",
    "calibration",
    "confusion_matrices",
    "importance",
    "learning_curves",
    "recall_by_class",
    "roc_curves",
    "slices",
    "strategies_over_seeds",
    "timeline",
    "unfrozen_layers",
    "waterfall",
]
