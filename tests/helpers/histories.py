"""The history of a training of two epochs, made up."""


def epoch(number, accuracy):
    return {
        "epoch": number,
        "all_layers_train": number > 1,
        "train": {"accuracy": accuracy + 0.1, "loss": 0.3},
        "val": {"accuracy": accuracy, "loss": 0.5},
        "training_seconds": 1.5,
        "validation_seconds": 0.25,
    }


HISTORY = [epoch(1, 0.5), epoch(2, 0.75)]
