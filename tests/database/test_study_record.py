"""What is stored of a study is read back; seconds add up; a newer version is refused."""

import optuna
import pytest

from studies.database.storage import open_storage
from studies.database.study import (
    SCHEMA,
    add_decoding_seconds,
    add_seconds_between_trials,
    read_data_card,
    read_study,
    write_data_card,
    write_identity,
    write_places,
    write_totals,
)

IDENTITY = {"settings": {"metric": "accuracy", "epochs": 3}, "opening": [{"backbone": "resnet18"}]}


@pytest.fixture
def study(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    return optuna.create_study(storage=storage.database, study_name="s", direction="maximize")


def test_seconds_of_decoding_add_up_over_the_runs_of_a_study(study):
    write_identity(study, {"settings": {}})
    write_totals(study, 8, None)
    assert read_study(study).decoding_seconds == 0.0
    add_decoding_seconds(study, 1.5)
    add_decoding_seconds(study, 2.0)
    assert read_study(study).decoding_seconds == 3.5


def test_identity_and_totals_are_read_back(study):
    write_identity(study, IDENTITY)
    write_totals(study, 12, None)
    record = read_study(study)
    assert record.identity == IDENTITY
    assert record.settings == IDENTITY["settings"]
    assert (record.opening, record.trials) == (IDENTITY["opening"], 12)
    assert record.timeout_seconds is None


def test_every_study_has_an_id_of_its_own_that_is_no_part_of_what_is_compared(study):
    ids = set()
    for _ in range(2):
        write_identity(study, IDENTITY)
        write_totals(study, 12, None)
        record = read_study(study)
        assert record.identity == IDENTITY
        ids.add(record.search_id)
    assert len(ids) == 2 and None not in ids


def test_places_are_stored_beside_the_identity_and_may_change(study):
    write_identity(study, {**IDENTITY, "data": {"source": "images"}})
    write_totals(study, 12, None)
    assert read_study(study).data_place == "images" and read_study(study).weight_places == {}
    write_places(study, {"data": "moved", "weights": {"resnet18": "w.pth"}})
    record = read_study(study)
    assert (record.data_place, record.weight_places) == ("moved", {"resnet18": "w.pth"})
    assert record.identity["data"]["source"] == "images"


def test_a_study_whose_process_was_killed_at_once_has_no_record(study):
    assert read_study(study) is None
    write_identity(study, IDENTITY)
    assert read_study(study) is None


def test_a_study_of_a_newer_version_is_refused(study):
    write_identity(study, {**IDENTITY, "schema": SCHEMA + 1})
    write_totals(study, 12, None)
    with pytest.raises(ValueError, match="newer version"):
        read_study(study)


def test_a_study_of_an_older_version_is_refused_with_the_way_out_but_its_trials_are_shown(study):
    write_identity(study, {**IDENTITY, "schema": SCHEMA - 1})
    write_totals(study, 12, None)
    with pytest.raises(ValueError, match=r"older version.*another --name.*count all the same"):
        read_study(study)
    assert read_study(study, allow_older=True).settings == IDENTITY["settings"]


def test_seconds_between_trials_add_up_apart_from_those_of_decoding(study):
    write_identity(study, IDENTITY)
    write_totals(study, 9, None)
    add_decoding_seconds(study, 4.0)
    for seconds in (1.0, 0.5):
        add_seconds_between_trials(study, seconds)
    record = read_study(study)
    assert (record.decoding_seconds, record.between_trials_seconds) == (4.0, 1.5)


def test_the_data_card_is_read_back_with_its_artifacts(study):
    assert read_data_card(study) is None
    write_data_card(study, {"counts": {"train": {"a": 3}}}, {"samples.png": "id"})
    card = read_data_card(study)
    assert card["counts"] == {"train": {"a": 3}} and card["artifacts"] == {"samples.png": "id"}


@pytest.mark.parametrize(("subjects", "worth"), [(None, 30), ({"val": 12}, 12)])
def test_a_split_is_worth_its_subjects_where_they_are_known(study, subjects, worth):
    data = {"counts": {"val": {"a": 10, "b": 20}}, "subjects": subjects}
    write_identity(study, {**IDENTITY, "data": data})
    write_totals(study, 9, None)
    assert read_study(study).num_independent("val") == worth
