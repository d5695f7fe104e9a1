"""A validation error becomes one line with key, law and value."""

import pytest
from pydantic import ValidationError

from studies.errors import one_line
from studies.settings import StudyOptions


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"trials": 0}, "option 'trials': input should be greater than or equal to 1, but got 0"),
        ({"trails": 3}, "Unknown option 'trails'"),
        ({"backbones": []}, "option 'backbones': at least one must be named, but got []"),
    ],
)
def test_the_first_finding_is_named(options: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StudyOptions(**options)
    assert one_line(caught.value, "option") == line
