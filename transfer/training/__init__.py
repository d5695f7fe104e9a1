"""One training: steps, recipes, precision, metrics, result."""
