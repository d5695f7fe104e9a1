"""What holds for every test."""

import sys

import pytest


@pytest.fixture(autouse=True)
def own_backbones_are_forgotten():
    """Backbones from a file are known to the process: let no test find those of another."""
    yield
    custom = sys.modules.get("transfer.custom")
    if custom is not None:
        custom.from_files.clear()
