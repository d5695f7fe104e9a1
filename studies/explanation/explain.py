"""Explain a study's test result from what its database has: forecast, predictions, features.

Opens no image and trains nothing. Never imports torch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from studies.database.artifacts import (
    TEST_FEATURES,
    TEST_PREDICTIONS,
    read_arrays,
    read_predictions,
)
from studies.database.ledger import Opening
from studies.database.storage import StudyStorage
from studies.errors import UserError
from studies.explanation.explanation import Explanation
from studies.explanation.points_lost import Evidence, explain
from studies.results.choice import Confirmed
from studies.statistics.forecast import Forecast


def explain_study(
    storage: StudyStorage, name: str, confirmed: Confirmed, opening: Opening
) -> dict[str, Explanation]:
    """Part A for each strategy's confirmed choice, as it was forecast and evaluated.

    Raises:
        UserError: the evaluation has no end, artifacts are missing, or every seed had validation
            images of its own.
        ValueError: the metric is not defined on the test images.
    """
    if opening.result is None:
        raise UserError(
            f"Opening {opening.number} of the test images has no result to explain; evaluate the "
            "bundle again, which goes on with it."
        )
    if confirmed.resplit:
        raise UserError(
            f"Every seed of study '{name}' has validation images of its own (--resplit), so "
            "that nothing says which images a test image is to be compared with; confirm a study "
            "without --resplit to have its test result explained."
        )
    ids = opening.result["artifacts"]
    said = read_arrays(storage, ids[TEST_PREDICTIONS], "predictions for test images")
    looks = read_arrays(storage, ids[TEST_FEATURES], "features of test images")
    return {
        strategy: explain(
            _evidence(storage, name, confirmed, strategy, said, looks),
            metric=str(opening.result["metric"]),
            classes=list(opening.result["counts"]),
            forecast=_forecast(opening.predicted["by_strategy"][strategy]),
        )
        for strategy in confirmed.chosen
    }


def _evidence(
    storage: StudyStorage,
    name: str,
    confirmed: Confirmed,
    strategy: str,
    said: Mapping[str, Any],
    looks: Mapping[str, Any],
) -> Evidence:
    runs = confirmed.chosen[strategy].runs
    backbone = str(runs[0].config["backbone"])
    which = looks["backbones"].tolist().index(backbone)
    known_MD = looks[f"data_{which}"]
    logits = []
    for run in runs:
        stored = read_predictions(storage, run)
        assert run.best_epoch is not None
        if not np.array_equal(stored.labels_N, looks["val_labels"]):
            raise UserError(
                f"Trial {run.number} over seeds of study '{name}' has other validation "
                "images than the study; its test result can't be explained."
            )
        logits.append(stored.logits_ENC[run.best_epoch - 1])
    return Evidence(
        train_labels_M=looks["train_labels"],
        train_features_MD=known_MD[looks["train_positions"]],
        val_labels_V=looks["val_labels"],
        val_features_VD=known_MD[looks["val_positions"]],
        val_logits_SVC=np.stack(logits),
        test_labels_N=looks["test_labels"],
        test_features_ND=looks[f"test_{which}"],
        test_logits_SNC=said[f"{strategy}_SNC"],
        train_groups_M=looks.get("train_groups"),
        val_groups_V=looks.get("val_groups"),
        test_groups_N=looks.get("test_groups"),
    )


def _forecast(stored: Mapping[str, Any]) -> Forecast:
    """The forecast as it was written before the test images were opened."""
    return Forecast(**{key: value for key, value in stored.items() if key != "optimism"})
