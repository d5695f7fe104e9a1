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
    "studies.accounting",
    "studies.artifacts",
    "studies.bundle_commands",
    "studies.bundle_config",
    "studies.calibration",
    "studies.check_record",
    "studies.cli",
    "studies.comparison",
    "studies.confirm",
    "studies.control_rows",
    "studies.dashboard.plots",
    "studies.dashboard.serve",
    "studies.data_card",
    "studies.data_check",
    "studies.diagnosis",
    "studies.domain",
    "studies.errors",
    "studies.evaluation",
    "studies.explanation",
    "studies.explanation_words",
    "studies.final_words",
    "studies.finalists",
    "studies.forecast",
    "studies.ledger",
    "studies.look",
    "studies.matching",
    "studies.model_card",
    "studies.optimism",
    "studies.output",
    "studies.paired_tests",
    "studies.planning",
    "studies.points_lost",
    "studies.records",
    "studies.scores",
    "studies.dashboard.serving",
    "studies.settings",
    "studies.dashboard.snapshot",
    "studies.space_choice",
    "studies.space_table",
    "studies.statistics",
    "studies.status",
    "studies.storage",
    "studies.strategies_compared",
    "studies.study_record",
    "studies.tables",
    "studies.thresholds",
    "studies.validation_verdict",
    "studies.verdict",
    "studies.verdict_tables",
    "studies.waterfall",
    "transfer.catalog",
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
        ("if True:\n    from studies.records import trials", {"studies.records"}),
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


@pytest.mark.parametrize("module", READERS)
def test_reading_results_does_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_training_does_load_torch():
    code = "import sys, transfer.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 1
