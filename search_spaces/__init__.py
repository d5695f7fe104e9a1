"""What is searched, declared as data. Knows nothing of torch, Optuna or backbones' code."""

from search_spaces.loading import load_space, preset_names
from search_spaces.space import Baseline, Parameter, SearchSpace, SpaceError

__all__ = ["Baseline", "Parameter", "SearchSpace", "SpaceError", "load_space", "preset_names"]
