"""What was allowed is said in every later output."""

from studies.data_check import allowed_lines


def record(allowed=(), unreadable=None, copies=None):
    left_out = {"unreadable": unreadable or {}, "copies": copies or {}}
    return {"allowed": list(allowed), "left_out": left_out}


def test_of_clean_data_nothing_is_said():
    assert allowed_lines(record()) == []


def test_what_was_allowed_and_what_was_left_out_is_said_and_a_changed_test_set_by_name():
    lines = allowed_lines(
        record(
            ["--drop-duplicates, as 8 images stand in both train and val"],
            {"train": 1200},
            {"val": 8, "test": 2},
        )
    )
    assert lines == [
        "Went on with --drop-duplicates, as 8 images stand in both train and val.",
        "Left out as unreadable: 1,200 of train.",
        "Left out as copies: 8 of val and 2 of test; the test set is not the one that was "
        "brought.",
    ]
