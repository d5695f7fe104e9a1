"""What optuna-dashboard shows of a study: written while the study runs, served to a browser."""
