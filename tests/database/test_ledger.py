"""Every opening of a test set is recorded before it happens, and for ever."""

from datetime import UTC, datetime

import optuna
import pytest

from studies.database.ledger import close_entry, open_entry, openings, seal_sentence
from studies.database.storage import create_study, open_existing, open_storage

FIRST, OTHER = "a" * 64, "b" * 64
PREDICTED = {"value": 0.9, "low": 0.8, "high": 0.95}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def storage(url):
    return open_storage(url)


def add(storage, fingerprint=FIRST, reason=None):
    return open_entry(
        storage,
        test_fingerprint=fingerprint,
        study="s",
        bundle="c" * 64,
        reason=reason,
        predicted=PREDICTED,
    )


def test_where_nothing_was_opened_there_is_nothing_and_no_table_is_made(storage, url):
    assert openings(storage, FIRST) == []
    assert openings(open_existing(url), FIRST) == []


def test_an_opening_is_there_before_its_result_and_with_it_afterwards(storage, url):
    entry = add(storage)
    (opening,) = openings(open_existing(url), FIRST)
    assert (opening.number, opening.study, opening.predicted) == (1, "s", PREDICTED)
    assert abs((datetime.now(UTC) - opening.opened).total_seconds()) < 60
    assert not opening.is_finished
    close_entry(storage, entry, {"accuracy": 0.85})
    (opening,) = openings(open_existing(url), FIRST)
    assert opening.result == {"accuracy": 0.85} and opening.is_finished


def test_openings_are_counted_by_test_set(storage):
    for fingerprint in (FIRST, OTHER, FIRST):
        add(storage, fingerprint, reason="why not")
    assert [opening.number for opening in openings(storage, FIRST)] == [1, 2]
    assert [opening.number for opening in openings(storage, OTHER)] == [1]


def test_a_result_is_never_written_over(storage):
    entry = add(storage)
    close_entry(storage, entry, {"accuracy": 0.85})
    with pytest.raises(ValueError, match="has a result"):
        close_entry(storage, entry, {"accuracy": 0.99})
    assert openings(storage, FIRST)[0].result == {"accuracy": 0.85}
    with pytest.raises(ValueError, match="not there"):
        close_entry(storage, entry + 1, {})


def test_the_ledger_outlives_its_study(storage):
    create_study(storage, "s", "accuracy")
    add(storage)
    optuna.delete_study(study_name="s", storage=storage.database)
    assert len(openings(storage, FIRST)) == 1


def test_a_database_with_a_ledger_is_opened_as_before(storage, url):
    add(storage)
    assert len(openings(open_storage(url), FIRST)) == 1


def test_whether_a_test_set_is_sealed_is_said_with_the_number_of_openings(storage):
    assert seal_sentence(openings(storage, FIRST)) == "The test images are sealed."
    add(storage)
    assert seal_sentence(openings(storage, FIRST)).startswith("The test images were opened, on ")
    add(storage)
    assert "were opened 2 times, last on" in seal_sentence(openings(storage, FIRST))


def test_an_opening_as_json_has_neither_forecast_nor_result(storage):
    close_entry(storage, add(storage, reason="why not"), {"accuracy": 0.85})
    told = openings(storage, FIRST)[0].as_json()
    assert (told["opening"], told["reason"], told["is_finished"]) == (1, "why not", True)
    assert not {"predicted", "result"} & set(told)
