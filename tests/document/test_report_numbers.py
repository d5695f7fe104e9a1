"""Numbers are written in their unit, everywhere the same way, with where they come from."""

import pytest

from studies.document.numbers import (
    NOTHING,
    bytes_text,
    configuration_text,
    difference_text,
    interval_cell,
    interval_text,
    listed,
    metric_text,
    number_cell,
    seconds_text,
)
from studies.statistics.intervals import Interval

INTERVAL = Interval(value=0.9, low=0.85, high=0.94)


def test_shares_are_per_cent_and_losses_nats():
    assert metric_text("accuracy", 0.9) == "90.0 %" and metric_text("loss", 0.9) == "0.900"
    assert interval_text("recall@a", INTERVAL) == "90.0 % [85.0, 94.0]"
    assert interval_text("loss", INTERVAL) == "0.900 [0.850, 0.940]"
    assert difference_text("auroc", INTERVAL) == "+90.0 points [+85.0, +94.0]"
    assert difference_text("loss", INTERVAL) == "+0.900 [+0.850, +0.940]"


def test_what_is_not_defined_is_a_dash():
    nothing = {"value": None, "low": None, "high": None}
    assert interval_text("accuracy", nothing) == "-"
    assert interval_cell("accuracy", nothing, "x") == interval_cell("auroc", None, "x") == NOTHING
    assert number_cell(None) == NOTHING


def test_a_cell_keeps_the_number_and_its_source():
    cell = interval_cell("accuracy", INTERVAL, "trial 3", "#trial-3")
    assert (cell.key, cell.bounds) == (0.9, (0.85, 0.94))
    assert (cell.source, cell.href) == ("trial 3", "#trial-3")
    assert number_cell(1234, "{:,}").text == "1,234"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (600, "10.0 min"), (10_800, "3.0 h")]
)
def test_durations_can_be_read(seconds, text):
    assert seconds_text(seconds) == text


def test_bytes_configurations_and_lists_can_be_read():
    assert bytes_text(1.3e9) == "1.3 GB" and bytes_text(618.4e6) == "618.4 MB"
    params = {"learning_rate@fine_tuning": 0.000573, "batch_size": 8, "seed": 3, "candidate": 1}
    assert configuration_text(params) == "learning_rate 0.000573, batch_size 8"
    assert [listed(names) for names in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
