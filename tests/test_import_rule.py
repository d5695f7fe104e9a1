"""The one-way rule: studies -> search_spaces, studies -> transfer, and no other edge.

What reads results never loads torch: a report must open in a second, on any machine.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "transfer": {"optuna", "optuna_dashboard", "studies", "search_spaces"},
    "search_spaces": {"torch", "torchvision", "transfer", "studies", "optuna"},
}
READERS = (
    "studies",
    "studies.results.accounting",
    "studies.database.artifacts",
    "studies.cli.results",
    "studies.bundle.config",
    "studies.statistics.calibration",
    "studies.check_record",
    "studies.cli.search",
    "studies.results.comparison",
    "studies.results.choice",
    "studies.results.controls",
    "studies.dashboard.attributes",
    "studies.dashboard.pictures",
    "studies.dashboard.plots",
    "studies.dashboard.publish",
    "studies.dashboard.server",
    "studies.dashboard.serving",
    "studies.dashboard.snapshot",
    "studies.dashboard.study_notes",
    "studies.dashboard.trial_notes",
    "studies.data_card",
    "studies.data_check",
    "studies.explanation.explain",
    "studies.explanation.domain",
    "studies.errors",
    "studies.statistics.estimates",
    "studies.explanation.explanation",
    "studies.explanation.words",
    "studies.terminal.evaluation",
    "studies.evaluation.finalists",
    "studies.statistics.forecast",
    "studies.database.ledger",
    "studies.cli.inspect",
    "studies.explanation.matching",
    "studies.statistics.measurements",
    "studies.bundle.card",
    "studies.statistics.optimism",
    "studies.cli.output",
    "studies.statistics.paired_tests",
    "studies.statistics.sample_size",
    "studies.explanation.points_lost",
    "studies.database.trials",
    "studies.statistics.metrics",
    "studies.settings",
    "studies.spaces",
    "studies.terminal.spaces",
    "studies.statistics.intervals",
    "studies.terminal.status",
    "studies.database.storage",
    "studies.results.strategies_compared",
    "studies.database.study",
    "studies.terminal.study",
    "studies.explanation.thresholds",
    "studies.database.uploads",
    "studies.results.validation_verdict",
    "studies.statistics.paired",
    "studies.terminal.confirmed",
    "studies.statistics.verdict_words",
    "studies.explanation.waterfall",
    "transfer.backbones.catalog",
    "transfer.config",
)


def imported(source):
    """Every module that the import statements name, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(str(node.module))
    return names


def packages_imported(path):
    return {name.partition(".")[0] for name in imported(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from torch import nn", {"torch"}),
        ("def f():\n    import optuna, json", {"optuna", "json"}),
        ("if True:\n    from studies.database.trials import trials", {"studies.database.trials"}),
        ("torch = 'import torch'", set()),
    ],
)
def test_import_statements_are_found_wherever_they_stand(source, names):
    assert imported(source) == names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_against_the_one_way_rule(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert len(modules) > 3
    against = {
        str(module.relative_to(ROOT)): found
        for module in modules
        if (found := packages_imported(module) & FORBIDDEN[package])
    }
    assert against == {}


def test_studies_is_where_the_three_packages_meet():
    used = set().union(*map(packages_imported, (ROOT / "studies").glob("*.py")))
    assert {"search_spaces", "transfer", "optuna"} <= used


def first_that_loads_torch(*modules):
    """The first of the modules after which torch is loaded, in a process of its own; or ""."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        print(name)\n"
        "        break\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_reading_results_does_not_load_torch():
    assert first_that_loads_torch(*READERS) == ""


def test_training_does_load_torch():
    """The test above would notice."""
    assert (
        first_that_loads_torch("studies.database.trials", "transfer.training.train")
        == "transfer.training.train"
    )
