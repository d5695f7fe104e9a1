"""A training run's configuration keeps its laws, and a broken one says which and by what."""

import dataclasses

import pytest

from transfer.config import CALIBRATED_LOSS, METRICS, Strategy, TransferConfig, score_of

RIGHT = {
    "backbone": "resnet18",
    "strategy": "fine_tuning",
    "learning_rate": 1e-4,
    "batch_size": 8,
    "num_unfrozen_layers": 1,
}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"strategy": Strategy.FINE_TUNING, "num_unfrozen_layers": 99},
        {"strategy": "feature_extraction", "num_unfrozen_layers": 0},
        {"batch_size": 1, "epochs": 1, "patience": 1},
        {"weight_decay": 0.0, "dropout": 0.0, "optimizer": "sgd", "metric": "loss"},
        {"precision": "bf16"},
    ],
)
def test_values_at_the_edge_of_the_laws_are_taken(changed):
    config = TransferConfig(**{**RIGHT, **changed})
    assert isinstance(config.strategy, Strategy)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"strategy": "feature_extraction", "num_unfrozen_layers": 3},
            "`num_unfrozen_layers == 0` must hold for feature extraction, "
            "but got num_unfrozen_layers=3.",
        ),
        (
            {"num_unfrozen_layers": 0},
            "`num_unfrozen_layers >= 1` must hold for fine-tuning, but got num_unfrozen_layers=0.",
        ),
        (
            {"learning_rate": 0.0},
            "`learning_rate > 0` must hold for every run, but got learning_rate=0.0.",
        ),
        ({"learning_rate": float("nan")}, "learning_rate=nan."),
        ({"learning_rate": float("inf")}, "learning_rate=inf."),
        ({"batch_size": 0}, "`batch_size >= 1` must hold for every run, but got batch_size=0."),
        ({"epochs": 0}, "`epochs >= 1` must hold for every run, but got epochs=0."),
        ({"patience": 0}, "`patience >= 1` must hold for every run, but got patience=0."),
        ({"weight_decay": -0.1}, "`weight_decay >= 0` must hold"),
        ({"weight_decay": float("nan")}, "weight_decay=nan."),
        ({"dropout": 1.0}, "`0 <= dropout < 1` must hold for every run, but got dropout=1.0."),
        ({"dropout": -0.1}, "dropout=-0.1."),
        ({"precision": "fp8"}, "Unknown precision 'fp8'; choose from fp32, bf16, fp16."),
        (
            {"strategy": "feature_extraction", "num_unfrozen_layers": 0, "precision": "bf16"},
            "`precision == fp32` must hold for feature extraction, but got precision=bf16.",
        ),
        ({"optimizer": "lion"}, "Unknown optimizer 'lion'; choose from adamw, adam, sgd."),
        (
            {"metric": "recall"},
            "Unknown metric 'recall'; choose from accuracy, balanced_accuracy, auroc, f1, loss.",
        ),
        (
            {"strategy": "zero_shot"},
            "Unknown strategy 'zero_shot'; choose from feature_extraction, fine_tuning.",
        ),
    ],
)
def test_a_broken_law_is_stated_with_the_value_that_breaks_it(changed, message):
    with pytest.raises(ValueError) as error:
        TransferConfig(**{**RIGHT, **changed})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_configuration_cannot_be_changed_but_replaced_and_is_then_checked_again():
    config = TransferConfig(**RIGHT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch_size = 16  # type: ignore[misc]
    assert dataclasses.replace(config, batch_size=16).batch_size == 16
    with pytest.raises(ValueError, match="batch_size=0"):
        dataclasses.replace(config, batch_size=0)


@pytest.mark.parametrize("name", [*METRICS, CALIBRATED_LOSS])
def test_a_better_value_has_the_larger_score_and_less_is_better_of_losses(name):
    assert (score_of(name, 0.2) > score_of(name, 0.1)) == (name not in ("loss", "calibrated_loss"))
    assert abs(score_of(name, 0.2)) == 0.2


def test_what_chooses_an_epoch_is_the_metric_unless_it_is_said():
    assert TransferConfig(**RIGHT, metric="auroc").criterion == "auroc"
    by_loss = TransferConfig(**RIGHT, metric="auroc", choose_by="calibrated_loss")
    assert by_loss.criterion == "calibrated_loss"
    with pytest.raises(ValueError, match="choose_by"):
        TransferConfig(**RIGHT, choose_by="auroc")
