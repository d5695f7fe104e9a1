"""Metrics, intervals and tests. Pure functions that know nothing of studies."""
