"""What holds for every test."""

import os
import sys

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported, here and by commands that tests start: two processes with two
    # threads each on two cores would wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_backbones_are_forgotten():
    """Backbones from a file are known to the process: let no test find those of another."""
    yield
    custom = sys.modules.get("transfer.backbones.custom")
    if custom is not None:
        custom.from_files.clear()
