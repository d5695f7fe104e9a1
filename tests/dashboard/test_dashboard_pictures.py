"""Pictures and the table of a trial: they show what the trial gave."""

import csv
import io
import math

import numpy as np
import pytest
from histories import HISTORY, epoch
from PIL import Image

from studies.dashboard import pictures
from studies.dashboard.pictures import confusion_matrix_png, learning_curve_png
from studies.search.objective import history_csv


def size_of(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.size


def test_the_table_has_a_row_an_epoch_with_every_metric_and_the_seconds():
    rows = list(csv.DictReader(io.StringIO(history_csv(HISTORY))))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[1] == {
        "epoch": "2",
        "train_accuracy": "0.85",
        "train_loss": "0.3",
        "val_accuracy": "0.75",
        "val_loss": "0.5",
        "training_seconds": "1.5",
        "validation_seconds": "0.25",
        "all_layers_train": "True",
    }


def test_the_table_of_no_epoch_has_a_head_alone():
    assert list(csv.reader(io.StringIO(history_csv([])))) == [["epoch"]]


def test_a_learning_curve_is_a_picture_as_wide_as_a_column_of_the_page():
    width, height = size_of(
        learning_curve_png(HISTORY, metric="accuracy", strategy="fine_tuning", best_epoch=1)
    )
    assert 500 <= width <= 800 and 250 <= height <= 500


def test_the_curves_are_those_of_training_and_validation(monkeypatch):
    drawn = []

    def draw(curves, best, seeds, **given):
        drawn.append((curves, best, seeds, given))
        return real([], best, [], **given)

    real = pictures.learning_curves
    monkeypatch.setattr(pictures, "learning_curves", draw)
    learning_curve_png(HISTORY, metric="loss", strategy="feature_extraction", best_epoch=1)
    ((curves, best, seeds, given),) = drawn
    assert (list(best.train), list(best.val)) == ([0.3, 0.3], [0.5, 0.5])
    assert (curves, seeds, given["best_name"]) == ([], [], "this trial")


def test_a_course_without_a_finite_value_is_not_drawn():
    nowhere = [{**epoch(1, math.nan), "train": {"accuracy": math.nan}}]
    with pytest.raises(ValueError, match="finite"):
        learning_curve_png(nowhere, metric="accuracy", strategy="fine_tuning", best_epoch=1)


def test_true_classes_are_rows_and_predicted_ones_columns(monkeypatch):
    drawn = []

    def draw(matrices):
        drawn.append(matrices)
        return real(matrices)

    real = pictures.confusion_matrices
    monkeypatch.setattr(pictures, "confusion_matrices", draw)
    logits_NC = np.array([[2, 1, 0], [0, 1, 0], [0, 3, 1], [0, 0, 9]], np.float32)
    size_of(confusion_matrix_png(logits_NC, np.array([0, 0, 1, 1]), ("a", "b", "c")))
    ((counts, classes),) = drawn[0].values()
    assert list(drawn[0]) == ["4 validation images"]
    assert counts == [[1, 1, 0], [0, 1, 1], [0, 0, 0]] and list(classes) == ["a", "b", "c"]


def test_names_of_classes_may_hold_anything_and_be_many():
    classes = [f"$x_{i}$ <b>&amp;\n" for i in range(40)]
    size_of(confusion_matrix_png(np.eye(40, dtype=np.float32), np.arange(40), classes))
