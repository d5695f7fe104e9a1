"""Train a bundle's model again and compare the validation metric with the one that it tells."""

from dataclasses import dataclass
from typing import Any

from studies.bundle.bundle import Bundle
from studies.bundle.retraining import (
    Places,
    Recipe,
    find_same_weights,
    load_same_data,
    train_again,
)
from studies.watchers import Progress
from transfer.device import versions

SCRIPT = """\
#!/usr/bin/env bash
# Trains this model again and compares its validation {metric} with the one in config.json, which
# is {value!r}: exit code 0 where the two are equal, 1 where not.
#
# Made with python {python}, torch {torch}, {threads} thread(s). Other versions, machines and
# numbers of threads may give other last digits.
#{refit}
# It needs transfer-studies {version} and the data; where they are elsewhere now:
#   bash reproduce.sh --data DATA --weights-dir DIR{module}
set -euo pipefail
bundle="$(cd -- "$(dirname -- "${{BASH_SOURCE[0]}}")" && pwd)"
exec "${{PYTHON:-python}}" -m studies reproduce "$bundle" "$@"
"""

REFIT = """
# The model in this folder was trained once more, on validation images too; what is reproduced is
# the training before, which has the validation metric.
#"""


def script_text(recipe: Recipe, value: float, *, refit: bool, has_module: bool) -> str:
    """``reproduce.sh``. Nothing in it comes from outside but numbers and names of this program."""
    told = versions()
    return SCRIPT.format(
        metric=recipe.config.metric,
        value=value,
        python=told["python"],
        torch=told["torch"],
        threads=recipe.study.threads,
        version=told["transfer-studies"],
        refit=REFIT if refit else "",
        module=" --backbone-module FILE" if has_module else "",
    )


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """The value that is told, the one that came out now, and the versions that differ."""

    metric: str
    expected: float
    value: float
    expected_epoch: int
    best_epoch: int
    other_versions: dict[str, tuple[str, str]]

    @property
    def is_equal(self) -> bool:
        return self.value == self.expected and self.best_epoch == self.expected_epoch

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "expected": self.expected,
            "value": self.value,
            "expected_epoch": self.expected_epoch,
            "best_epoch": self.best_epoch,
            "is_equal": self.is_equal,
            "other_versions": {key: list(pair) for key, pair in self.other_versions.items()},
        }

    def lines(self) -> list[str]:
        """In words."""
        what = f"validation {self.metric} {self.value!r} at epoch {self.best_epoch}"
        if self.is_equal:
            return [f"Reproduced: {what}, as in the bundle."]
        told = f"Not reproduced: {what}, but the bundle has {self.expected!r} at epoch"
        others = ", ".join(
            f"{name} {here} (was {was})" for name, (was, here) in self.other_versions.items()
        )
        why = f"; other versions here: {others}" if others else "; is this another machine?"
        return [f"{told} {self.expected_epoch}{why}"]


def reproduce(bundle: Bundle, places: Places, progress: Progress) -> Reproduced:
    """Train again what the bundle was made from.

    Raises:
        UserError, ValueError: the data or the weights are not at hand, or not the same.
        StudyFailedError: the training failed.
    """
    config, recipe = bundle.config, Recipe.of(bundle.config)
    weight_file = find_same_weights(recipe, places)
    data = load_same_data(recipe, places, progress)
    result = train_again(recipe, data, weight_file, places, progress)
    here = versions()
    return Reproduced(
        metric=config.validation.metric,
        expected=config.validation.value,
        value=result.best.val[config.validation.metric],
        expected_epoch=config.validation.best_epoch,
        best_epoch=result.best_epoch,
        other_versions={
            name: (was, here[name])
            for name, was in config.versions.items()
            if name in here and here[name] != was
        },
    )
