"""The search: from options to trained trials, and the trainings beside it."""
