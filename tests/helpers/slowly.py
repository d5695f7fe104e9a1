"""Cases that need more time than README's test command has."""

import pytest


def slow(values):
    """The values as cases that run with `-m slow` alone."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
