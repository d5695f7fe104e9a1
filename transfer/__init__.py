"""One training run: data, backbones, freezing, training, metrics. Knows nothing of Optuna."""
