"""The one-way rule: studies -> search_spaces, studies -> transfer, and no other edge.

What reads results never loads torch: a report must open in a second, on any machine.
"""

import ast
import subprocess
import sys
from collections import Counter

import pytest
from paths import ROOT

FORBIDDEN = {
    "transfer": {"optuna", "optuna_dashboard", "studies", "search_spaces"},
    "search_spaces": {"torch", "torchvision", "transfer", "studies", "optuna"},
}
# Which folder of `studies` may import which, beside the modules that stand in no folder.
MAY_IMPORT = {
    "statistics": set(),
    "database": {"statistics"},
    "results": {"database", "statistics"},
    "explanation": {"results", "database", "statistics"},
    "document": {"statistics"},
    "search": {"results", "database", "statistics"},
    "bundle": {"search", "document", "results", "database", "statistics"},
    "evaluation": {"bundle", "search", "results", "database", "statistics"},
    "report": {"document", "explanation", "results", "statistics"},
    "dashboard": {"report", "document", "results", "database", "statistics"},
    "terminal": {"document", "results", "statistics"},
}
NEVER_LOAD_TORCH = (
    "statistics",
    "database",
    "results",
    "explanation",
    "document",
    "report",
    "dashboard",
)
READERS = (
    "studies",
    "studies.cli.search",
    "studies.cli.inspect",
    "studies.cli.results",
    "studies.cli.main",
    "studies.bundle.card",
    "studies.bundle.config",
    "studies.data_check",
    "studies.data_card",
    "studies.data_check",
    "studies.errors",
    "studies.settings",
    "studies.spaces",
    "studies.terminal.study",
    "studies.terminal.evaluation",
    "studies.terminal.spaces",
    "studies.terminal.status",
    "studies.terminal.study",
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


def folders_imported(path):
    """The folders of `studies` from which a module takes something."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("studies."):
            found.add(str(node.module).split(".")[1])
    return found & FOLDERS


FOLDERS = {path.name for path in (ROOT / "studies").iterdir() if (path / "__init__.py").exists()}


def test_every_folder_is_in_the_table_or_joins_the_others():
    assert FOLDERS - {"cli"} == set(MAY_IMPORT)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_folder_imports_from_another_than_it_may(folder):
    modules = sorted((ROOT / "studies" / folder).rglob("*.py"))
    assert len(modules) > 3
    against = {
        str(module.relative_to(ROOT)): found
        for module in modules
        if (found := folders_imported(module) - MAY_IMPORT[folder] - {folder})
    }
    assert against == {}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for package in ("studies", "transfer", "search_spaces")
    for path in (ROOT / package).rglob("*.py")
}


def modules_imported(name):
    """The project's modules that one names, inside of functions and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            found |= names & set(MODULES)
    return found


def circles(imports):
    """What is left of a graph when all that import nothing that is left are taken away."""
    left = {name: set(others) for name, others in imports.items()}
    while ends := [name for name, others in left.items() if not others & set(left)]:
        for name in ends:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize(
    ("imports", "left"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": set()}, ["a", "b"]),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}, ["a", "b", "c"]),
    ],
)
def test_circles_are_found(imports, left):
    assert circles(imports) == left


def test_no_module_imports_another_that_leads_back_to_it():
    imports = {name: modules_imported(name) - {name} for name in MODULES}
    assert sum(map(len, imports.values())) > len(MODULES)
    assert circles(imports) == []


def test_no_folder_has_more_than_twelve_files():
    files = Counter(path.parent for path in MODULES.values())
    assert {str(folder): n for folder, n in files.items() if n > 12} == {}


def test_studies_is_where_the_three_packages_meet():
    used = set().union(*map(packages_imported, (ROOT / "studies").rglob("*.py")))
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


def modules_of(folder):
    return [module_name(path) for path in sorted((ROOT / "studies" / folder).rglob("*.py"))]


def test_reading_results_does_not_load_torch():
    of_folders = [module for folder in NEVER_LOAD_TORCH for module in modules_of(folder)]
    assert first_that_loads_torch(*READERS, *of_folders) == ""


def test_training_does_load_torch():
    """The test above would notice."""
    assert (
        first_that_loads_torch("studies.database.trials", "transfer.training.train")
        == "transfer.training.train"
    )
